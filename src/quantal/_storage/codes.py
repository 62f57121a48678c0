"""Packed codes, and the error for bytes that are none."""

from typing import NamedTuple

import numpy as np

LONGEST = 65536
"""The most values that a list of packed codes may have: a code fits 16 bits."""


class Packed(NamedTuple):
    """Packed codes hold bytes and what is needed to read them.

    Attributes:
        data: The bytes.
        base: The length of the list that the codes are of.
        length: The number of codes.
        coded: Whether an entropy coder wrote the bytes (`rans`), or words did (`radix`).
    """

    data: bytes
    base: int
    length: int
    coded: bool


def dtype_of_codes(base: int) -> type[np.unsignedinteger]:
    """Return the smallest dtype of codes of a list of `base` values."""
    return np.uint8 if base <= 256 else np.uint16


def damage(packed: Packed, problem: str) -> ValueError:
    """Return the error for bytes that are not those of such codes."""
    return ValueError(
        f"The packed codes have {problem}. Expected {packed.length} codes of a list of "
        f"{packed.base} values, as pack writes them. Take the whole and unchanged bytes."
    )
