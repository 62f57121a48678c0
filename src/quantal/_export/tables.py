"""Which few numbers a tensor holds: what an exporter's floats come back to."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

MOST = 256
"""The longest list whose codes are bytes."""

_ROUNDING = 5e-7  # Some roundings of a float32, relative.
_FEW = 4  # With so few numbers no other table is smaller.
_MOST_TOPS = 17  # How many of a list's magnitudes may be a slice's largest, and one more.

Floats = NDArray[np.float32]


class Table(NamedTuple):
    """A tensor as codes of a few numbers; it gives every float back to the bit.

    Attributes:
        codes: uint8, the tensor's shape.
        numbers: float32, the list (K,); or (channels, K), one for each place of `axis`.
        axis: The tensor's axis that has a list or a scale at each place; None for one
            list without a scale.
        scale: float32 (channels,), a factor at each place of `axis`; None without.
    """

    codes: NDArray[np.uint8]
    numbers: Floats
    axis: int | None = None
    scale: Floats | None = None

    @property
    def bytes(self) -> float:
        """What it takes: codes in the densest bytes, the list and the scale."""
        length = self.numbers.shape[-1]
        scales = 0 if self.scale is None else self.scale.size
        return self.codes.size * np.log2(max(length, 2)) / 8 + 4 * (self.numbers.size + scales)

    def floats(self) -> Floats:
        """The tensor again."""
        if self.axis is None:
            return self.numbers[self.codes]
        last = np.moveaxis(self.codes, self.axis, -1)
        if self.scale is None:
            found = self.numbers[np.arange(len(self.numbers)), last]
        else:
            found = self.numbers[last] * self.scale
        return np.moveaxis(found, -1, self.axis)


class Grid(NamedTuple):
    """A list with even steps: `integers * step` is the list, to a rounding."""

    integers: NDArray[np.int64]
    step: np.float32

    def fits(self, bits: int) -> bool:
        """Whether unsigned integers of so many bits hold the grid, with a zero point."""
        low, high = int(self.integers.min()), int(self.integers.max())
        return max(high, 0) - min(low, 0) < 2**bits

    def zero(self, bits: int) -> int:
        """The unsigned integer that stands for 0: the middle one, if that will do."""
        middle = 2 ** (bits - 1)
        low, high = int(self.integers.min()), int(self.integers.max())
        if -middle <= low and high < middle:
            return middle
        return max(0, -low)


def grid_of(numbers: Floats, most: int = 255) -> Grid | None:
    """The coarsest even steps from 0 that hold every number; None where it takes too many.

    Args:
        numbers: The list, float32 (K,).
        most: The largest integer.

    >>> grid_of(np.array([1, -1, 0.5, -0.5], np.float32)).integers
    array([ 2, -2,  1, -1])
    """
    largest = np.abs(numbers).max(initial=0)
    for top in range(1, most + 1):
        step = np.float32(largest / top) if largest else np.float32(1)
        integers = np.round(numbers / step).astype(np.int64)
        if np.allclose(integers.astype(np.float32) * step, numbers, rtol=_ROUNDING, atol=0):
            return Grid(integers, step)
    return None


def table_of(tensor: Floats, lists: Sequence[Floats] = ()) -> Table | None:
    """The smallest table that gives a tensor back to the bit; None where there is none.

    Tried are: one list for the whole tensor; a list times a scale along each axis, the
    list being one of `lists` or the numbers divided by each slice's largest; a list for
    each place of an axis.

    Args:
        tensor: float32, any shape.
        lists: Lists that the model's parameters are on, each float32 (K,).
    """
    if tensor.size < 2:
        return None
    numbers = _distinct(tensor)
    found = [] if numbers is None else [Table(_codes(tensor, numbers), numbers)]
    if numbers is None or len(numbers) > _FEW:
        axes = [axis for axis in range(tensor.ndim) if 1 < tensor.shape[axis] < tensor.size]
        with np.errstate(all="ignore"):  # What overflows does not fit, and is not taken.
            found += [table for axis in axes for table in _along(tensor, axis, lists)]
    found = [table for table in found if table.bytes < tensor.nbytes]
    return min(found, key=lambda table: table.bytes, default=None)


def _along(tensor: Floats, axis: int, lists: Sequence[Floats]) -> Iterator[Table]:
    """Tables with a scale or a list at each place of an axis."""
    slices = np.moveaxis(tensor, axis, 0).reshape(tensor.shape[axis], -1)
    shape = np.moveaxis(tensor, axis, 0).shape
    largest = np.abs(slices).max(axis=1)
    largest[largest == 0] = 1
    ratios = None
    if _distinct(slices[:2] / largest[:2, None]) is not None:
        ratios = _distinct(slices / largest[:, None])
    for numbers in [*map(np.sort, lists), ratios]:
        scale = None if numbers is None else _scale(slices, largest, numbers)
        if numbers is not None and scale is not None:
            codes = _codes(slices / scale[:, None], numbers)
            yield Table(np.moveaxis(codes.reshape(shape), 0, axis), numbers, axis, scale)
            break
    own: list[Floats] = []
    for part in slices:
        listed = _distinct(part)
        if listed is None:
            return
        own.append(listed)
    longest = max(map(len, own))
    codes = np.stack([_codes(row, part) for row, part in zip(slices, own, strict=True)])
    several = np.stack([np.resize(part, longest) for part in own])
    yield Table(np.moveaxis(codes.reshape(shape), 0, axis), several, axis)


def _scale(slices: Floats, largest: Floats, numbers: Floats) -> Floats | None:
    """The factor of each slice that makes it of these numbers, to the bit; None if none does."""
    scale, open_slices = np.ones_like(largest), np.arange(len(slices))
    for top in np.unique(np.abs(numbers[numbers != 0]))[:-_MOST_TOPS:-1]:
        first = largest / top
        # A product and its quotient may differ by one float.
        for tried in (first, np.nextafter(first, np.float32(np.inf)), np.nextafter(first, 0)):
            rows, factor = slices[open_slices], tried[open_slices, None].astype(np.float32)
            made = numbers[_codes(rows / factor, numbers)] * factor
            fits = (_bits(made) == _bits(rows)).all(axis=1)
            scale[open_slices[fits]] = factor[fits, 0]
            open_slices = open_slices[~fits]
            if not len(open_slices):
                return scale
        if len(open_slices) == len(slices):  # No slice has the largest magnitude: another list.
            return None
    return None


def _distinct(tensor: Floats) -> Floats | None:
    """The different floats, by their bits, in order; None if they are more than `MOST`."""
    bits = _bits(tensor).ravel()
    found = np.unique(bits[: 4 * MOST])
    while len(found) <= MOST:
        # The others, a part at a time: most tensors have many, or no more.
        unknown = ~np.isin(bits, found) if len(bits) < 2**16 else _unknown(bits, found)
        if not unknown.any():
            return np.sort(found.view(np.float32))
        found = np.union1d(found, bits[unknown][: 4 * MOST])
    return None


def _unknown(bits: NDArray[np.uint32], known: NDArray[np.uint32]) -> NDArray[np.bool_]:
    places = np.minimum(np.searchsorted(known, bits), len(known) - 1)
    return known[places] != bits


def _codes(tensor: Floats, numbers: Floats) -> NDArray[np.uint8]:
    """The places of a tensor's numbers in a sorted list, or of the nearest."""
    if len(numbers) == 1:
        return np.zeros(tensor.shape, np.uint8)
    if _signed_zeros(numbers):
        bits = np.sort(numbers.view(np.uint32))
        order = np.argsort(numbers.view(np.uint32), kind="stable")
        found = np.searchsorted(bits, _bits(tensor))
        return order[np.minimum(found, len(bits) - 1)].astype(np.uint8)
    between = (numbers[1:].astype(float) + numbers[:-1]) / 2
    return np.searchsorted(between, tensor).astype(np.uint8)


def _signed_zeros(numbers: Floats) -> bool:
    return int((numbers == 0).sum()) > 1


def _bits(tensor: Floats) -> NDArray[np.uint32]:
    return np.ascontiguousarray(tensor).view(np.uint32)
