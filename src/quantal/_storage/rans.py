"""An entropy coder for codes that are not used evenly: an asymmetric numeral system.

The coder comes within half a percent of the entropy. Each lane has a state from 2^16 to
2^32 and takes every `lanes`-th code, so that NumPy codes all lanes at once; a state
moves 16 bits at a time to the stream. The bytes are the frequency less one of each
value (65536 shares; values that are never used have one), the lanes' last states and
the stream, all little-endian.

Source: Duda, "Asymmetric numeral systems", 2013, https://arxiv.org/abs/1311.2540.
"""

import numpy as np
from numpy.typing import NDArray

from quantal._storage.codes import Packed, damage, dtype_of_codes

LONGEST_CODED = 4096
"""Longer lists are not coded: their frequencies would take more than is saved."""
_SHARES = 1 << 16
"""Frequencies add up to this number; it is also the smallest state."""


def encode(codes: NDArray[np.unsignedinteger], base: int) -> bytes:
    """Code the codes of a list.

    Args:
        codes: Integers below `base`, of shape (length,), not empty.
        base: The length of the list, 2 to `LONGEST_CODED`.
    """
    lanes = _lanes(len(codes))
    frequencies = _frequencies(codes, base)
    all_shares = frequencies.astype(np.uint64)
    first_shares = (np.cumsum(frequencies) - frequencies).astype(np.uint64)
    states = np.full(lanes, _SHARES, np.uint64)
    stream = []
    # Backwards, since a decoder takes the states from their end.
    for start in range((len(codes) - 1) // lanes * lanes, -1, -lanes):
        row = codes[start : start + lanes]
        state, shares = states[: len(row)], all_shares[row]
        full = state >= shares << np.uint64(16)
        if full.any():
            stream.append((state[full] & np.uint64(0xFFFF)).astype("<u2"))
            state[full] >>= np.uint64(16)
        whole, rest = np.divmod(state, shares)
        states[: len(row)] = (whole << np.uint64(16)) + rest + first_shares[row]
    parts = [(frequencies - 1).astype("<u2"), states.astype("<u4"), *reversed(stream)]
    return b"".join(part.tobytes() for part in parts)


def decode(packed: Packed) -> NDArray[np.unsignedinteger]:
    """Decode codes.

    Returns:
        Codes of shape (length,), uint8 or uint16.

    Raises:
        ValueError: The bytes are not those of so many codes of such a list. This is
            reported before memory is taken for more codes than the bytes can hold.
    """
    frequencies, states, stream = _parts(packed)
    lanes = len(states)
    dtype = dtype_of_codes(packed.base)
    code_of_share = np.repeat(np.arange(packed.base, dtype=dtype), frequencies)
    first_shares = (np.cumsum(frequencies) - frequencies).astype(np.uint64)
    all_shares = frequencies.astype(np.uint64)
    codes = np.empty(packed.length, dtype)
    position = 0
    for start in range(0, packed.length, lanes):
        row = codes[start : start + lanes]
        state = states[: len(row)]
        share = state & np.uint64(0xFFFF)
        row[:] = code_of_share[share]
        state[:] = all_shares[row] * (state >> np.uint64(16)) + share - first_shares[row]
        low = np.flatnonzero(state < _SHARES)
        if len(low):
            taken = stream[position : position + len(low)]
            if len(taken) < len(low):
                raise damage(packed, "an early end")
            state[low] = (state[low] << np.uint64(16)) + taken
            position += len(low)
    if position != len(stream) or (states != _SHARES).any():
        raise damage(packed, "another end")
    return codes


def _parts(
    packed: Packed,
) -> tuple[NDArray[np.int64], NDArray[np.uint64], NDArray[np.uint64]]:
    """Return the frequencies (base,), the states (lanes,) and the stream, all checked."""
    base, lanes = packed.base, _lanes(packed.length)
    head = 2 * base + 4 * lanes
    size = len(packed.data)
    if not 2 <= base <= LONGEST_CODED or size < head or size % 2:
        raise damage(packed, f"{size} bytes")
    frequencies = np.frombuffer(packed.data, "<u2", base).astype(np.int64) + 1
    if frequencies.sum() != _SHARES:
        raise damage(packed, "frequencies that do not add up")
    # A code of frequency f takes log2(65536 / f) bits, which bounds the number of codes.
    least_bits = np.log2(_SHARES / frequencies.max())
    if packed.length * least_bits > 8 * size:
        raise damage(packed, f"{size} bytes, too few")
    states = np.frombuffer(packed.data, "<u4", lanes, 2 * base).astype(np.uint64)
    stream = np.frombuffer(packed.data, "<u2", offset=head).astype(np.uint64)
    return frequencies, states, stream


def _lanes(count: int) -> int:
    """Return the number of lanes, a power of two: few take few bytes, many little time."""
    return 1 << max(3, (count >> 13).bit_length() - 1)


def _frequencies(codes: NDArray[np.unsignedinteger], base: int) -> NDArray[np.int64]:
    """Return how often each value is used, in 65536 shares, at least one for each."""
    counts = np.bincount(codes, minlength=base)
    shares = np.maximum(1, counts * _SHARES // counts.sum())
    # The most frequent value takes what rounding left over or took too much.
    while shares.sum() != _SHARES:
        largest = int(np.argmax(shares))
        shares[largest] = max(1, shares[largest] + _SHARES - shares.sum())
    return shares
