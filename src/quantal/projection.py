"""The nearest listed value of every element of a tensor, exactly and cheaply.

Nearest value, code and bracket are all step functions of the latent. A step function
is evaluated in the cheapest form that returns its levels to the bit, whatever the
backend, the compiler and its fused arithmetic:

| steps | form | time | memory |
|---|---|---|---|
| up to 15 | a chain of selects | K per element, fused by a compiler | elements |
| more, on a grid of powers of two | rounding | constant | elements |
| more | a bucket table, then binary search within the bucket | log K at worst | elements |

Not `searchsorted` (5 to 400 times slower under XLA), and not a sum of steps (an ulp
beside the list).
"""

import functools
import math
from typing import Any

import numpy as np
from keras import ops
from numpy.typing import NDArray

from quantal.values import Values

LONGEST_CHAIN = 15
"""Steps up to which a chain of selects costs no more than one of them, compiled."""

_MARGIN = 0.25
"""What the bucket of a number may be off by rounding, in buckets. With at most 2^19
buckets the subtraction and the product lose less than 2^-22 of 2^19 = 1/8."""

_MOST_BUCKETS = 2**19


class StepFunction:
    """`levels[number of thresholds that are at most x]`, to the bit.

    NaN is at or above no threshold and gives the first level.

    Args:
        thresholds: float32, shape (n,), strictly ascending.
        levels: float32 or int32, shape (n + 1,).
    """

    def __init__(self, thresholds: NDArray[np.float32], levels: NDArray[Any]) -> None:
        self.thresholds = thresholds
        self.levels = levels
        if len(thresholds) <= LONGEST_CHAIN:
            self._form = self._chain
            return
        # Just below the first threshold: stands for everything there, NaN included.
        self._below = np.nextafter(thresholds[0], np.float32(-np.inf))
        grid = _dyadic_grid(thresholds, levels)
        if grid is not None:
            self._step, self._first, self._last = grid
            self._form = self._round
            return
        self._form = self._search
        self._lay_buckets()

    def __call__(self, x: Any) -> Any:
        """The levels of a float32 tensor: its shape, the levels' dtype, no gradient."""
        return self._form(ops.stop_gradient(x))

    def _chain(self, x: Any) -> Any:
        # Scalars go in as tensors: Python numbers in `where` break torch's compiler.
        result = ops.full_like(x, self.levels[0], dtype=self.levels.dtype.name)
        for threshold, level in zip(self.thresholds, self.levels[1:], strict=True):
            above = ops.greater_equal(x, ops.convert_to_tensor(threshold))
            result = ops.where(above, ops.convert_to_tensor(level), result)
        return result

    def _inside(self, x: Any) -> Any:
        """Between just below the first and the last threshold; finite, without NaN."""
        below, last = (ops.convert_to_tensor(end) for end in (self._below, self.thresholds[-1]))
        x = ops.where(ops.greater_equal(x, below), x, below)
        return ops.where(ops.greater_equal(x, last), last, x)

    def _round(self, x: Any) -> Any:
        # Division by a power of two and the fraction behind the floor are exact, so
        # this is the nearest multiple with ties upwards, to the bit.
        x = self._inside(x) / ops.convert_to_tensor(self._step)
        floor = ops.floor(x)
        up = ops.cast(ops.greater_equal(x - floor, ops.convert_to_tensor(np.float32(0.5))), "float32")
        return ops.clip(floor + up, self._first, self._last) * ops.convert_to_tensor(self._step)

    def _lay_buckets(self) -> None:
        """Buckets of one width over the thresholds, and where each one's search starts."""
        thresholds = self.thresholds.astype(float)
        span = thresholds[-1] - float(self._below)
        buckets = min(8 * len(thresholds), _MOST_BUCKETS)
        with np.errstate(over="ignore"):
            per_unit = np.float32(buckets / span)
        # Outside these, float32 overflows or flushes to zero: search the whole list.
        if not (span < 2.0**127 and per_unit < 2.0**121):
            buckets = 1
        self._buckets = buckets
        self._per_unit = per_unit
        edges = float(self._below) + np.arange(buckets + 1) / float(per_unit)
        slack = _MARGIN / float(per_unit)
        start = np.searchsorted(thresholds, edges[:-1] - slack, side="right")
        stop = np.searchsorted(thresholds, edges[1:] + slack, side="right")
        if buckets == 1:
            start, stop = np.array([0]), np.array([len(thresholds)])
        self._start = start.astype(np.int32)
        self._halvings = int((stop - start).max()).bit_length()
        # A search may look beyond the last threshold; nothing finite is at infinity.
        beyond = np.full(2**self._halvings, np.inf, np.float32)
        self._padded = np.concatenate([self.thresholds, beyond])

    def _search(self, x: Any) -> Any:
        x = self._inside(x)
        if self._buckets == 1:
            count = ops.zeros_like(x, dtype="int32")
        else:
            below, per_unit = (ops.convert_to_tensor(c) for c in (self._below, self._per_unit))
            bucket = ops.cast((x - below) * per_unit, "int32")
            bucket = ops.minimum(bucket, ops.convert_to_tensor(np.int32(self._buckets - 1)))
            count = ops.take(ops.convert_to_tensor(self._start), bucket)
        padded = ops.convert_to_tensor(self._padded)
        for halving in reversed(range(self._halvings)):
            stride = ops.convert_to_tensor(np.int32(2**halving))
            passed = ops.greater_equal(x, ops.take(padded, count + (stride - 1)))
            count = ops.where(passed, count + stride, count)
        return ops.take(ops.convert_to_tensor(self.levels), count)


def _dyadic_grid(
    thresholds: NDArray[np.float32], levels: NDArray[Any]
) -> tuple[np.float32, np.float32, np.float32] | None:
    """(step, first, last multiple) if levels are neighbouring multiples of a power of two.

    And if the thresholds are their midpoints. None for every other step function.
    """
    step = np.float32(levels[1] - levels[0])
    if levels.dtype != np.float32 or step <= 0 or math.frexp(step)[0] != 0.5:
        return None
    multiples = np.arange(len(levels)) + float(levels[0] / step)
    exact = (
        np.abs(multiples).max() <= 2**22
        and np.array_equal(multiples * float(step), levels)
        and np.array_equal((multiples[1:] - 0.5) * float(step), thresholds)
    )
    return (step, np.float32(multiples[0]), np.float32(multiples[-1])) if exact else None


class Projection:
    """A list in tensor form: nearest value, code and bracket of every element.

    Use it where tensors meet a list; `Values` says the same in NumPy, and both agree
    to the bit. Every method takes a float32 tensor of any shape and returns a tensor
    of that shape without gradient.
    """

    def __init__(self, values: Values) -> None:
        self.values = values

    @functools.cached_property
    def nearest(self) -> StepFunction:
        """The nearest listed value: float32."""
        return StepFunction(self.values.midpoints, self.values.ascending)

    @functools.cached_property
    def codes(self) -> StepFunction:
        """The nearest value's position in the user's list: int32."""
        return StepFunction(self.values.midpoints, self.values.order)

    @functools.cached_property
    def lower(self) -> StepFunction:
        """The lower end of the gap that holds the element; of the first gap below it."""
        inner = self.values.ascending[1:-1]
        return StepFunction(inner, self.values.ascending[:-1] if inner.size else self.values.ascending[:1])

    @functools.cached_property
    def upper(self) -> StepFunction:
        """The upper end of that gap; of the last gap above the list."""
        inner = self.values.ascending[1:-1]
        return StepFunction(inner, self.values.ascending[1:] if inner.size else self.values.ascending[-1:])


@functools.lru_cache(maxsize=256)
def projection_of(values: Values) -> Projection:
    """The projection onto a list; made once for each list."""
    return Projection(values)
