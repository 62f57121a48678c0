"""Describe the values of an activation as the integers of a fixed-point format."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

_EVEN = 1e-4
"""Steps that differ by so little, relatively, are even: float32 numbers are rounded."""


class Levels(NamedTuple):
    """Levels are `step * (n + offset)` for all integers n of a fixed-point format.

    Attributes:
        step: The difference of neighbours.
        offset: What is added to the integers.
        bits: The bits of the integers.
        signed: Whether they are in two's complement.
        symmetric: Whether the lowest of these integers is left out.
        by_sign: Whether a number's sign decides: n is -1 or 0.
    """

    step: float
    offset: float
    bits: int
    signed: bool
    symmetric: bool = False
    by_sign: bool = False

    @classmethod
    def of(cls, numbers: NDArray[Any], name: str) -> "Levels":
        """Return the levels that are the values of a list.

        Args:
            numbers: The list.
            name: The name of the layer that rounds to it.

        Raises:
            ValueError: They have no even steps, or are not 2^k or 2^k - 1.
        """
        numbers = np.sort(np.asarray(numbers, np.float64))
        count = numbers.size
        steps = np.diff(numbers) if numbers.ndim == 1 else np.zeros(0)
        symmetric = count & (count + 1) == 0
        bits = count.bit_length() if symmetric else (count - 1).bit_length()
        is_even = steps.size > 0 and np.allclose(steps, steps[0], rtol=_EVEN, atol=0)
        if not is_even or count not in (2**bits, 2**bits - 1):
            raise ValueError(
                f"The layer {name!r} has the values {np.unique(numbers)[:8].tolist()}"
                f"{' ...' if count > 8 else ''}, {count} in all. Tools for FPGAs round "
                "to fixed-point numbers: expected 2^k or 2^k - 1 values with even steps, such as "
                "Values.unsigned(4, 1 / 16), 'ternary' or 'binary'. Export to '.c' instead."
            )
        step = float(steps[0])
        lowest = float(numbers[0] / step)
        if count == 2 and numbers[0] == -numbers[1]:
            return cls(step, 0.5, 1, signed=True, by_sign=True)
        signed = symmetric or lowest < 0
        offset = lowest + (count // 2 if signed else 0)
        nearest = round(2 * offset) / 2
        offset = nearest if abs(offset - nearest) < _EVEN else offset
        return cls(step, offset, bits, signed, symmetric)
