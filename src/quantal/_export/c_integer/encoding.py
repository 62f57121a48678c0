"""Encode integer weights: packed codes, and the C that adds a product with one of them."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from quantal._export.integer.steps import Integers


class IntegerEncoding(NamedTuple):
    """An encoding says how integer weights are stored and multiplied.

    Attributes:
        name: The kind, as it stands in the name of the C function.
        bits: Bits of a code; 0 where weights are stored as integers.
        codes: Codes, or the integers themselves; shape (outputs, inputs).
        values: The integers of the codes, where they are looked up; else None.
        step: C that adds the product of `number` and weight `i` to `sum`; `@code@` is its code.
        shifts: Whether a product is a shift.
        multiplies: Whether a product is one.
    """

    name: str
    bits: int
    codes: NDArray[np.integer]
    values: Integers | None
    step: str
    shifts: bool = False
    multiplies: bool = False


_BIT = "const int32_t bit = (int32_t)@code@;"
_SIGNS = f"{_BIT}\n                    sum += (number ^ -bit) + bit;"
_ZERO_ONE = f"{_BIT}\n                    sum += number & -bit;"
_TERNARY = (
    "const int32_t code = (int32_t)@code@, taken = -(code & 1), minus = code >> 1;\n"
    "                    sum += ((number & taken) ^ -minus) + minus;"
)
_SHIFTS = (
    "const int32_t code = (int32_t)@code@, minus = code & 1;\n"
    "                    const int32_t shifted = (int32_t)((uint32_t)number << (code >> 1));\n"
    "                    sum += (shifted ^ -minus) + minus;"
)
_SHIFTS_OR_ZERO = (
    "const int32_t code = (int32_t)@code@, minus = code & 1, taken = code > 1;\n"
    "                    uint32_t shifted = (uint32_t)number << ((code >> 1) - taken);\n"
    "                    shifted &= (uint32_t)-taken;\n"
    "                    sum += ((int32_t)shifted ^ -minus) + minus;"
)


def encoding_of(weights: Integers) -> IntegerEncoding:
    """Return the encoding of weights: without products where signs, zeros or shifts do.

    Args:
        weights: Integers, shape (outputs, inputs).

    >>> encoding_of(np.array([[1, -1]])).name, encoding_of(np.array([[4, 0, -1]])).name
    ('signs', 'shifts')
    """
    numbers = np.unique(weights)
    used = set(numbers.tolist())
    if used <= {1, -1}:
        return IntegerEncoding("signs", 1, (weights < 0).astype(np.int64), None, _SIGNS)
    if used <= {0, 1}:
        return IntegerEncoding("bits", 1, weights, None, _ZERO_ONE)
    if used <= {-1, 0, 1}:
        codes = np.where(weights < 0, 3, weights)
        return IntegerEncoding("ternary", 2, codes, None, _TERNARY)
    magnitudes = np.abs(numbers[numbers != 0])
    if (np.log2(magnitudes) % 1 == 0).all():
        return _shifts(weights, 0 in used)
    bits = max((len(numbers) - 1).bit_length(), 1)
    if bits < 8:
        codes = np.searchsorted(numbers, weights)
        step = "sum += number * values[@code@];"
        return IntegerEncoding("listed", bits, codes, numbers, step, multiplies=True)
    step = "sum += number * weights[i];"
    return IntegerEncoding("integers", 0, weights, None, step, multiplies=True)


def _shifts(weights: Integers, has_zero: bool) -> IntegerEncoding:
    """Return codes of a sign in the lowest bit and a shift above it; 0 is the code 0 or 1."""
    magnitudes = np.abs(weights)
    shifts = np.log2(np.maximum(magnitudes, 1)).astype(np.int64)
    if not has_zero:
        codes = 2 * shifts + (weights < 0)
        step = _SHIFTS
    else:
        codes = np.where(weights == 0, 0, 2 * (shifts + 1) + (weights < 0))
        step = _SHIFTS_OR_ZERO
    bits = max(int(codes.max()).bit_length(), 1)
    return IntegerEncoding("shifts", bits, codes, None, step, shifts=True)
