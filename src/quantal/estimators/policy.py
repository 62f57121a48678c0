"""The policy behind `estimator="auto"`: which estimator suits which weight."""

import math
from collections.abc import Sequence
from typing import Any

from quantal._core.estimator import Estimator
from quantal.estimators.registry import get
from quantal.estimators.settling import Settling
from quantal.estimators.straight_through import StraightThrough

AUTO = "auto"
"""The identifier that leaves the estimator to the policy."""

# Created once: PyTorch's compiler cannot trace the checks of their arguments.
_FOR_VECTORS, _FOR_OTHERS = Settling(), StraightThrough()


def parse(identifier: "str | dict[str, Any] | Estimator") -> "Estimator | str":
    """Return the estimator that an identifier stands for, or `"auto"` for `"auto"`.

    A layer keeps the result as its setting, before it knows the shapes of its weights.

    Args:
        identifier: `"auto"`, or what `quantal.estimators.get` accepts.

    Raises:
        ValueError: No estimator has this name.
        TypeError: The identifier is of another type.

    >>> parse("auto"), parse("mean_field")
    ('auto', MeanField(temperature=0.2))
    """
    return AUTO if _is_auto(identifier) else get(identifier)


def resolve(
    identifier: "str | dict[str, Any] | Estimator", shape: Sequence[int], learnable: bool = False
) -> Estimator:
    """Return the estimator of one weight, with `"auto"` decided by the weight's shape.

    `"auto"` is `Settling` for a vector on a fixed list and `StraightThrough` for all
    other weights. A weight is a vector if all its elements lie along one axis: a
    multiplier for each feature, or the kernel of a Dense layer with one unit. There
    straight-through stops at a poor assignment. In kernels with many units the gradients
    of a batch are noisy enough to continue, and soft values would spoil the statistics
    that batch normalisation learns. The entries of a learnable list learn from the
    elements that are assigned to them, which soft values blur.

    Args:
        identifier: `"auto"`, or what `quantal.estimators.get` accepts.
        shape: The shape of the weight.
        learnable: Whether training moves the entries of the weight's list.

    Source: measured, see benchmarks/learning.

    >>> resolve("auto", (10,))
    Settling(half_life=None, pull=8.0, steepness=10.0, step=0.1)
    >>> resolve("auto", (10, 3))
    StraightThrough(surrogate='identity', sharpness=None)
    >>> resolve("annealed", (10, 3))
    Annealed(half_life=500.0, steepness=10.0)
    """
    if not _is_auto(identifier):
        return get(identifier)
    return _FOR_VECTORS if is_vector(shape) and not learnable else _FOR_OTHERS


def is_vector(shape: Sequence[int]) -> bool:
    """Return whether all elements of a weight lie along one axis.

    >>> is_vector((1, 10, 1)), is_vector((10, 3))
    (True, False)
    """
    return math.prod(shape) == max(shape, default=1)


def _is_auto(identifier: Any) -> bool:
    # Arrays compare element by element.
    return isinstance(identifier, str) and identifier == AUTO
