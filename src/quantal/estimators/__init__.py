"""How gradients pass: what the forward pass sees and what derivative goes back.

Every estimator is `as_if(value, surrogate)`: exactly the value going forward, the
surrogate's derivative going back. So one function of the latent documents an
estimator, draws its picture and is its finite-difference test.

Latents come in the units of the list. An estimator is used by a layer, or by hand:

>>> from keras import ops
>>> latent = ops.convert_to_tensor([0.2, -0.9])
>>> ops.convert_to_numpy(StraightThrough()(latent, [1, -1, 0.5, -0.5]))
array([ 0.5, -1. ], dtype=float32)
"""

import keras  # noqa: F401  first: see quantal._registration

from quantal._core.estimator import Estimator as Estimator
from quantal._core.estimator import as_if as as_if
from quantal._core.estimator import inward as inward
from quantal.estimators.annealed import Annealed as Annealed
from quantal.estimators.annealed import BinaryRelax as BinaryRelax
from quantal.estimators.annealed import Residual as Residual
from quantal.estimators.annealed import Settling as Settling
from quantal.estimators.corrected import ElementWiseScaled as ElementWiseScaled
from quantal.estimators.mean_field import MODERATION as MODERATION
from quantal.estimators.mean_field import MeanField as MeanField
from quantal.estimators.policy import resolve as resolve
from quantal.estimators.registry import get as get
from quantal.estimators.sampled import GumbelSoftmax as GumbelSoftmax
from quantal.estimators.straight_through import ArgmaxStraightThrough as ArgmaxStraightThrough
from quantal.estimators.straight_through import StraightThrough as StraightThrough
