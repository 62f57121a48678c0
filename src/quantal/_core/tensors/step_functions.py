"""Step functions of tensors are evaluated exactly, to the bit, and cheaply.

A step function is `levels[number of thresholds that are at most x]`. It is evaluated in
the cheapest form that returns its levels to the bit, whatever the backend, the compiler
and its fused arithmetic:

| steps | form | time | memory |
|---|---|---|---|
| up to 15 | `Chain`: a chain of selects | K per element, fused by a compiler | elements |
| more, on a grid of powers of two | `Grid`: rounding | constant | elements |
| more, the nearest of values that are spread fairly, on JAX and TensorFlow | `PairTable` (in `pair_table`): the two values of a bucket, one comparison | constant | elements |
| more, of which no two lie too close | `StepTable` (in `step_table`): a bucket for each threshold, one comparison | constant | elements |
| more | `Buckets`: a bucket table, then binary search within the bucket | log K at worst | elements |
| more than 7, PyTorch on other devices where it does not trace | `Bisection`: its `searchsorted` | log K | elements |

PyTorch on a processor, where it does not trace, has forms of its own: see `blocks`.
Elsewhere `searchsorted` is 5 to 400 times slower under XLA, and a sum of steps may be one
unit in the last place off the list.
"""  # noqa: E501 (a table)

import abc
import math
from typing import Any, NamedTuple

import numpy as np
from keras import ops
from numpy.typing import NDArray

from quantal._core.tensors.backend import taken
from quantal._core.tensors.constants import Constant
from quantal._core.types import Tensor

LONGEST_CHAIN = 15
"""Up to so many steps a compiled chain of selects costs no more than one of them."""

LONGEST_EAGER_CHAIN = 7
"""Up to so many steps a chain is fastest in PyTorch without its compiler, where each
select is a pass over memory."""

_MARGIN = 0.25
"""The bucket of a number may be off by so many buckets through rounding. With the 2^19 buckets of
the longest list the subtraction and the product lose less than 2^-22 of 2^19 = 1/8."""

_BUCKETS_PER_STEP = 8
"""Each threshold gets so many buckets: most of them then have one threshold or none."""


class StepFunction(abc.ABC):
    """A step function returns `levels[number of thresholds that are at most x]`.

    NaN is at or above no threshold and gives the first level. `step_function` (in
    `cheapest_form`) creates one in the cheapest form.
    """

    def __call__(self, x: Tensor) -> Tensor:
        """Return the levels of a float32 tensor: its shape, the levels' dtype, no gradient."""
        return self.evaluate(ops.stop_gradient(ops.convert_to_tensor(x)))

    @abc.abstractmethod
    def evaluate(self, x: Tensor) -> Tensor:
        """Return the levels of a float32 tensor without gradient."""


class Chain(StepFunction):
    """A chain evaluates a step function by one select for each step."""

    def __init__(self, thresholds: NDArray[np.float32], levels: NDArray[Any]) -> None:
        # Python numbers: compilers see them as constants, torch's no NumPy scalar.
        self._steps = list(zip(thresholds.tolist(), levels[1:].tolist(), strict=True))
        self._lowest, self._dtype = levels[0].item(), levels.dtype.name

    def evaluate(self, x: Tensor) -> Tensor:
        result = ops.cast(ops.zeros_like(x), self._dtype) + self._lowest
        for threshold, level in self._steps:
            result = ops.where(x >= threshold, level, result)
        return result


class Grid(StepFunction):
    """A grid rounds to multiples of a power of two, for lists of consecutive ones."""

    def __init__(self, thresholds: NDArray[np.float32], levels: NDArray[Any]) -> None:
        self._below, self._top = ends(thresholds)
        self._step = float(levels[1]) - float(levels[0])
        self._first = float(levels[0]) / self._step
        self._last = self._first + len(levels) - 1

    @staticmethod
    def holds(thresholds: NDArray[np.float32], levels: NDArray[Any]) -> bool:
        """Return whether levels are such multiples, and thresholds their midpoints."""
        step = float(levels[1]) - float(levels[0])
        if levels.dtype != np.float32 or step <= 0 or math.frexp(step)[0] != 0.5:
            return False
        multiples = np.arange(len(levels)) + float(levels[0]) / step
        # Up to 2^22 a float32 number and its half are exact.
        return bool(
            np.abs(multiples).max() <= 2**22
            and np.array_equal(multiples, np.floor(multiples))
            and np.array_equal(multiples * step, levels)
            and np.array_equal((multiples[1:] - 0.5) * step, thresholds)
        )

    def evaluate(self, x: Tensor) -> Tensor:
        # Division by a power of two and the fraction behind the floor are exact, so
        # this is the nearest multiple with ties upwards, to the bit.
        x = within(x, self._below, self._top) / self._step
        floor = ops.floor(x)
        multiple = floor + ops.cast(x - floor >= 0.5, "float32")
        return ops.minimum(ops.maximum(multiple, self._first), self._last) * self._step


class Layout(NamedTuple):
    """A layout of buckets of one width over thresholds says what each bucket's search covers.

    Attributes:
        below: Where the first bucket begins.
        per_unit: The number of buckets in a unit.
        start: The first count of thresholds that each bucket's search covers.
        halvings: How often a search halves what it covers, at most.
    """

    below: float
    per_unit: float
    start: NDArray[np.int32]
    halvings: int


def lay_buckets(thresholds: NDArray[np.float32]) -> Layout:
    """Lay buckets over ascending thresholds; one bucket, where float32 allows no more."""
    below, numbers = ends(thresholds)[0], thresholds.astype(float)
    span = numbers[-1] - below
    buckets = _BUCKETS_PER_STEP * len(numbers)
    with np.errstate(over="ignore"):
        per_unit = float(np.float32(buckets / span))
    # Outside these, float32 overflows or flushes to zero: search the whole list.
    if not (span < 2.0**127 and per_unit < 2.0**121):
        return Layout(below, per_unit, np.zeros(1, np.int32), len(numbers).bit_length())
    edges = below + np.arange(buckets + 1) / per_unit
    slack = _MARGIN / per_unit
    start = np.searchsorted(numbers, edges[:-1] - slack, side="right")
    stop = np.searchsorted(numbers, edges[1:] + slack, side="right")
    halvings = int((stop - start).max()).bit_length()
    return Layout(below, per_unit, start.astype(np.int32), halvings)


class Buckets(StepFunction):
    """A bucket table says where each number's binary search among the thresholds starts."""

    def __init__(self, thresholds: NDArray[np.float32], levels: NDArray[Any]) -> None:
        self._below, self._top = ends(thresholds)
        layout = lay_buckets(thresholds)
        self._buckets, self._per_unit = len(layout.start), layout.per_unit
        self._start, self.halvings = Constant(layout.start), layout.halvings
        # A search may look beyond the last threshold; nothing finite is at infinity.
        beyond = np.full(2**self.halvings, np.inf, np.float32)
        self._padded = Constant(np.concatenate([thresholds, beyond]))
        self._levels = Constant(levels)

    def evaluate(self, x: Tensor) -> Tensor:
        x = within(x, self._below, self._top)
        if self._buckets == 1:
            count = ops.cast(ops.zeros_like(x), "int32")
        else:
            bucket = ops.cast((x - self._below) * self._per_unit, "int32")
            count = taken(self._start(), ops.minimum(bucket, self._buckets - 1))
        padded = self._padded()
        for halving in reversed(range(self.halvings)):
            passed = x >= taken(padded, count + (2**halving - 1))
            count = ops.where(passed, count + 2**halving, count)
        return taken(self._levels(), count)


class Bisection(StepFunction):
    """A bisection uses PyTorch's `searchsorted`, and another form where it traces.

    Args:
        thresholds: As in `step_function`.
        levels: As in `step_function`.
        compiled: The form to trace.
    """

    def __init__(
        self, thresholds: NDArray[np.float32], levels: NDArray[Any], compiled: StepFunction
    ) -> None:
        self.compiled = compiled
        self._sorted, self._levels = Constant(thresholds), Constant(levels)

    def evaluate(self, x: Tensor) -> Tensor:
        if _torch_traces():
            return self.compiled.evaluate(x)
        import torch

        # NaN counts as beyond the last threshold there, and goes below the first here.
        x = torch.nan_to_num(x, nan=-math.inf, posinf=math.inf, neginf=-math.inf)
        count = torch.searchsorted(self._sorted(), x, right=True, out_int32=True)
        # Keras's take would make four tensors of 64-bit positions on the way.
        return torch.index_select(self._levels(), 0, count.reshape(-1)).reshape(count.shape)


def _torch_traces() -> bool:
    import torch

    return torch.compiler.is_compiling() or torch.jit.is_tracing()


def ends(thresholds: NDArray[np.float32]) -> tuple[float, float]:
    """Return a number just below the first threshold, and the last threshold.

    The first stands for everything below the thresholds, NaN included. It is no subnormal number:
    compilers take those for 0, which may be the threshold itself.
    """
    below = np.nextafter(thresholds[0], np.float32(-np.inf))
    smallest_normal = np.finfo(np.float32).tiny
    if abs(below) < smallest_normal:
        below = -smallest_normal
    return float(below), float(thresholds[-1])


def within(x: Tensor, below: float, top: float) -> Tensor:
    """Return `x` limited to [below, top]: finite, and `below` for NaN."""
    x = ops.where(x >= below, x, below)
    return ops.where(x >= top, top, x)
