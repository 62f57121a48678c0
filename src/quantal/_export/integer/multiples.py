"""Write the numbers of a list as integer multiples of one step."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from quantal._export.graph.steps import Floats

LARGEST = 2**15 - 1
"""The largest multiple of the step: a grid's numbers take two bytes at most."""

MOST_STEPS = 2**7 - 1
"""The smallest magnitude is at most so many steps: finer ones would fit any numbers."""

_TOLERANCE = 2.0**-22
"""Numbers of a list are float32, so their ratios are known to two roundings."""

Integers = NDArray[np.int64]


class Multiples(NamedTuple):
    """The numbers of a list are integers times one step.

    Attributes:
        integers: int64, the shape of the list.
        step: The step, above 0.
    """

    integers: Integers
    step: float


def multiples_of(numbers: NDArray[Any]) -> Multiples | None:
    """Return a list as integers times the largest step that allows it; None where none does.

    Ratios count as whole where float32 cannot tell them from whole ones. No integer is beyond
    `LARGEST`, and the smallest magnitude is at most `MOST_STEPS`.

    Args:
        numbers: Finite numbers, any shape.

    >>> multiples_of(np.array([1, -1, 0.5, -0.5]))
    Multiples(integers=array([ 2, -2,  1, -1]), step=0.5)
    >>> multiples_of(np.array([1, 2**0.5])) is None
    True
    """
    numbers = np.asarray(numbers, np.float64)
    magnitudes = np.unique(np.abs(numbers[numbers != 0]))
    if not len(magnitudes):
        return Multiples(np.zeros(numbers.shape, np.int64), 1.0)
    divisor = _divisor(magnitudes / magnitudes[0])
    if divisor is None:
        return None
    step = float(magnitudes[0]) / divisor
    return Multiples(np.rint(numbers / step).astype(np.int64), step)


def _divisor(ratios: Floats) -> int | None:
    """Return the smallest integer that makes ratios, at least 1, whole; None for none."""
    most = min(int(LARGEST // ratios[-1]), MOST_STEPS)
    candidates = np.arange(1, most + 1)
    for ratio in ratios:
        whole = candidates * ratio
        candidates = candidates[np.abs(whole - np.rint(whole)) <= _TOLERANCE * whole]
    return int(candidates[0]) if len(candidates) else None
