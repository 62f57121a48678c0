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

from typing import Any

import keras

from quantal._core.estimator import Estimator as Estimator
from quantal._core.estimator import as_if as as_if
from quantal._core.estimator import inward as inward
from quantal.estimators.annealed import Annealed as Annealed
from quantal.estimators.annealed import BinaryRelax as BinaryRelax
from quantal.estimators.annealed import Residual as Residual
from quantal.estimators.annealed import Settling as Settling
from quantal.estimators.automatic import Automatic as Automatic
from quantal.estimators.corrected import ElementWiseScaled as ElementWiseScaled
from quantal.estimators.mean_field import MODERATION as MODERATION
from quantal.estimators.mean_field import MeanField as MeanField
from quantal.estimators.sampled import GumbelSoftmax as GumbelSoftmax
from quantal.estimators.straight_through import ArgmaxStraightThrough as ArgmaxStraightThrough
from quantal.estimators.straight_through import StraightThrough as StraightThrough

_BY_NAME: dict[str, type[Estimator]] = {
    "auto": Automatic,
    "straight_through": StraightThrough,
    "settling": Settling,
    "annealed": Annealed,
    "binary_relax": BinaryRelax,
    "argmax_straight_through": ArgmaxStraightThrough,
    "mean_field": MeanField,
    "element_wise_scaled": ElementWiseScaled,
    "residual": Residual,
    "gumbel_softmax": GumbelSoftmax,
}


def get(identifier: "str | dict[str, Any] | Estimator") -> Estimator:
    """An estimator from its name, its saved form or itself.

    Args:
        identifier: `"auto"`, `"straight_through"`, `"settling"`, `"annealed"`,
            `"binary_relax"`, `"argmax_straight_through"`, `"element_wise_scaled"`,
            `"residual"`, `"gumbel_softmax"`, `"mean_field"`, what
            `keras.saving.serialize_keras_object` gave, or an estimator.

    Raises:
        ValueError: The name is not known.
        TypeError: It is none of these.

    >>> get("annealed")
    Annealed(half_life=500.0, steepness=10.0)
    """
    if isinstance(identifier, Estimator):
        return identifier
    if isinstance(identifier, dict):
        identifier = keras.saving.deserialize_keras_object(identifier)
        if isinstance(identifier, Estimator):
            return identifier
    if isinstance(identifier, str):
        if identifier in _BY_NAME:
            return _BY_NAME[identifier]()
        raise ValueError(
            f"estimator is {identifier!r}. Expected one of {', '.join(_BY_NAME)}, or an "
            "estimator. For other settings give the estimator itself, for example "
            "quantal.estimators.Annealed(half_life=200)."
        )
    raise TypeError(
        f"estimator is {identifier!r} of type {type(identifier).__name__}. Expected a "
        f"name ({', '.join(_BY_NAME)}) or an instance of quantal.estimators.Estimator. "
        "Give an instance, not a class."
    )
