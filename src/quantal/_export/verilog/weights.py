"""Encode integer weights for logic: a sign, and an index among few multiples of the input."""

import itertools
from typing import NamedTuple

import numpy as np

from quantal._export.integer.steps import Integers
from quantal._export.verilog.text import bits_of

_MOST_MULTIPLES = 16
"""Weights of more magnitudes are multiplied: selecting among their multiples takes more logic."""

_FEWEST_SHIFTS = 5
"""From so many powers of two on, a shifter takes less logic than a selection."""


class WeightCodes(NamedTuple):
    """Codes of weights, from which a clocked module takes products.

    With `magnitudes`, the lowest bit of a code says that the weight is below 0 (where
    `has_sign`), and the bits above it are an index among the magnitudes. The multiples of the input
    are computed once, and each output selects one of them.

    Attributes:
        bits: The bits of a code.
        codes: The codes, or the weights themselves, the shape of the weights.
        magnitudes: The magnitudes that occur, rising; empty where weights are multiplied.
        has_sign: Whether a weight is below 0.
        index_bits: The bits of an index among the magnitudes; 0 where there is one alone.
    """

    bits: int
    codes: Integers
    magnitudes: list[int]
    has_sign: bool
    index_bits: int

    @property
    def shifts(self) -> bool:
        """The magnitudes are successive powers of two, which one shifter takes."""
        powers = [magnitude for magnitude in self.magnitudes if magnitude]
        doubled = all(b == 2 * a for a, b in itertools.pairwise(powers))
        return len(powers) >= _FEWEST_SHIFTS and doubled and powers[0].bit_count() == 1


def weight_codes(weights: Integers) -> WeightCodes:
    """Return the codes of weights.

    Args:
        weights: Integers, any shape.

    >>> weight_codes(np.array([1, -1, 1])).bits, weight_codes(np.array([2, 0, -1])).bits
    (1, 3)
    """
    magnitudes = np.unique(np.abs(weights))
    has_sign = bool((weights < 0).any())
    if len(magnitudes) > _MOST_MULTIPLES:
        return WeightCodes(bits_of(weights), weights, [], has_sign, 0)
    codes = np.searchsorted(magnitudes, np.abs(weights)).astype(np.int64)
    if has_sign:
        codes = 2 * codes + (weights < 0)
    index_bits = (len(magnitudes) - 1).bit_length()
    # A code has a bit even where it says nothing, since one number is all there is.
    bits = max(index_bits + has_sign, 1)
    return WeightCodes(bits, codes, magnitudes.tolist(), has_sign, index_bits)
