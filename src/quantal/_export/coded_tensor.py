"""Turn a tensor into codes of few numbers: an exporter's floats come back to their list."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

MOST = 256
"""Codes are bytes, so no list is longer than this."""

_FEW = 4  # With so few numbers no other form is smaller.
_MOST_MAGNITUDES = 16  # How many of a list's magnitudes may be a slice's largest.

Floats = NDArray[np.float32]


class CodedTensor(NamedTuple):
    """A coded tensor holds a float tensor as codes of few numbers, exact to the bit.

    Attributes:
        codes: uint8, the tensor's shape.
        numbers: float32, the list (K,); or (channels, K), one for each index of `axis`.
        axis: The tensor's axis that has a list or a scale at each index; None for one
            list without a scale.
        scale: float32 (channels,), a factor at each index of `axis`; None without.
    """

    codes: NDArray[np.uint8]
    numbers: Floats
    axis: int | None = None
    scale: Floats | None = None

    @property
    def bytes(self) -> float:
        """The bytes of the codes, packed as densely as bytes allow, the list and the scale."""
        length = self.numbers.shape[-1]
        scales = 0 if self.scale is None else self.scale.size
        return self.codes.size * np.log2(max(length, 2)) / 8 + 4 * (self.numbers.size + scales)

    def along_axis(self, numbers: NDArray[Any]) -> NDArray[Any]:
        """Return numbers of shape (channels,) in a shape that broadcasts along `axis`."""
        shape = [1] * self.codes.ndim
        if self.axis is not None:
            shape[self.axis] = -1
        return numbers.reshape(shape)

    def floats(self) -> Floats:
        """Return the float tensor."""
        if self.axis is None:
            return self.numbers[self.codes]
        last = np.moveaxis(self.codes, self.axis, -1)
        if self.scale is None:
            decoded = self.numbers[np.arange(len(self.numbers)), last]
        else:
            decoded = self.numbers[last] * self.scale
        return np.moveaxis(decoded, -1, self.axis)


def encode(tensor: Floats, lists: Sequence[Floats] = ()) -> CodedTensor | None:
    """Return the smallest coded tensor that is exact to the bit; None where there is none.

    Three forms are tried: one list for the whole tensor; a list times a scale along each
    axis, the list being one of `lists` or the numbers divided by each slice's largest; and
    a list for each index of an axis.

    Args:
        tensor: float32, any shape.
        lists: Lists that the model's parameters are on, each float32 (K,).

    >>> encode(np.array([[1, -1] * 50, [2, -2] * 50], np.float32)).numbers
    array([-2., -1.,  1.,  2.], dtype=float32)
    """
    if tensor.size < 2:
        return None
    numbers = _distinct(tensor)
    candidates = [] if numbers is None else [CodedTensor(_codes(tensor, numbers), numbers)]
    if numbers is None or len(numbers) > _FEW:
        axes = [axis for axis in range(tensor.ndim) if 1 < tensor.shape[axis] < tensor.size]
        with np.errstate(all="ignore"):  # What overflows does not fit, and is not taken.
            candidates += [coded for axis in axes for coded in _along(tensor, axis, lists)]
    candidates = [coded for coded in candidates if coded.bytes < tensor.nbytes]
    return min(candidates, key=lambda coded: coded.bytes, default=None)


def _along(tensor: Floats, axis: int, lists: Sequence[Floats]) -> Iterator[CodedTensor]:
    """Yield forms with a scale or a list at each index of an axis."""
    moved = np.moveaxis(tensor, axis, 0)
    slices = moved.reshape(len(moved), -1)

    def in_shape(codes: NDArray[np.uint8]) -> NDArray[np.uint8]:
        return np.moveaxis(codes.reshape(moved.shape), 0, axis)

    scaled = _with_a_scale(slices, lists)
    if scaled is not None:
        yield scaled._replace(codes=in_shape(scaled.codes), axis=axis)
    distinct = []
    for part in slices:
        numbers = _distinct(part)
        if numbers is None:
            return
        distinct.append(numbers)
    longest = max(map(len, distinct))
    pairs = zip(slices, distinct, strict=True)
    codes = np.stack([_codes(part, numbers) for part, numbers in pairs])
    numbers = np.stack([np.resize(part, longest) for part in distinct])
    yield CodedTensor(in_shape(codes), numbers, axis)


def _with_a_scale(slices: Floats, lists: Sequence[Floats]) -> CodedTensor | None:
    """Return rows as one list times a scale for each row; None where no list fits."""
    largest = np.abs(slices).max(axis=1)
    largest[largest == 0] = 1
    ratios = None
    if _distinct(slices[:2] / largest[:2, None]) is not None:
        ratios = _distinct(slices / largest[:, None])
    for numbers in [*map(np.sort, lists), ratios]:
        scale = None if numbers is None else _scale(slices, largest, numbers)
        if numbers is not None and scale is not None:
            return CodedTensor(_codes(slices / scale[:, None], numbers), numbers, 0, scale)
    return None


def _scale(slices: Floats, largest: Floats, numbers: Floats) -> Floats | None:
    """Return a factor for each row that gives it from a list to the bit; None if none does."""
    scale, open_rows = np.ones_like(largest), np.arange(len(slices))
    for top in np.unique(np.abs(numbers[numbers != 0]))[: -_MOST_MAGNITUDES - 1 : -1]:
        quotient = largest / top
        # A product and its quotient may differ by one float.
        above, below = np.nextafter(quotient, np.float32(np.inf)), np.nextafter(quotient, 0)
        for candidate in (quotient, above, below):
            rows, factor = slices[open_rows], candidate[open_rows, None].astype(np.float32)
            decoded = numbers[_codes(rows / factor, numbers)] * factor
            fits = (_bit_patterns(decoded) == _bit_patterns(rows)).all(axis=1)
            scale[open_rows[fits]] = factor[fits, 0]
            open_rows = open_rows[~fits]
            if not len(open_rows):
                return scale
        if len(open_rows) == len(slices):  # No row has the largest magnitude: another list.
            return None
    return None


def _distinct(tensor: Floats) -> Floats | None:
    """Return the different floats, by their bits, in order; None if more than `MOST`."""
    bits = _bit_patterns(tensor).ravel()
    known = np.unique(bits[: 4 * MOST])
    while len(known) <= MOST:
        # Part by part, since most tensors have many different floats, or no more than these.
        is_new = ~np.isin(bits, known) if len(bits) < 2**16 else _not_among(bits, known)
        if not is_new.any():
            return np.sort(known.view(np.float32))
        known = np.union1d(known, bits[is_new][: 4 * MOST])
    return None


def _not_among(bits: NDArray[np.uint32], known: NDArray[np.uint32]) -> NDArray[np.bool_]:
    """Return which bit patterns are not in a sorted array; faster than `isin` for many."""
    indices = np.minimum(np.searchsorted(known, bits), len(known) - 1)
    return known[indices] != bits


def _codes(tensor: Floats, numbers: Floats) -> NDArray[np.uint8]:
    """Return the indices of a tensor's numbers in a sorted list, or of the nearest."""
    if len(numbers) == 1:
        return np.zeros(tensor.shape, np.uint8)
    if _has_both_zeros(numbers):
        bits = np.sort(numbers.view(np.uint32))
        order = np.argsort(numbers.view(np.uint32), kind="stable")
        indices = np.searchsorted(bits, _bit_patterns(tensor))
        return order[np.minimum(indices, len(bits) - 1)].astype(np.uint8)
    between = (numbers[1:].astype(float) + numbers[:-1]) / 2
    return np.searchsorted(between, tensor).astype(np.uint8)


def _has_both_zeros(numbers: Floats) -> bool:
    """Return whether a list has 0 and -0, which only their bits tell apart."""
    return int((numbers == 0).sum()) > 1


def _bit_patterns(tensor: Floats) -> NDArray[np.uint32]:
    return np.ascontiguousarray(tensor).view(np.uint32)
