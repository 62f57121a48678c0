"""A step function of many steps that takes two looks at a table, whatever its list.

Thresholds get buckets so narrow that none has more than one of them, rounding included. So a
number is compared once, with the threshold of its bucket. Where thresholds crowd at zero, as those
of numbers with exponents do, buckets are of one width on a logarithmic scale.

A compiler makes one loop of it, in which each look at a table costs as much as a chain of 15 steps.
"""

from typing import Any, NamedTuple, Self

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray

from quantal._core.tensors.backend import is_compiled_in_torch, taken
from quantal._core.tensors.constants import Constant
from quantal._core.tensors.step_functions import StepFunction, ends, within
from quantal._core.types import Tensor

MOST_BUCKETS = 2**16
"""A table of more buckets leaves the processor's cache, and no longer pays."""

_MOST_LOGARITHMIC = 2**14
"""On a logarithmic scale, whose float32 logarithms are off by up to 2^-15, there are fewer."""

_MARGIN = 0.25
"""The bucket of a number may be off by so many buckets through rounding; it is off by less than
2^-6, and on a logarithmic scale by less than 2^-2."""

_BELOW_SMALLEST = 0.25
"""The logarithmic scale begins at this part of the smallest threshold: zero and the two thresholds
around it get buckets of their own."""


class Scaling(NamedTuple):
    """A scaling says how numbers become positions of buckets of one width.

    Attributes:
        first: The scaled number at which the first bucket begins.
        per_unit: The number of buckets in a scaled unit.
        smallest: Magnitudes up to this one count as it on a logarithmic scale; None for a
            linear scale.
    """

    first: float
    per_unit: float
    smallest: float | None = None

    def position(self, x: Tensor) -> Tensor:
        """Return the positions of the buckets of a float32 tensor: int32."""
        if self.smallest is not None:
            magnitude = ops.log(ops.maximum(ops.abs(x), self.smallest) * (1.0 / self.smallest))
            x = ops.where(x < 0, -magnitude, magnitude)
        return ops.cast((x - self.first) * self.per_unit, "int32")


class StepTable(StepFunction):
    """A step table has for each bucket its threshold and the levels below and above it.

    Attributes:
        scaling: How numbers become positions of buckets.
        buckets: The number of buckets.
        thresholds: The threshold of each bucket, float32.
        levels: The two levels of each bucket, one after the other.
    """

    def __init__(
        self,
        scaling: Scaling,
        counts: NDArray[np.intp],
        thresholds: NDArray[np.float32],
        levels: NDArray[Any],
    ) -> None:
        self._below, self._top = ends(thresholds)
        self.scaling, self.buckets = scaling, len(counts)
        # Beyond the last threshold nothing is above; the comparison decides nothing there.
        self.thresholds = Constant(thresholds[np.minimum(counts, len(thresholds) - 1)])
        pairs = np.stack([levels[counts], levels[np.minimum(counts + 1, len(levels) - 1)]], axis=1)
        self.levels = Constant(pairs.reshape(-1))
        # The bits of the level below a threshold, and above them those of the level from it on.
        bits = np.ascontiguousarray(pairs).view(np.uint32).astype(np.int64)
        self._pairs = Constant(bits[:, 0] | bits[:, 1] << 32)
        self._dtype = levels.dtype.name

    @classmethod
    def of(cls, thresholds: NDArray[np.float32], levels: NDArray[Any]) -> Self | None:
        """Return the table of a step function; None where it would be too large."""
        for scaled, most in ((_linear, MOST_BUCKETS), (_logarithmic, _MOST_LOGARITHMIC)):
            result = scaled(thresholds)
            if result is None:
                continue
            numbers, first, smallest = result
            counts = _counts(numbers, first, most)
            if counts is not None:
                per_unit = float(np.float32(len(counts) / (numbers[-1] - first)))
                return cls(Scaling(first, per_unit, smallest), counts, thresholds, levels)
        return None

    def evaluate(self, x: Tensor) -> Tensor:
        x = within(x, self._below, self._top)
        bucket = ops.minimum(self.scaling.position(x), self.buckets - 1)
        passed = x >= taken(self.thresholds(), bucket)
        if keras.config.backend() == "torch" and is_compiled_in_torch():
            return self._level_of_pair(taken(self._pairs(), bucket), passed)
        return taken(self.levels(), 2 * bucket + ops.cast(passed, "int32"))

    def _level_of_pair(self, pair: Tensor, passed: Tensor) -> Tensor:
        """Return the level below or from the threshold on, which are the bits of one integer.

        So both looks are at the same position, which PyTorch's compiler prepares once.
        """
        import torch

        lower, upper = (
            bits.to(torch.int32).view(getattr(torch, self._dtype)) for bits in (pair, pair >> 32)
        )
        return torch.where(passed, upper, lower)


def _linear(thresholds: NDArray[np.float32]) -> tuple[NDArray[np.float64], float, None] | None:
    """Return the thresholds and where the first bucket begins; None beyond float32's range."""
    below = ends(thresholds)[0]
    numbers = thresholds.astype(float)
    span = numbers[-1] - below
    is_safe = 2.0**-100 < span < 2.0**127
    return (numbers, below, None) if is_safe else None


def _logarithmic(
    thresholds: NDArray[np.float32],
) -> tuple[NDArray[np.float64], float, float] | None:
    """Return the thresholds on a logarithmic scale, where that begins, and its smallest number."""
    below = ends(thresholds)[0]
    magnitudes = np.abs(thresholds[thresholds != 0].astype(float))
    smallest = float(np.float32(_BELOW_SMALLEST * magnitudes.min(initial=np.inf)))
    if not 2.0**-100 < smallest < 2.0**126:
        return None
    inverse = 1.0 / smallest
    if not max(magnitudes.max(), abs(below)) * inverse < 2.0**127:
        return None

    def scaled(x: Any) -> Any:
        return np.sign(x) * np.log(np.maximum(np.abs(x), smallest) * inverse)

    return scaled(thresholds.astype(float)), float(np.float32(scaled(below))), smallest


def _counts(numbers: NDArray[np.float64], first: float, most: int) -> NDArray[np.intp] | None:
    """Return how many scaled thresholds lie below each bucket; None where `most` are too few.

    Each bucket, with a margin on both sides, holds one threshold or none.
    """
    span = numbers[-1] - first
    smallest_gap = np.diff(numbers).min(initial=np.inf)
    # With so many, neighbours are further apart than a bucket and its margins; fewer may do.
    enough = (1 + 2 * _MARGIN) * span / smallest_gap if smallest_gap > 0 else np.inf
    for buckets in (enough / 4, enough / 2, enough):
        if not buckets <= most:
            return None
        size = int(np.ceil(buckets)) + 1
        per_unit = float(np.float32(size / span))
        edges, slack = first + np.arange(size + 1) / per_unit, _MARGIN / per_unit
        start = np.searchsorted(numbers, edges[:-1] - slack, side="right")
        stop = np.searchsorted(numbers, edges[1:] + slack, side="right")
        if (stop - start).max() <= 1:
            return start
    return None
