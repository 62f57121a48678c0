"""Recognize lists with even steps, which integers of few bits hold."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

_ROUNDING = 5e-7  # Some roundings of a float32, relative.


class Grid(NamedTuple):
    """A grid is a list with even steps: `integers * step` is the list, to a rounding.

    Attributes:
        integers: Shape (K,), in the order of the list.
        step: The difference of neighbours on the grid, not all of which need be listed.
    """

    integers: NDArray[np.int64]
    step: np.float32

    def fits(self, bits: int) -> bool:
        """Return whether unsigned integers of so many bits hold the grid, with a zero point."""
        low, high = int(self.integers.min()), int(self.integers.max())
        return max(high, 0) - min(low, 0) < 2**bits

    def zero_point(self, bits: int) -> int:
        """Return the unsigned integer that stands for 0: the middle one, if that will do."""
        middle = 2 ** (bits - 1)
        low, high = int(self.integers.min()), int(self.integers.max())
        if -middle <= low and high < middle:
            return middle
        return max(0, -low)


def grid_of(numbers: NDArray[np.float32], most: int = 255) -> Grid | None:
    """Return the coarsest grid from 0 that holds every number; None where it takes too many.

    Args:
        numbers: The list, shape (K,).
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


def pack_integers(integers: NDArray[np.uint8], bits: int) -> NDArray[np.uint8]:
    """Pack unsigned integers of 2, 4 or 8 bits along the last axis, the lowest bits first.

    Args:
        integers: The last axis is a multiple of the `8 // bits` integers of a byte.
        bits: 2, 4 or 8.

    >>> pack_integers(np.array([1, 2, 3, 0], np.uint8), 2)
    array([57], dtype=uint8)
    """
    per_byte = 8 // bits
    rows = integers.reshape(*integers.shape[:-1], -1, per_byte)
    shifts = (bits * np.arange(per_byte)).astype(np.uint8)
    return np.bitwise_or.reduce(rows << shifts, axis=-1).astype(np.uint8)
