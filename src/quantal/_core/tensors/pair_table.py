"""The nearest value in a long list is one of two, which a table has for each bucket of numbers.

The two looks at the table do not wait for each other, so they take less than those of a
`StepTable`, whose second one waits for what the first one says. Which of the two is nearer is
decided by their distances, which floats subtract exactly unless the values lie around zero.

Buckets are as wide as they may be: a small table stays in the processor's nearest cache. The few
thresholds that share a bucket with another one, and the few numbers whose distances are
rounded so that they tell the other level, are intervals that are compared one by one afterwards.
"""

import math
from typing import Any, NamedTuple, Self

import numpy as np
from keras import ops
from numpy.typing import NDArray

from quantal._core.tensors.backend import taken
from quantal._core.tensors.constants import Constant
from quantal._core.tensors.step_functions import StepFunction, ends, within
from quantal._core.types import Tensor

MOST_BUCKETS = 2**14
"""Two tables of more buckets leave the processor's second cache, and no longer pay."""

_FEWEST_BUCKETS = 2**9
"""From so few buckets on a smaller table is no faster."""

_FEW_INTERVALS = 6
"""So many intervals cost less than a table of twice the size."""

_MOST_INTERVALS = 15
"""More of them cost more than a `StepTable`."""

_LEAST, _MOST = 2.0**-60, 2.0**60
"""Numbers between these, and their differences, are far from the ends of float32's range."""


class Interval(NamedTuple):
    """An interval of numbers from `start` up to `stop`, without it, has one level."""

    start: float
    stop: float
    level: float


class EvenBuckets(NamedTuple):
    """Even buckets have one width, a power of two, and lie side by side.

    The position of a number's bucket is exact: a product with a power of two, and one
    difference that every compiler rounds alike.

    Attributes:
        per_unit: The number of buckets in a unit.
        first: The position of the first bucket, counted from zero on.
    """

    per_unit: float
    first: int

    def position(self, x: Any) -> Any:
        """Return where the buckets of a float32 array or tensor lie, with a fraction."""
        return x * self.per_unit - self.first


class PairTable(StepFunction):
    """A pair table has for each bucket of numbers the two levels between which it decides.

    Attributes:
        buckets: Which numbers share a bucket.
        lower: The level below the first threshold of each bucket, float32.
        upper: The level from it on; that below in a bucket without thresholds.
        intervals: What is compared by itself.
    """

    def __init__(
        self, thresholds: NDArray[np.float32], levels: NDArray[np.float32], per_unit: float
    ) -> None:
        self._below, self._top = ends(thresholds)
        self.buckets = EvenBuckets(per_unit, math.floor(self._below * per_unit))
        bucket = self.buckets.position(thresholds).astype(int)
        # Of the thresholds in a bucket its pair stands for the first one.
        start = np.searchsorted(bucket, np.arange(bucket[-1] + 1))
        has_one = np.isin(np.arange(bucket[-1] + 1), bucket)
        self.lower, self.upper = levels[start], levels[start + has_one]
        self._lower, self._upper = Constant(self.lower), Constant(self.upper)
        is_first = np.append(True, np.diff(bucket) > 0)
        self.intervals = _shared(thresholds, levels, is_first)
        if len(self.intervals) <= _MOST_INTERVALS:
            self.intervals += _rounded(thresholds, levels, is_first)

    @classmethod
    def of(cls, thresholds: NDArray[np.float32], levels: NDArray[Any]) -> Self | None:
        """Return the table of a step function; None where it would be too large.

        It is for ascending float32 levels whose midpoints are the thresholds.
        """
        if not _is_ordinary(thresholds, levels):
            return None
        below, top = ends(thresholds)
        tables = []
        buckets = _FEWEST_BUCKETS
        while buckets <= MOST_BUCKETS:
            table = cls(thresholds, levels, 2.0 ** math.floor(math.log2(buckets / (top - below))))
            if len(table.intervals) <= _FEW_INTERVALS:
                return table
            tables.append(table)
            buckets *= 2
        best = min(tables, key=lambda table: len(table.intervals))
        return best if len(best.intervals) <= _MOST_INTERVALS else None

    def evaluate(self, x: Tensor) -> Tensor:
        x = within(x, self._below, self._top)
        bucket = ops.cast(self.buckets.position(x), "int32")
        lower, upper = taken(self._lower(), bucket), taken(self._upper(), bucket)
        result = ops.where(_is_nearer_to_upper(x, lower, upper), upper, lower)
        for start, stop, level in self.intervals:
            result = ops.where(ops.logical_and(x >= start, x < stop), level, result)
        return result


def _is_nearer_to_upper(x: Any, lower: Any, upper: Any) -> Any:
    return x - lower >= upper - x


def _is_ordinary(thresholds: NDArray[np.float32], levels: NDArray[Any]) -> bool:
    """Return whether levels ascend around their thresholds, and are neither tiny nor huge."""
    if levels.dtype != np.float32 or not (np.diff(levels) > 0).all():
        return False
    if not ((levels[:-1] < thresholds) & (thresholds <= levels[1:])).all():
        return False
    numbers = np.concatenate([thresholds, levels]).astype(float)
    magnitudes = np.abs(numbers[numbers != 0])
    is_in_range = magnitudes.min() > _LEAST and magnitudes.max() < _MOST
    span = float(thresholds[-1]) - float(thresholds[0])
    # Far from zero the positions of narrow buckets are rounded to a few.
    return bool(is_in_range and np.abs(thresholds).max() < 2**8 * span)


def _shared(
    thresholds: NDArray[np.float32], levels: NDArray[np.float32], is_first: NDArray[np.bool_]
) -> list[Interval]:
    """Return the intervals from each threshold that is not the first in its bucket to the next."""
    stop = np.append(thresholds[1:], np.inf)
    return [
        Interval(float(thresholds[k]), float(stop[k]), float(levels[k + 1]))
        for k in np.flatnonzero(~is_first).tolist()
    ]


def _rounded(
    thresholds: NDArray[np.float32], levels: NDArray[np.float32], is_first: NDArray[np.bool_]
) -> list[Interval]:
    """Return the intervals of numbers whose rounded distances tell the other level.

    Rounding keeps the order of numbers: from one number on the distances tell the upper level.
    """
    lower, upper = levels[:-1], levels[1:]
    before = np.nextafter(thresholds, np.float32(-np.inf))
    is_late = ~_is_nearer_to_upper(thresholds, lower, upper)
    is_early = _is_nearer_to_upper(before, lower, upper)
    intervals = []
    for k in np.flatnonzero(is_first & (is_late | is_early)).tolist():
        threshold, change = thresholds[k], _first_nearer_to_upper(lower[k], upper[k])
        # Neighbours see to what lies beyond them.
        if is_late[k]:
            stop = min([change, *thresholds[k + 1 : k + 2]])
            intervals.append(Interval(float(threshold), float(stop), float(upper[k])))
        else:
            start = max([change, *thresholds[max(k - 1, 0) : k]])
            intervals.append(Interval(float(start), float(threshold), float(lower[k])))
    return intervals


def _first_nearer_to_upper(lower: np.float32, upper: np.float32) -> np.float32:
    """Return the smallest number whose rounded distances tell the upper one of two levels."""
    # Between them in the order of floats, as integers.
    start, stop = (_order_of(number) for number in (lower, upper))
    while stop - start > 1:
        middle = (start + stop) // 2
        if _is_nearer_to_upper(_float_at(middle), lower, upper):
            stop = middle
        else:
            start = middle
    return _float_at(stop)


def _order_of(number: np.float32) -> int:
    bits = int(number.view(np.int32))
    return bits if bits >= 0 else -(bits & 0x7FFFFFFF)


def _float_at(order: int) -> np.float32:
    magnitude = np.int32(abs(order)).view(np.float32)
    return magnitude if order >= 0 else -magnitude
