"""Lay codes out in words, as the kernels read them.

A *group* is as many codes, of one output and of neighbouring inputs, as a table has an entry for
each combination of: four codes of one bit, two of two bits, one of four. A *word* of 32 bits holds
groups of one output; a *tile* is a vector of outputs, and a *bundle* some tiles that are computed
together, so that a table is read once for all of them. A *chunk* is so many words of each output
that their tables fit the cache.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

WORD_BITS = 32
BUNDLE = 4
"""Tiles in a bundle: their sums, their words and a table fit the registers of AVX2."""

BLOCK = 8
"""Samples of a block, for which a weight is decoded once: their sums fit the registers."""
_FEWEST_OF_BLOCK = {1: BLOCK + 1, 2: 6, 4: 4, 8: 1}
"""So few samples take as long as a filled-up block, by the bits of a code: measured."""
CHUNK = 32
"""Words of an output whose tables are computed at a time: they fit the smallest cache."""


class Layout(NamedTuple):
    """A layout says how the codes of a matrix stand in words.

    Attributes:
        bits: The bits of a code: 1, 2, 4 or 8.
        lanes: The outputs of a tile: 8 (AVX2) or 16 (AVX-512).
    """

    bits: int
    lanes: int

    @property
    def group_bits(self) -> int:
        """The bits of a group; three look up one vector of AVX2, and a fourth bit a second one."""
        return 3 if self.bits == 1 and self.lanes == 8 else max(4, self.bits)

    @property
    def codes_of_group(self) -> int:
        """The codes of a group."""
        return self.group_bits // self.bits

    @property
    def has_tables(self) -> bool:
        """Whether a table of all combinations of a group fits a vector or two."""
        return self.bits <= 4

    @property
    def fewest_of_block(self) -> int:
        """The fewest samples for which a block that is filled up is faster than tables."""
        return _FEWEST_OF_BLOCK[self.bits]

    @property
    def has_blocks(self) -> bool:
        """Whether decoding for a block of samples is faster than tables: not of one bit."""
        return self.bits > 1

    @property
    def groups_of_word(self) -> int:
        """The groups of a word; of 32 bits two stay free where a group has three."""
        return WORD_BITS // self.group_bits

    @property
    def codes_of_word(self) -> int:
        """The codes of a word."""
        return self.groups_of_word * self.codes_of_group

    @property
    def entries(self) -> int:
        """The entries of a table: one for each combination of a group's codes."""
        return max(self.lanes, 1 << self.group_bits)

    @property
    def vectors(self) -> int:
        """The vectors of a table."""
        return self.entries // self.lanes

    def shift(self, code: int) -> int:
        """Return the first bit of a word's code."""
        group, position = divmod(code, self.codes_of_group)
        return group * self.group_bits + position * self.bits

    def patterns(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return what each code of a group contributes to each entry of a table.

        Args:
            values: The list, float32 of shape (K,).

        Returns:
            Float32 of shape (codes of a group, entries): the table of a group is the sum of
            these rows, each times its input.
        """
        complete = self._complete(values)
        index = np.arange(self.entries) % (1 << self.group_bits)
        codes = index >> self.bits * np.arange(self.codes_of_group)[:, None]
        return np.ascontiguousarray(complete[codes % (1 << self.bits)])

    def repeated(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the list, repeated over the vectors that a single code is looked up in."""
        length = max(self.lanes, 1 << self.bits)
        return np.resize(self._complete(values), length).astype(np.float32)

    def words(self, codes: NDArray[np.unsignedinteger]) -> NDArray[np.uint32]:
        """Return the words of codes.

        Args:
            codes: Of shape (inputs, outputs).

        Returns:
            Words of shape (words, tiles, lanes), filled up with codes 0.
        """
        inputs, outputs = codes.shape
        count, tiles = -(-inputs // self.codes_of_word), -(-outputs // self.lanes)
        words = np.zeros((count, tiles * self.lanes), np.uint32)
        for code in range(self.codes_of_word):
            rows = codes[code :: self.codes_of_word].astype(np.uint32)
            words[: len(rows), :outputs] |= rows << np.uint32(self.shift(code))
        return words.reshape(count, tiles, self.lanes)

    def _complete(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the list with a number for each code that its bits can be."""
        return np.pad(values.astype(np.float32), (0, (1 << self.bits) - len(values)))
