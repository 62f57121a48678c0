"""Encode integer weights: packed codes, and the C of their integers and of products with them."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from quantal._export.integer.steps import Integers


class IntegerEncoding(NamedTuple):
    """An encoding says how integer weights are stored and multiplied.

    Attributes:
        name: The kind, as it stands in the names of C functions.
        bits: Bits of a code; 0 where weights are stored as integers.
        codes: Codes, or the integers themselves; shape (outputs, inputs).
        values: The integers of the codes, where they are looked up; else None.
        integer: The C expression of the integer that the code `c` stands for.
        product: The body of a C function that returns the product of `number` and the weight of
            the code `c` without a product; empty where there is none.
        shifts: Whether that shifts.
    """

    name: str
    bits: int
    codes: NDArray[np.integer]
    values: Integers | None = None
    integer: str = ""
    product: str = ""
    shifts: bool = False


class _Arithmetic(NamedTuple):
    """An arithmetic is what C does with the code `c`: its integer, and a product with it."""

    integer: str
    product: str


_SIGNS = _Arithmetic("1 - 2 * c", "    return (number ^ -c) + c;")
_ZERO_ONE = _Arithmetic("c", "    return number & -c;")
_TERNARY = _Arithmetic(
    "(c ^ 2) - 2",
    "    const int32_t taken = -(c & 1), minus = c >> 1;\n"
    "    return ((number & taken) ^ -minus) + minus;",
)
_SHIFTS = _Arithmetic(
    "((1 << (c >> 1)) ^ -(c & 1)) + (c & 1)",
    "    const int32_t minus = c & 1, shifted = (int32_t)((uint32_t)number << (c >> 1));\n"
    "    return (shifted ^ -minus) + minus;",
)
_SHIFTS_OR_ZERO = _Arithmetic(
    "c > 1 ? ((1 << ((c >> 1) - 1)) ^ -(c & 1)) + (c & 1) : 0",
    "    const int32_t minus = c & 1, taken = c > 1;\n"
    "    const uint32_t shifted = (uint32_t)number << ((c >> 1) - taken) & (uint32_t)-taken;\n"
    "    return ((int32_t)shifted ^ -minus) + minus;",
)


def encoding_of(weights: Integers) -> IntegerEncoding:
    """Return the encoding of weights, which says how to do without products where that can be.

    Args:
        weights: Integers, shape (outputs, inputs).

    >>> encoding_of(np.array([[1, -1]])).name, encoding_of(np.array([[4, 0, -1]])).name
    ('signs', 'shifts')
    """
    numbers = np.unique(weights)
    used = set(numbers.tolist())
    if used <= {1, -1}:
        return IntegerEncoding("signs", 1, (weights < 0).astype(np.int64), None, *_SIGNS)
    if used <= {0, 1}:
        return IntegerEncoding("bits", 1, weights, None, *_ZERO_ONE)
    if used <= {-1, 0, 1}:
        codes = np.where(weights < 0, 3, weights)
        return IntegerEncoding("ternary", 2, codes, None, *_TERNARY)
    magnitudes = np.abs(numbers[numbers != 0])
    if (np.log2(magnitudes) % 1 == 0).all():
        return _shifts(weights, 0 in used)
    bits = max((len(numbers) - 1).bit_length(), 1)
    if bits < 8:
        codes = np.searchsorted(numbers, weights)
        return IntegerEncoding("listed", bits, codes, numbers, "values[c]")
    return IntegerEncoding("integers", 0, weights)


def _shifts(weights: Integers, has_zero: bool) -> IntegerEncoding:
    """Return codes of a sign in the lowest bit and a shift above it; 0 is the code 0 or 1."""
    magnitudes = np.abs(weights)
    shifts = np.log2(np.maximum(magnitudes, 1)).astype(np.int64)
    if not has_zero:
        codes, arithmetic = 2 * shifts + (weights < 0), _SHIFTS
    else:
        codes = np.where(weights == 0, 0, 2 * (shifts + 1) + (weights < 0))
        arithmetic = _SHIFTS_OR_ZERO
    bits = max(int(codes.max()).bit_length(), 1)
    return IntegerEncoding("shifts", bits, codes, None, *arithmetic, shifts=True)
