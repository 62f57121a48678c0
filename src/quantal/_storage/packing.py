"""Codes to bytes and back, in words or coded, whichever is shorter.

The bytes are few: as few as the length of the list, and how its values are used, allow.
They are the same on every machine, and with every version of NumPy.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from quantal._core.numbers.entropy import entropy
from quantal._storage import radix, rans
from quantal._storage.codes import LONGEST, Packed, damage, dtype_of_codes

VERSION = 1
"""The version of the packed bytes in finalized layers.

A change of the bytes raises this one, and the one of `_storage/entries.py` for saved models."""

WORTH = 0.99
"""Coded bytes are taken below this share of the words' size: words unpack faster."""

MOST_CODES_A_BYTE = 256
"""Coded bytes are not taken where each stands for more codes: a small file is no large model."""


def most_codes(base: int, stored: int, coded: bool) -> int:
    """Return how many codes of a list of two values or more so many bytes can hold.

    Args:
        base: The length of the list.
        stored: The number of bytes.
        coded: Whether an entropy coder wrote them.
    """
    if coded or not 2 <= base <= LONGEST:
        return MOST_CODES_A_BYTE * stored if coded else 0
    words = radix.Words.densest(base)
    return stored // words.size * words.digits


def pack(codes: ArrayLike, base: int) -> Packed:
    """Pack codes into words, or code them where that is shorter by a hundredth.

    Args:
        codes: Integers from 0 to `base - 1`, any shape; packed in C order.
        base: The length of the list, 1 to 65536.

    Raises:
        TypeError: The codes are not integers.
        ValueError: A code is not in the list, or the list is longer than 65536.

    >>> packed = pack([0, 2, 1, 1, 0, 2], 3)
    >>> packed.data.hex(), packed.coded
    ('2a02', False)
    >>> unpack(packed)
    array([0, 2, 1, 1, 0, 2], dtype=uint8)
    """
    flat = _checked(np.asarray(codes), base).astype(dtype_of_codes(base)).ravel()
    words = radix.Words.densest(base)
    longest = WORTH * words.bytes_of(flat.size)
    # Skip the entropy coder where the values are used nearly evenly.
    if 2 <= base <= rans.LONGEST_CODED and flat.size and entropy(flat) * flat.size / 8 < longest:
        coded = rans.encode(flat, base)
        if len(coded) < longest and flat.size <= MOST_CODES_A_BYTE * len(coded):
            return Packed(coded, base, flat.size, True)
    return Packed(radix.encode(flat, words), base, flat.size, False)


def unpack(packed: Packed) -> NDArray[np.unsignedinteger]:
    """Return the codes that were packed.

    Args:
        packed: The result of `pack`, or the same read from a file.

    Returns:
        Codes of shape (length,): uint8, or uint16 for lists of more than 256 values.

    Raises:
        ValueError: The bytes are not those of so many codes of such a list. This is
            reported before memory is taken for codes that the bytes cannot hold.
    """
    if not (1 <= packed.base <= LONGEST and packed.length >= 0):
        raise damage(packed, "a list or a count that cannot be")
    return rans.decode(packed) if packed.coded else radix.decode(packed)


def _checked(codes: NDArray[np.integer], base: int) -> NDArray[np.integer]:
    """Return the codes if they are integers from 0 to `base - 1`."""
    if codes.dtype.kind not in "iu":
        raise TypeError(
            f"codes have the dtype {codes.dtype}. Expected integers, the positions of values "
            "in their list. Give Parameter.codes or Values.codes."
        )
    if not 1 <= base <= LONGEST:
        raise ValueError(
            f"base is {base}. Expected the length of a list, 1 to {LONGEST}. Give a list that "
            "is not longer."
        )
    if codes.size and not (codes.min() >= 0 and codes.max() < base):
        raise ValueError(
            f"codes reach from {codes.min()} to {codes.max()}. Expected 0 to {base - 1}, for "
            f"a list of {base} values. Give the codes of this list."
        )
    return codes
