"""Say which fixed-point format holds numbers exactly."""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

_MANTISSA = 53
"""The bits of a float64's mantissa."""


class FixedPoint(NamedTuple):
    """A fixed-point format has `width` bits, `integer` of them before the binary point.

    The sign's bit counts among those before the point. `integer` may be negative or larger
    than the width.

    Attributes:
        width: The number of bits, at least 1.
        integer: The number of bits before the point.
        signed: Whether one of them is a sign, in two's complement.
    """

    width: int
    integer: int
    signed: bool

    @property
    def step(self) -> float:
        """The difference of neighbours: a power of two."""
        return float(2.0 ** (self.integer - self.width))


def fixed_point_of(numbers: ArrayLike) -> FixedPoint:
    """Return the narrowest fixed-point format that holds numbers exactly.

    Args:
        numbers: Finite numbers, any shape.

    >>> fixed_point_of([-1, 0, 1])
    FixedPoint(width=2, integer=2, signed=True)
    >>> fixed_point_of([1, -1, 0.5, -0.5])
    FixedPoint(width=3, integer=2, signed=True)
    """
    floats = np.unique(np.asarray(numbers, np.float64))
    if not floats.any():
        return FixedPoint(1, 1, signed=False)
    exponent = exponent_of(floats)
    low, high = (int(number) for number in np.ldexp(floats[[0, -1]], -exponent))
    signed = low < 0
    width = max(high.bit_length(), (-low - 1).bit_length() if signed else 0) + signed
    return FixedPoint(width, width + exponent, signed)


def exponent_of(floats: NDArray[np.float64]) -> int:
    """Return the largest n for which all numbers, one of them not 0, are multiples of 2^n."""
    mantissas, exponents = np.frexp(floats[floats != 0])
    integers = np.ldexp(mantissas, _MANTISSA).astype(np.int64)
    lowest_bits = np.frexp((integers & -integers).astype(np.float64))[1] - 1
    return int((exponents - _MANTISSA + lowest_bits).min())


def is_power_of_two(number: float) -> bool:
    """Return whether a number is a positive power of two.

    >>> is_power_of_two(0.25), is_power_of_two(0.3)
    (True, False)
    """
    return bool(number > 0 and np.frexp(number)[0] == 0.5)


def with_significant_bits(numbers: ArrayLike, bits: int) -> NDArray[np.float64]:
    """Return numbers rounded to so many significant bits each.

    >>> with_significant_bits([0.3, 100.0], 3)
    array([ 0.3125, 96.    ])
    """
    mantissas, exponents = np.frexp(np.asarray(numbers, np.float64))
    return np.ldexp(np.round(np.ldexp(mantissas, bits)), exponents - bits)
