"""The names of all estimators, and the estimator that a name or a config stands for."""

from typing import Any

import keras

from quantal._core.estimator import Estimator
from quantal.estimators.annealed import Annealed
from quantal.estimators.contrib.argmax_straight_through import ArgmaxStraightThrough
from quantal.estimators.contrib.binary_relax import BinaryRelax
from quantal.estimators.contrib.residual import Residual
from quantal.estimators.contrib.surrogates import SURROGATES
from quantal.estimators.element_wise_scaled import ElementWiseScaled
from quantal.estimators.gumbel_softmax import GumbelSoftmax
from quantal.estimators.mean_field import MeanField
from quantal.estimators.settling import Settling
from quantal.estimators.straight_through import StraightThrough

_BY_NAME: dict[str, type[Estimator]] = {
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
    """Return the estimator that a name, a config or an estimator stands for.

    Args:
        identifier: A name (`"straight_through"`, `"settling"`, `"annealed"`,
            `"binary_relax"`, `"argmax_straight_through"`, `"element_wise_scaled"`,
            `"residual"`, `"gumbel_softmax"`, `"mean_field"`), what
            `keras.saving.serialize_keras_object` returned for an estimator, or an
            estimator. Layers also accept `"auto"`, which is a policy and no
            estimator: `resolve` applies it to a weight's shape.

    Raises:
        ValueError: No estimator has this name.
        TypeError: The identifier is of another type.

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
        if identifier == "auto":
            raise ValueError(
                "estimator is 'auto', which is a policy and no estimator. Layers accept it; "
                "by hand use quantal.estimators.resolve('auto', shape)."
            )
        if identifier in SURROGATES:
            raise ValueError(
                f"estimator is {identifier!r}, which is a surrogate. Expected an estimator. Give "
                f"quantal.estimators.StraightThrough({identifier!r})."
            )
        raise ValueError(
            f"estimator is {identifier!r}. Expected one of {', '.join(_BY_NAME)}, or an "
            "estimator; layers and discretize also take 'auto'. For other settings give the "
            "estimator itself, for example quantal.estimators.Annealed(half_life=200)."
        )
    raise TypeError(
        f"estimator is {identifier!r} of type {type(identifier).__name__}. Expected a "
        f"name ({', '.join(_BY_NAME)}) or an instance of quantal.estimators.Estimator. "
        "Give an instance, not a class."
    )


def name_of(estimator: Estimator) -> str:
    """Return the name of an estimator's class, or what the class is called where it has no name.

    >>> name_of(get("annealed"))
    'annealed'
    """
    kind = type(estimator)
    return next((name for name, other in _BY_NAME.items() if other is kind), kind.__name__)
