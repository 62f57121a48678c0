"""How gradients pass: what the forward pass sees, and which derivative comes back.

The nearest listed value is a step function of its latent. Its derivative is zero almost
everywhere, so gradient descent alone cannot learn it. An estimator replaces the
derivative. Every estimator is `as_if(value, surrogate)`: exactly the value in the forward
pass, the surrogate's derivative in the backward pass. So one function of the latent
documents an estimator, draws its picture and is its finite-difference test.

Three ways to give a layer the same estimator:

| spelling | use it |
|---|---|
| `Discrete(layer, values, estimator="settling")` | for the defaults of an estimator |
| `Discrete(layer, values, estimator=Settling(half_life=50))` | for other settings |
| `Discrete(layer, values)` | for the policy `"auto"`, which decides by the weight's shape (`resolve`) |

Latents are in the units of the list. An estimator also works by hand:

>>> from keras import ops
>>> latent = ops.convert_to_tensor([0.2, -0.9])
>>> ops.convert_to_numpy(StraightThrough()(latent, [1, -1, 0.5, -0.5]))
array([ 0.5, -1. ], dtype=float32)
"""  # noqa: E501 (a table)

import keras  # noqa: F401  first: see quantal._registration

from quantal._core.estimator import Estimator as Estimator
from quantal._core.tensors.gradients import as_if as as_if
from quantal._core.tensors.gradients import inward as inward
from quantal.estimators import contrib as contrib
from quantal.estimators.annealed import Annealed as Annealed
from quantal.estimators.element_wise_scaled import ElementWiseScaled as ElementWiseScaled
from quantal.estimators.gumbel_softmax import GumbelSoftmax as GumbelSoftmax
from quantal.estimators.mean_field import MODERATION as MODERATION
from quantal.estimators.mean_field import MeanField as MeanField
from quantal.estimators.policy import resolve as resolve
from quantal.estimators.registry import get as get
from quantal.estimators.settling import Settling as Settling
from quantal.estimators.straight_through import StraightThrough as StraightThrough
