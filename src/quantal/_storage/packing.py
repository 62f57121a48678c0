"""Codes as bytes: as few as the length of the list, and how the codes are used, allow.

Two ways. *Words*: a word of a few bytes holds a few codes as the digits of a number, the
first code as the lowest digit. Eight codes of a list of two are the bits of a byte; five
of a list of three are below 3^5 = 243 and fit a byte as well; 24 of a list of five fit
seven bytes. *Coded*: where some values are chosen more often than others, an asymmetric
numeral system comes within half a percent of the entropy. Both in NumPy alone, and the
same bytes on every machine.
"""

import functools
import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from quantal._core.numbers.entropy import entropy

LONGEST = 65536
"""The most values that a list of packed codes may have."""
WORTH = 0.99
"""Coded bytes are taken below this share of the words' size: words unpack faster."""


class Words(NamedTuple):
    """How words hold codes: `digits` codes of a list of `base` values in `size` bytes.

    A word is `sum(code[i] * base**i)`, little-endian. What is left of the last word is
    filled up with codes 0.

    >>> Words.densest(3), Words.densest(5)
    (Words(base=3, digits=5, size=1), Words(base=5, digits=24, size=7))
    """

    base: int
    digits: int
    size: int

    @classmethod
    def densest(cls, base: int) -> "Words":
        """The words of at most eight bytes with most codes a byte; of these the shortest.

        Args:
            base: The length of the list, 1 to 65536.
        """
        if base == 1:
            return cls(1, 1, 0)
        made = [cls(base, _digits(base, size), size) for size in range(1, 9)]
        return max(made, key=lambda words: (words.digits / words.size, -words.size))

    def bytes_of(self, count: int) -> int:
        """How many bytes this many codes take."""
        return -(-count // self.digits) * self.size

    @property
    def bits(self) -> float:
        """Bits a code."""
        return 8 * self.size / self.digits


class Packed(NamedTuple):
    """Codes as bytes: of a list of `base` values, `length` of them, in words or coded."""

    data: bytes
    base: int
    length: int
    coded: bool


def pack(codes: ArrayLike, base: int) -> Packed:
    """Codes as bytes, in words, or coded where that is shorter by a hundredth.

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
    codes = np.asarray(codes)
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
    flat = codes.astype(_dtype(base)).ravel()
    size = Words.densest(base).bytes_of(flat.size)
    # What is not much used unevenly is not worth the attempt.
    if 2 <= base <= _MOST_CODED and flat.size and entropy(flat) * flat.size / 8 < WORTH * size:
        coded = _coded(flat, base)
        if len(coded) < WORTH * size:
            return Packed(coded, base, flat.size, True)
    return Packed(in_words(flat, Words.densest(base)), base, flat.size, False)


def unpack(packed: Packed) -> NDArray[np.unsignedinteger]:
    """The codes again.

    Args:
        packed: What `pack` gave, or was read from a file.

    Returns:
        uint8 of shape (length,), uint16 for lists of more than 256 values.

    Raises:
        ValueError: The bytes are not those of so many codes of such a list. It is
            found before much memory is taken, but for what cannot be told: coded bytes
            may stand for many codes.
    """
    if not (1 <= packed.base <= LONGEST and packed.length >= 0):
        raise _corrupt(packed, "a list or a count that cannot be")
    if packed.coded:
        return _decoded(packed)
    words = Words.densest(packed.base)
    data = _checked_words(packed, words)
    if words.size == 0:
        return np.zeros(packed.length, np.uint8)
    codes = np.empty(-(-packed.length // words.digits) * words.digits, _dtype(packed.base))
    rows = codes.reshape(-1, words.digits)
    if words.size == 1:
        np.take(digit_table(words), data, axis=0, out=rows, mode="clip")
    else:
        for start in range(0, len(rows), _BLOCK):
            rest = _numbers(data.reshape(-1, words.size)[start : start + _BLOCK])
            for digit in range(words.digits):
                rest, rows[start : start + _BLOCK, digit] = np.divmod(rest, words.base)
            if rest.any():
                raise _corrupt(packed, "a word beyond the largest")
    if codes[packed.length :].any():
        raise _corrupt(packed, "codes behind the last that are not 0")
    return codes[: packed.length]


def look_up(packed: Packed, values: ArrayLike) -> NDArray[np.float32]:
    """The values themselves, `values[unpack(packed)]`, at about the speed of memory.

    Args:
        packed: What `pack` gave.
        values: The list, in the order of its codes; `base` real numbers.

    Returns:
        float32 of shape (length,).

    Raises:
        ValueError: As `unpack`; or the list has another length.

    >>> look_up(pack([0, 1, 1], 2), [0.5, -0.5])
    array([ 0.5, -0.5, -0.5], dtype=float32)
    """
    values = np.asarray(values, np.float32)
    if values.shape != (packed.base,):
        raise ValueError(
            f"values have the shape {values.shape}. Expected ({packed.base},), a number for "
            "each code. Give the list that the codes are of."
        )
    words = Words.densest(packed.base) if 2 <= packed.base <= LONGEST else None
    if packed.coded or words is None or words.size != 1:
        return values[unpack(packed)]
    data = _checked_words(packed, words)
    found = np.empty(packed.length, np.float32)
    whole, rest = divmod(packed.length, words.digits)
    rows = found[: whole * words.digits].reshape(whole, words.digits)
    np.take(values[digit_table(words)], data[:whole], axis=0, out=rows, mode="clip")
    if rest:
        last = digit_table(words)[data[whole]]
        if last[rest:].any():
            raise _corrupt(packed, "codes behind the last that are not 0")
        found[-rest:] = values[last[:rest]]
    return found


_BLOCK = 2**16  # Words that are put together or taken apart at a time.


def _dtype(base: int) -> type[np.unsignedinteger]:
    return np.uint8 if base <= 256 else np.uint16


def _digits(base: int, size: int) -> int:
    digits = int(8 * size / math.log2(base))
    # The logarithm is rounded: integers decide.
    while base ** (digits + 1) <= 256**size:
        digits += 1
    while base**digits > 256**size:
        digits -= 1
    return digits


def in_words(codes: NDArray[np.unsignedinteger], words: Words) -> bytes:
    """Codes of shape (length,) as words, the last one filled up with codes 0."""
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


def _numbers(words: NDArray[np.uint8]) -> NDArray[np.uint64]:
    filled = np.zeros((len(words), 8), np.uint8)
    filled[:, : words.shape[1]] = words
    return filled.view("<u8")[:, 0].astype(np.uint64)


@functools.lru_cache(maxsize=16)
def digit_table(words: Words) -> NDArray[np.uint8]:
    """The codes of each byte: shape (256, digits)."""
    numbers = np.arange(256)[:, None] // words.base ** np.arange(words.digits)
    table = (numbers % words.base).astype(np.uint8)
    table.setflags(write=False)
    return table


def _checked_words(packed: Packed, words: Words) -> NDArray[np.uint8]:
    needed = words.bytes_of(packed.length)
    if len(packed.data) != needed:
        raise _corrupt(packed, f"{len(packed.data)} bytes instead of {needed}")
    data = np.frombuffer(packed.data, np.uint8)
    if words.size == 1 and data.size and data.max() >= words.base**words.digits:
        raise _corrupt(packed, f"the word {data.max()}")
    return data


# An asymmetric numeral system of ranges (Duda, "Asymmetric numeral systems", 2013). Each
# lane has a state from 2^16 to 2^32 and takes every `lanes`-th code; a state moves 16 bits
# at a time to the stream. The bytes: the frequency less one of each value (65536 shares;
# values that are never used have 1), the lanes' last states, the stream, all little-endian.

_MOST_CODED = 4096
_SHARES = 1 << 16


def _lanes(count: int) -> int:
    """How many lanes: few cost few bytes, many cost little time. A power of two."""
    return 1 << max(3, (count >> 13).bit_length() - 1)


def _frequencies(codes: NDArray[np.unsignedinteger], base: int) -> NDArray[np.int64]:
    """How often each value is used, of 65536 shares, at least one each."""
    counts = np.bincount(codes, minlength=base)
    shares = np.maximum(1, counts * _SHARES // counts.sum())
    # The most frequent takes what rounding left over or took too much.
    while shares.sum() != _SHARES:
        largest = int(np.argmax(shares))
        shares[largest] = max(1, shares[largest] + _SHARES - shares.sum())
    return shares


def _coded(codes: NDArray[np.unsignedinteger], base: int) -> bytes:
    lanes = _lanes(len(codes))
    frequencies = _frequencies(codes, base)
    starts = np.cumsum(frequencies) - frequencies
    shares, places = frequencies.astype(np.uint64), starts.astype(np.uint64)
    states = np.full(lanes, _SHARES, np.uint64)
    stream = []
    for start in range((len(codes) - 1) // lanes * lanes, -1, -lanes):
        row = codes[start : start + lanes]
        state, share = states[: len(row)], shares[row]
        full = state >= share << np.uint64(16)
        if full.any():
            stream.append((state[full] & np.uint64(0xFFFF)).astype("<u2"))
            state[full] >>= np.uint64(16)
        whole, rest = np.divmod(state, share)
        states[: len(row)] = (whole << np.uint64(16)) + rest + places[row]
    parts = [(frequencies - 1).astype("<u2"), states.astype("<u4"), *reversed(stream)]
    return b"".join(part.tobytes() for part in parts)


def _decoded(packed: Packed) -> NDArray[np.unsignedinteger]:
    length, base, lanes = packed.length, packed.base, _lanes(packed.length)
    head = 2 * base + 4 * lanes
    if not 2 <= base <= _MOST_CODED or len(packed.data) < head or len(packed.data) % 2:
        raise _corrupt(packed, f"{len(packed.data)} bytes")
    frequencies = np.frombuffer(packed.data, "<u2", base).astype(np.int64) + 1
    if frequencies.sum() != _SHARES:
        raise _corrupt(packed, "frequencies that do not add up")
    # A code of frequency f takes log2(65536 / f) bits: so much the stream can hold, no more.
    least = np.log2(_SHARES / frequencies.max())
    if length * least > 8 * len(packed.data):
        raise _corrupt(packed, f"{len(packed.data)} bytes, too few")
    code_of = np.repeat(np.arange(base, dtype=_dtype(base)), frequencies)
    starts = (np.cumsum(frequencies) - frequencies).astype(np.uint64)
    shares = frequencies.astype(np.uint64)
    states = np.frombuffer(packed.data, "<u4", lanes, 2 * base).astype(np.uint64)
    stream = np.frombuffer(packed.data, "<u2", offset=head).astype(np.uint64)
    codes = np.empty(length, _dtype(base))
    at = 0
    for start in range(0, length, lanes):
        row = codes[start : start + lanes]
        state = states[: len(row)]
        slot = state & np.uint64(0xFFFF)
        row[:] = code_of[slot]
        state[:] = shares[row] * (state >> np.uint64(16)) + slot - starts[row]
        low = np.flatnonzero(state < _SHARES)
        if len(low):
            taken = stream[at : at + len(low)]
            if len(taken) < len(low):
                raise _corrupt(packed, "an early end")
            state[low] = (state[low] << np.uint64(16)) + taken
            at += len(low)
    if at != len(stream) or (states != _SHARES).any():
        raise _corrupt(packed, "another end")
    return codes


def _corrupt(packed: Packed, found: str) -> ValueError:
    return ValueError(
        f"The packed codes have {found}. Expected {packed.length} codes of a list of "
        f"{packed.base} values, as pack writes them. Take the whole and unchanged bytes."
    )
