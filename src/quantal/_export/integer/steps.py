"""Compute the steps of an integer network in NumPy: what its C computes, to the bit.

A step reads arrays of integers, shape (samples, size), and returns one. Sums are those of int32
without overflow, which the conversion has proved; they are taken in int64, or in float64 by
BLAS where these are exact.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from quantal._export.graph.steps import Pad, Rearrange, Repetition, Window

Integers = NDArray[np.int64]

_MOST_ENTRIES = 2**22
"""So many entries of windows are gathered at once, which bounds memory."""


class Range(NamedTuple):
    """A range holds the smallest and the largest integer that can occur."""

    low: int
    high: int

    @property
    def dtype(self) -> "np.dtype[Any]":
        """The smallest integer type that holds the range."""
        names = ("int8", "uint8", "int16", "int32")
        for dtype in map(np.dtype, names):
            limits = np.iinfo(dtype)
            if limits.min <= self.low and self.high <= limits.max:
                return dtype
        raise OverflowError(f"{self} is beyond int32")


class Products(NamedTuple):
    """Sums of products `sum(weight * (multiple * x - zero))`; padding adds nothing.

    Attributes:
        window: Which inputs each output sees.
        weights: Integers, shape (outputs, inputs of a group's window).
        zero: The integer that stands for 0 among `multiple * x`.
        multiple: 1, or 2 where 0 lies between two integers.
    """

    window: Window
    weights: Integers
    zero: int = 0
    multiple: int = 1

    def run(self, x: Integers) -> Integers:
        """Return the sums, shape (samples, size)."""
        w, outputs = self.window, len(self.weights)
        groups = w.groups
        weights = self.weights.reshape(groups, outputs // groups, -1).astype(np.float64)
        parts = []
        for seen, valid in _windows(self.window, x):
            # Products of int32 sums are exact in float64.
            numbers = np.where(valid, self.multiple * seen - self.zero, 0).astype(np.float64)
            rows, positions, taps, channels = numbers.shape
            numbers = numbers.reshape(rows * positions, taps, groups, channels // groups)
            grouped = numbers.transpose(2, 0, 1, 3).reshape(groups, rows * positions, -1)
            sums = grouped @ weights.transpose(0, 2, 1)
            parts.append(np.rint(sums).transpose(1, 0, 2).reshape(rows, positions * outputs))
        return np.concatenate(parts).astype(np.int64)


class Largest(NamedTuple):
    """Pooling takes the largest input in a window, or the smallest of a falling channel.

    Attributes:
        window: Which inputs each output sees.
        falling: Shape (period,): where larger integers stand for smaller numbers.
    """

    window: Window
    falling: NDArray[np.bool_]

    def run(self, x: Integers) -> Integers:
        """Return the largest of each window, shape (samples, size)."""
        channels = self.window.in_channels
        sign = np.where(np.resize(self.falling, channels), -1, 1)
        lowest = np.iinfo(np.int64).min
        parts = [
            (np.where(valid, seen * sign, lowest).max(axis=2) * sign).reshape(len(seen), -1)
            for seen, valid in _windows(self.window, x)
        ]
        return np.concatenate(parts)


class Total(NamedTuple):
    """Pooling adds the inputs in a window up: the mean times their number."""

    window: Window

    def run(self, x: Integers) -> Integers:
        """Return the sum of each window, shape (samples, size)."""
        parts = [
            np.where(valid, seen, 0).sum(axis=2).reshape(len(seen), -1)
            for seen, valid in _windows(self.window, x)
        ]
        return np.concatenate(parts)


class EvenTotal(NamedTuple):
    """Pooling over the border adds inputs up as if each window saw as many.

    A sum of fewer inputs is multiplied by `multiple / count`, a whole number.

    Attributes:
        window: Which inputs each output sees.
        multiple: The least common multiple of the numbers of inputs that windows see.
    """

    window: Window
    multiple: int

    def run(self, x: Integers) -> Integers:
        """Return the multiplied sum of each window, shape (samples, size)."""
        counts = taps_of(self.window).valid.sum(axis=1)
        sums = Total(self.window).run(x).reshape(len(x), len(counts), -1)
        return (sums * (self.multiple // counts)[:, None]).reshape(len(x), -1)


class Thresholds(NamedTuple):
    """Thresholds turn an accumulator into a level: as many levels up as thresholds are reached.

    Attributes:
        limits: Shape (period, levels - 1), rising along the last axis; falling where `falling`.
        falling: Shape (period,): a threshold is reached from above, by integers up to it.
        levels: Integers, shape (levels,), rising.
    """

    limits: Integers
    falling: NDArray[np.bool_]
    levels: Integers

    def run(self, x: Integers) -> Integers:
        """Return the levels, shape (samples, size)."""
        # An integer is up to a limit where its opposite is from the opposite on.
        signs = np.where(self.falling, -1, 1)
        counts = _limits_reached(signs * x.reshape(-1, len(signs)), signs[:, None] * self.limits)
        return self.levels[counts].reshape(x.shape)


class Staircase(NamedTuple):
    """A staircase turns an accumulator into any level: the one behind the last limit reached.

    It stands for functions that fall and rise, where a level may come twice.

    Attributes:
        limits: Shape (period, stairs - 1), not falling along the last axis.
        levels: Integers, shape (period, stairs).
    """

    limits: Integers
    levels: Integers

    def run(self, x: Integers) -> Integers:
        """Return the levels, shape (samples, size)."""
        period = len(self.limits)
        counts = _limits_reached(x.reshape(-1, period), self.limits)
        return self.levels[np.arange(period), counts].reshape(x.shape)


def _limits_reached(by_channel: Integers, limits: Integers) -> Integers:
    """Return how many limits of its channel each integer has reached, shape (numbers, period)."""
    counts = np.zeros(by_channel.shape, np.int64)
    for each in limits.T:
        counts += by_channel >= each
    return counts


class Requantization(NamedTuple):
    """Requantization is `(x * multiplier + addend) >> shift`, in int64, limited to a range.

    Half a step and the bias stand in the addend, so that the shift, which rounds down, rounds
    to the nearest integer, and up where two are as near.

    Attributes:
        multiplier: Shape (period,), of int32.
        addend: Shape (period,), of int64.
        shift: Shape (period,), from 0 to 62.
        low: The smallest result.
        high: The largest result.
    """

    multiplier: Integers
    addend: Integers
    shift: Integers
    low: int
    high: int

    def run(self, x: Integers) -> Integers:
        """Return the limited results, shape (samples, size)."""
        by_channel = x.reshape(-1, len(self.multiplier))
        scaled = (by_channel * self.multiplier + self.addend) >> self.shift
        return np.clip(scaled, self.low, self.high).reshape(x.shape)


class WeightedSum(NamedTuple):
    """A weighted sum adds arrays up, each times integers.

    Attributes:
        factors: Integers, shape (arrays, period).
    """

    factors: Integers

    def run(self, *arrays: Integers) -> Integers:
        """Return the sum, shape (samples, size)."""
        period = self.factors.shape[1]
        total = sum(
            x.reshape(-1, period) * factor for x, factor in zip(arrays, self.factors, strict=True)
        )
        return np.asarray(total).reshape(arrays[0].shape)


class Multiplied(NamedTuple):
    """A product of two arrays, number by number."""

    def run(self, one: Integers, other: Integers) -> Integers:
        """Return the products, shape (samples, size)."""
        return one * other


class BroadcastProduct(NamedTuple):
    """A product of arrays, of which some have a number for several positions or channels.

    Attributes:
        size: The number of results.
        repetitions: How each array is read.
    """

    size: int
    repetitions: tuple[Repetition, ...]

    def run(self, *arrays: Integers) -> Integers:
        """Return the products, shape (samples, size)."""
        index = np.arange(self.size)
        product = np.ones((len(arrays[0]), self.size), np.int64)
        for x, (repeat, period) in zip(arrays, self.repetitions, strict=True):
            product *= x[:, index // repeat % period]
        return product


class Joined(NamedTuple):
    """Parts of several arrays are put behind each other.

    Attributes:
        parts: The number of parts that each array has.
        lengths: The numbers in a part of each array.
    """

    parts: int
    lengths: tuple[int, ...]

    def run(self, *arrays: Integers) -> Integers:
        """Return the joined arrays, shape (samples, size)."""
        by_part = [x.reshape(len(x), self.parts, -1) for x in arrays]
        return np.concatenate(by_part, axis=2).reshape(len(arrays[0]), -1)


class Padded(NamedTuple):
    """An image gets a border of the integer that stands for 0.

    Attributes:
        pad: The shape of the image, and how many rows and columns are put around it.
        zero: The integer that stands for 0.
    """

    pad: Pad
    zero: int

    def run(self, x: Integers) -> Integers:
        """Return the padded images, shape (samples, size)."""
        p = self.pad
        border = ((0, 0), (p.top, p.bottom), (p.left, p.right), (0, 0))
        padded = np.pad(x.reshape(-1, *p.shape), border, constant_values=self.zero)
        return padded.reshape(len(x), -1)


class Copied(NamedTuple):
    """Integers are copied: cropped, transposed or repeated."""

    rearrange: Rearrange

    @property
    def indices(self) -> NDArray[np.intp]:
        """The index that each output copies, shape (size,)."""
        r = self.rearrange
        indices = np.full((1,), r.start, np.intp)
        for length, step in zip(r.lengths, r.steps, strict=True):
            indices = indices[:, None] + np.arange(length) * step
            indices = indices.reshape(-1)
        return indices

    def run(self, x: Integers) -> Integers:
        """Return the copies, shape (samples, size)."""
        return x[:, self.indices]


Rounding = Thresholds | Staircase | Requantization
"""What turns sums into the integers of a list."""


def _windows(window: Window, x: Integers) -> Iterator[tuple[Integers, NDArray[np.bool_]]]:
    """Yield inputs by the windows that see them, for a part of the samples each time.

    Yields:
        Inputs, shape (samples, positions, taps, channels); and which taps lie within the inputs,
        shape (positions, taps, 1).
    """
    taps = taps_of(window)
    entries = taps.positions.size * window.in_channels
    part = max(1, _MOST_ENTRIES // entries)
    for begin in range(0, len(x), part):
        seen = x[begin : begin + part].reshape(
            -1, window.in_height * window.in_width, window.in_channels
        )
        yield seen[:, taps.positions], taps.valid[:, :, None]


class Taps(NamedTuple):
    """Taps say which input positions the positions of outputs see.

    Attributes:
        positions: Shape (output positions, taps); 0 where there is padding.
        valid: Where there is none, the same shape.
    """

    positions: NDArray[np.intp]
    valid: NDArray[np.bool_]


def taps_of(window: Window) -> Taps:
    """Return the taps of a window."""
    w = window
    rows = _along(w.out_height, w.stride_y, w.kernel_height, w.dilation_y, w.top)
    columns = _along(w.out_width, w.stride_x, w.kernel_width, w.dilation_x, w.left)
    rows_valid = (rows >= 0) & (rows < w.in_height * w.spread_y) & (rows % w.spread_y == 0)
    columns_valid = (columns >= 0) & (columns < w.in_width * w.spread_x)
    columns_valid &= columns % w.spread_x == 0
    rows, columns = rows // w.spread_y, columns // w.spread_x
    valid = rows_valid[:, None, :, None] & columns_valid[None, :, None, :]
    positions = rows[:, None, :, None] * w.in_width + columns[None, :, None, :]
    shape = (w.out_height * w.out_width, w.kernel_height * w.kernel_width)
    valid, positions = valid.reshape(shape), positions.reshape(shape)
    return Taps(np.where(valid, positions, 0), valid)


def _along(outputs: int, stride: int, kernel: int, dilation: int, padding: int) -> NDArray[np.intp]:
    """Return the positions that each output meets along one axis, shape (outputs, kernel)."""
    starts = np.arange(outputs) * stride - padding
    return starts[:, None] + np.arange(kernel) * dilation
