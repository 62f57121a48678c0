"""The nearest listed value of every element of a tensor, exactly and cheaply.

Nearest value, code and bracket are all step functions of the latent. A step function
is evaluated in the cheapest form that returns its levels to the bit, whatever the
backend, the compiler and its fused arithmetic:

| steps | form | time | memory |
|---|---|---|---|
| up to 15 | a chain of selects | K per element, fused by a compiler | elements |
| more, on a grid of powers of two | rounding | constant | elements |
| more | a bucket table, then binary search within the bucket | log K at worst | elements |
| more than 7, PyTorch without its compiler | its `searchsorted` | log K | elements |

Elsewhere `searchsorted` is 5 to 400 times slower under XLA, and a sum of steps is an
ulp beside the list.
"""

import math
import weakref
from typing import Any

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray

from quantal._core.numbers.values import Values

LONGEST_CHAIN = 15
"""Steps up to which a chain of selects costs no more than one of them, compiled."""

LONGEST_EAGER_CHAIN = 7
"""The same for PyTorch without its compiler."""

_MARGIN = 0.25
"""What the bucket of a number may be off by rounding, in buckets. With at most 2^19
buckets the subtraction and the product lose less than 2^-22 of 2^19 = 1/8."""

_MOST_BUCKETS = 2**19

_LARGEST = float(np.finfo(np.float32).max)


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
        # Without a compiler each select is a pass over memory.
        self._bisects = keras.config.backend() == "torch" and len(thresholds) > LONGEST_EAGER_CHAIN
        if self._bisects:
            self._sorted, self._levels = Table(thresholds), Table(levels)
        if len(thresholds) <= LONGEST_CHAIN:
            # Python numbers: compilers see them as constants, torch's no NumPy scalar.
            self._steps = list(zip(thresholds.tolist(), levels[1:].tolist(), strict=True))
            self._lowest, self._dtype = levels[0].item(), levels.dtype.name
            self._form = self._chain
            return
        # Just below the first threshold: stands for everything there, NaN included.
        self._below = float(np.nextafter(thresholds[0], np.float32(-np.inf)))
        self._top = float(thresholds[-1])
        grid = _dyadic_grid(thresholds, levels)
        if grid is not None:
            self._step, self._first, self._last = grid
            self._form, self._bisects = self._round, False
            return
        self._form = self._search
        self._lay_buckets()

    def __call__(self, x: Any) -> Any:
        """The levels of a float32 tensor: its shape, the levels' dtype, no gradient."""
        x = ops.stop_gradient(ops.convert_to_tensor(x))
        if self._bisects and not _torch_compiles():
            return self._bisect(x)
        return self._form(x)

    def _bisect(self, x: Any) -> Any:
        # NaN counts as beyond the last threshold there, and goes below the first here.
        x = ops.where(x >= -math.inf, x, -math.inf)
        return ops.take(self._levels(), ops.searchsorted(self._sorted(), x, side="right"))

    def _chain(self, x: Any) -> Any:
        result = ops.cast(ops.zeros_like(x), self._dtype) + self._lowest
        for threshold, level in self._steps:
            result = ops.where(x >= threshold, level, result)
        return result

    def _inside(self, x: Any) -> Any:
        """Between just below the first and the last threshold; finite, without NaN."""
        x = ops.where(x >= self._below, x, self._below)
        return ops.where(x >= self._top, self._top, x)

    def _round(self, x: Any) -> Any:
        # Division by a power of two and the fraction behind the floor are exact, so
        # this is the nearest multiple with ties upwards, to the bit.
        x = self._inside(x) / self._step
        floor = ops.floor(x)
        multiple = floor + ops.cast(x - floor >= 0.5, "float32")
        return ops.minimum(ops.maximum(multiple, self._first), self._last) * self._step

    def _lay_buckets(self) -> None:
        """Buckets of one width over the thresholds, and where each one's search starts."""
        thresholds = self.thresholds.astype(float)
        span = thresholds[-1] - self._below
        buckets = min(8 * len(thresholds), _MOST_BUCKETS)
        with np.errstate(over="ignore"):
            per_unit = np.float32(buckets / span)
        # Outside these, float32 overflows or flushes to zero: search the whole list.
        if not (span < 2.0**127 and per_unit < 2.0**121):
            buckets = 1
        self._buckets = buckets
        self._per_unit = float(per_unit)
        edges = self._below + np.arange(buckets + 1) / self._per_unit
        slack = _MARGIN / self._per_unit
        start = np.searchsorted(thresholds, edges[:-1] - slack, side="right")
        stop = np.searchsorted(thresholds, edges[1:] + slack, side="right")
        if buckets == 1:
            start, stop = np.array([0]), np.array([len(thresholds)])
        self._start = Table(start.astype(np.int32))
        self._halvings = int((stop - start).max()).bit_length()
        # A search may look beyond the last threshold; nothing finite is at infinity.
        beyond = np.full(2**self._halvings, np.inf, np.float32)
        self._padded = Table(np.concatenate([self.thresholds, beyond]))
        self._levels = Table(self.levels)

    def _search(self, x: Any) -> Any:
        x = self._inside(x)
        if self._buckets == 1:
            count = ops.cast(ops.zeros_like(x), "int32")
        else:
            bucket = ops.cast((x - self._below) * self._per_unit, "int32")
            count = ops.take(self._start(), ops.minimum(bucket, self._buckets - 1))
        padded = self._padded()
        for halving in reversed(range(self._halvings)):
            passed = x >= ops.take(padded, count + (2**halving - 1))
            count = ops.where(passed, count + 2**halving, count)
        return ops.take(self._levels(), count)


def _torch_compiles() -> bool:
    import torch

    return torch.compiler.is_compiling()  # type: ignore[no-any-return]


class Table:
    """An array, a tensor or a float that is used with tensors in every step.

    PyTorch's compiler cannot trace the way from an array to a tensor, so there the
    tensor is made once. Elsewhere each trace takes the array in as a constant.
    """

    def __init__(self, array: Any) -> None:
        self._array = array
        self._tensor: Any = array if isinstance(array, float) else None
        if self._tensor is None and keras.config.backend() == "torch":
            tensor = ops.convert_to_tensor(array)
            # While Keras infers shapes, tensors are empty shells.
            self._tensor = None if tensor.device.type == "meta" else tensor

    def __call__(self) -> Any:
        """The tensor, or the float."""
        return ops.convert_to_tensor(self._array) if self._tensor is None else self._tensor


def _dyadic_grid(
    thresholds: NDArray[np.float32], levels: NDArray[Any]
) -> tuple[float, float, float] | None:
    """(step, first, last multiple) if levels are neighbouring multiples of a power of two.

    And if the thresholds are their midpoints. None for every other step function.
    """
    step = float(levels[1]) - float(levels[0])
    if levels.dtype != np.float32 or step <= 0 or math.frexp(step)[0] != 0.5:
        return None
    multiples = np.arange(len(levels)) + float(levels[0]) / step
    exact = (
        np.abs(multiples).max() <= 2**22
        and np.array_equal(multiples * step, levels)
        and np.array_equal((multiples[1:] - 0.5) * step, thresholds)
    )
    return (step, multiples[0].item(), multiples[-1].item()) if exact else None


class RowSteps:
    """A step function for each channel: `levels[c, how many of thresholds[c] are at most x]`.

    For lists per channel and for lists that move in training: thresholds and levels may
    be tensors. Up to `LONGEST_CHAIN` steps it is a chain of selects, beyond that a
    binary search.

    Args:
        thresholds: float32, shape (channels, n), ascending along the last axis; one
            row serves all channels.
        levels: float32 or int32, shape (channels, n + 1).
        axis: The channels' axis in the tensors that it is called on.
        differentiable: Whether each level gets the sum of the gradients of the elements
            that have it.
    """

    def __init__(
        self, thresholds: Any, levels: Any, axis: int, differentiable: bool = False
    ) -> None:
        self._thresholds, self._levels, self._axis = Table(thresholds), Table(levels), axis
        self._differentiable = differentiable

    def __call__(self, x: Any) -> Any:
        """The levels of a float32 tensor: its shape, the levels' dtype, no gradient to it."""
        x = ops.stop_gradient(ops.convert_to_tensor(x))
        thresholds, levels = ops.stop_gradient(self._thresholds()), self._levels()
        levels = levels if self._differentiable else ops.stop_gradient(levels)
        channels, steps = thresholds.shape
        if steps <= LONGEST_CHAIN:
            result = ops.broadcast_to(self._column(levels, 0, x), x.shape)
            for step in range(steps):
                passed = x >= self._column(thresholds, step, x)
                result = ops.where(passed, self._column(levels, step + 1, x), result)
            return result
        halvings = steps.bit_length()
        beyond = ops.full((channels, 2**halvings - steps), math.inf, dtype="float32")
        padded = ops.reshape(ops.concatenate([thresholds, beyond], axis=-1), (-1,))
        row = self._column(ops.reshape(ops.arange(channels, dtype="int32"), (-1, 1)), 0, x)
        # Nothing finite is at infinity, where the padding is.
        x = ops.where(x >= _LARGEST, _LARGEST, x)
        count = ops.cast(ops.zeros_like(x), "int32")
        for halving in reversed(range(halvings)):
            place = row * 2**halvings + count + (2**halving - 1)
            count = ops.where(x >= ops.take(padded, place), count + 2**halving, count)
        return ops.take(ops.reshape(levels, (-1,)), row * (steps + 1) + count)

    def _column(self, rows: Any, place: int, x: Any) -> Any:
        return along(rows[:, place], self._axis, len(x.shape))


def along(vector: Any, axis: int, rank: int) -> Any:
    """A vector in the shape that broadcasts it along one axis of a tensor of this rank."""
    shape = [1] * rank
    if vector.shape[0] > 1:
        shape[axis] = vector.shape[0]
    return ops.reshape(vector, shape)


class Projection:
    """A list in tensor form: nearest value, code and bracket of every element.

    Use it where tensors meet a list; `Values` says the same in NumPy, and both agree
    to the bit. Each of its functions takes a float32 tensor of any shape and returns a
    tensor of that shape without gradient.

    Attributes:
        nearest: The nearest listed value, float32.
        codes: Its position in the user's list, int32.
        lower: The lower end of the gap that holds the element, float32; below the
            list, that of the first gap.
        upper: The upper end of that gap; above the list, that of the last gap.
        low: The smallest value.
        high: The largest value.
        middle: The middle of the range.
        mean_gap: The mean gap between neighbours, 1 for a list of one value.
        places: The sorted list in mean gaps from the middle.

    The numbers are Python floats, or tensors that broadcast where channels have lists
    of their own or the list moves in training.
    """

    def __init__(self, values: Values) -> None:
        ascending = values.ascending
        self.length = len(values)
        self.nearest: Any = StepFunction(values.midpoints, ascending)
        self.codes: Any = StepFunction(values.midpoints, values.order)
        self.lower: Any = StepFunction(ascending[1:-1], ascending[: max(len(values) - 1, 1)])
        self.upper: Any = StepFunction(ascending[1:-1], ascending[min(len(values) - 1, 1) :])
        self.low: Any = values.low
        self.high: Any = values.high
        self.middle: Any = values.low / 2 + values.high / 2
        self.mean_gap: Any = (
            (values.high - values.low) / (len(values) - 1) if len(values) > 1 else 1.0
        )
        self.places: Any = ((ascending - self.middle) / self.mean_gap).tolist()

    def __len__(self) -> int:
        return self.length


class RowsProjection(Projection):
    """The same for a list per channel, or for a list whose numbers are a tensor.

    Attributes:
        entry: `nearest`, with a gradient to the listed numbers.

    Args:
        ascending: float32, shape (channels, K), sorted along the last axis.
        midpoints: float32, shape (channels, K - 1).
        order: int32, shape (channels, K): the code of each.
        axis: The channels' axis.
        rank: Of the tensors that it is used on.
    """

    def __init__(self, ascending: Any, midpoints: Any, order: Any, axis: int, rank: int) -> None:
        self.length = ascending.shape[-1]
        inner, last = ascending[:, 1:-1], max(self.length - 1, 1)
        self.nearest = RowSteps(midpoints, ascending, axis)
        self.codes = RowSteps(midpoints, order, axis)
        self.lower = RowSteps(inner, ascending[:, :last], axis)
        self.upper = RowSteps(inner, ascending[:, min(self.length - 1, 1) :], axis)
        self.entry = RowSteps(midpoints, ascending, axis, differentiable=True)
        self._ascending, self._axis, self._rank = Table(ascending), axis, rank

    def _column(self, place: int) -> Any:
        return along(ops.stop_gradient(self._ascending())[:, place], self._axis, self._rank)

    @property
    def low(self) -> Any:  # type: ignore[override]
        return self._column(0)

    @property
    def high(self) -> Any:  # type: ignore[override]
        return self._column(self.length - 1)

    @property
    def middle(self) -> Any:  # type: ignore[override]
        return self.low / 2 + self.high / 2

    @property
    def mean_gap(self) -> Any:  # type: ignore[override]
        gap = (self.high - self.low) / max(self.length - 1, 1)
        return ops.where(gap > 0, gap, 1.0)

    @property
    def places(self) -> Any:  # type: ignore[override]
        middle, gap = self.middle, self.mean_gap
        columns = [(self._column(place) - middle) / gap for place in range(self.length)]
        return ops.stack(columns, axis=-1)


def projection_of(values: Values, rank: int = 1) -> Projection:
    """The projection onto a list as it stands; made once for each `Values`.

    Args:
        values: The list, or the lists per channel.
        rank: Of the tensors that it is used on; lists per channel need it.
    """
    by_rank = _PROJECTIONS.get(id(values))
    if by_rank is None:
        by_rank = _PROJECTIONS[id(values)] = {}
        # The entry goes with the list, before another object can get its identity.
        weakref.finalize(values, _PROJECTIONS.pop, id(values))
    rank = 1 if values.channels is None else rank
    projection = by_rank.get(rank)
    if projection is None:
        projection = by_rank[rank] = _new_projection(values, rank)
    return projection


_PROJECTIONS: dict[int, dict[int, Projection]] = {}
"""The projections of each list, by its identity and the rank.

PyTorch's compiler traces this look-up, but neither functools.cache nor a WeakKeyDictionary,
which compares lists by their numbers."""


def _new_projection(values: Values, rank: int) -> Projection:
    if values.channels is None:
        return Projection(values)
    return RowsProjection(values.ascending, values.midpoints, values.order, values.axis, rank)


def moving_projection(numbers: Any, axis: int, rank: int) -> RowsProjection:
    """The projection onto numbers that training moves.

    Args:
        numbers: float32 tensor, shape (K,) or (channels, K), in the user's order.
        axis: The channels' axis.
        rank: Of the tensors that it is used on.

    The midpoints are `Values.midpoints` of a learnable list, to the bit.
    """
    numbers = ops.convert_to_tensor(numbers)
    numbers = ops.reshape(numbers, (-1, numbers.shape[-1]))
    order = ops.cast(ops.argsort(ops.stop_gradient(numbers), axis=-1), "int32")
    ascending = ops.take_along_axis(numbers, order, axis=-1)
    held = ops.stop_gradient(ascending)
    below, above = held[:, :-1], held[:, 1:]
    middle = below * 0.5 + above * 0.5
    midpoints = ops.where(middle > below, middle, above)
    return RowsProjection(ascending, midpoints, order, axis, rank)
