"""Codes as the digits of numbers: words of a few bytes hold a few codes each.

Eight codes of a list of two are the bits of a byte; five codes of a list of three are
below 3^5 = 243 and fit a byte as well; 24 codes of a list of five fit seven bytes.
"""

import functools
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from quantal._storage.codes import Packed, damage, dtype_of_codes

_BLOCK = 2**16
"""Words that are processed at a time, so that their 64-bit numbers fit the cache."""


class Words(NamedTuple):
    """A word of `size` bytes holds `digits` codes of a list of `base` values.

    The word is the number `sum(code[i] * base**i)`, little-endian. The rest of the last
    word is filled up with codes 0.

    >>> Words.densest(3), Words.densest(5)
    (Words(base=3, digits=5, size=1), Words(base=5, digits=24, size=7))
    """

    base: int
    digits: int
    size: int

    @classmethod
    def densest(cls, base: int) -> "Words":
        """Return the words with most codes per byte, and of these the shortest.

        Args:
            base: The length of the list, 1 to 65536.

        Returns:
            Words of at most eight bytes; a list of one value takes no byte.
        """
        if base == 1:
            return cls(1, 1, 0)
        candidates = [cls(base, _most_digits(base, size), size) for size in range(1, 9)]
        return max(candidates, key=lambda words: (words.digits / words.size, -words.size))

    def bytes_of(self, count: int) -> int:
        """Return the number of bytes that so many codes take."""
        return -(-count // self.digits) * self.size


def encode(codes: NDArray[np.unsignedinteger], words: Words) -> bytes:
    """Pack codes into words.

    Args:
        codes: Integers below `words.base`, of shape (length,).
        words: How many codes a word holds.
    """
    if words.size == 0:
        return b""
    if words.base == 2:
        return np.packbits(codes, bitorder="little").tobytes()
    rows = np.zeros((-(-len(codes) // words.digits), words.digits), codes.dtype)
    rows.ravel()[: len(codes)] = codes
    parts = []
    for start in range(0, len(rows), _BLOCK):
        block = rows[start : start + _BLOCK]
        numbers = np.zeros(len(block), "<u8")
        for digit in range(words.digits - 1, -1, -1):
            numbers *= np.uint64(words.base)
            numbers += block[:, digit]
        parts.append(numbers.view(np.uint8).reshape(-1, 8)[:, : words.size].tobytes())
    return b"".join(parts)


def decode(packed: Packed) -> NDArray[np.unsignedinteger]:
    """Unpack codes from the densest words of their list.

    Returns:
        Codes of shape (length,), uint8 or uint16.

    Raises:
        ValueError: The bytes are not those of so many codes of such a list.
    """
    words = Words.densest(packed.base)
    needed = words.bytes_of(packed.length)
    if len(packed.data) != needed:
        raise damage(packed, f"{len(packed.data)} bytes instead of {needed}")
    if words.size == 0:
        return np.zeros(packed.length, np.uint8)
    data = np.frombuffer(packed.data, np.uint8).reshape(-1, words.size)
    rows = np.empty((len(data), words.digits), dtype_of_codes(packed.base))
    if words.size == 1:
        if data.size and data.max() >= words.base**words.digits:
            raise damage(packed, f"the word {data.max()}")
        np.take(digit_table(words), data[:, 0], axis=0, out=rows, mode="clip")
    else:
        for start in range(0, len(rows), _BLOCK):
            rest = _numbers(data[start : start + _BLOCK])
            for digit in range(words.digits):
                rest, rows[start : start + _BLOCK, digit] = np.divmod(rest, words.base)
            if rest.any():
                raise damage(packed, "a word beyond the largest")
    codes = rows.ravel()
    if codes[packed.length :].any():
        raise damage(packed, "codes behind the last that are not 0")
    return codes[: packed.length]


@functools.lru_cache(maxsize=16)
def digit_table(words: Words) -> NDArray[np.uint8]:
    """Return the codes that each byte stands for, for words of one byte.

    Returns:
        Codes of shape (256, digits).
    """
    numbers = np.arange(256)[:, None] // words.base ** np.arange(words.digits)
    table = (numbers % words.base).astype(np.uint8)
    table.setflags(write=False)
    return table


def _most_digits(base: int, size: int) -> int:
    """Return how many digits to this base fit so many bytes."""
    digits = 0
    while base ** (digits + 1) <= 256**size:
        digits += 1
    return digits


def _numbers(words: NDArray[np.uint8]) -> NDArray[np.uint64]:
    """Return words of shape (count, size) as numbers of shape (count,)."""
    filled = np.zeros((len(words), 8), np.uint8)
    filled[:, : words.shape[1]] = words
    return filled.view("<u8")[:, 0].astype(np.uint64)
