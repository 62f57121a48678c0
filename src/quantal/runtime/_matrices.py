"""Multiply inputs by matrices that stay packed, block by block."""

from abc import ABC, abstractmethod
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from quantal.runtime._layout import BUNDLE, Layout
from quantal.runtime._machine_code import kernels
from quantal.runtime._threads import Threads

Floats = NDArray[np.float32]

_BLOCK = 2**18
"""Floats of a decoded block, so that it stays in the cache of a core."""
_CHUNK = 32
"""Words whose tables are computed at a time: the tables fit the smallest cache."""
_SAMPLES_OF_TABLES = {1: 48, 2: 16, 4: 6}
"""Up to so many samples tables are faster than decoding for BLAS, by the bits of a code."""
_CACHE_LINE = 64


class Matrix(ABC):
    """A matrix multiplies samples.

    Attributes:
        inputs: The numbers of a sample.
        outputs: The numbers of its product.
    """

    inputs: int
    outputs: int

    @property
    @abstractmethod
    def nbytes(self) -> int:
        """The bytes of memory that the matrix takes."""

    @abstractmethod
    def product(self, samples: Floats) -> Floats:
        """Return the products with samples of shape (n, inputs), of shape (n, outputs)."""


class FloatMatrix(Matrix):
    """A float matrix is an array of shape (inputs, outputs)."""

    def __init__(self, numbers: Floats) -> None:
        self.inputs, self.outputs = numbers.shape
        self._numbers = np.ascontiguousarray(numbers, np.float32)

    @property
    def nbytes(self) -> int:
        """The bytes of memory that the matrix takes."""
        return self._numbers.nbytes

    def product(self, samples: Floats) -> Floats:
        """Return the products with samples of shape (n, inputs), of shape (n, outputs)."""
        return samples @ self._numbers


class PackedRows:
    """Packed rows are rows of listed values, of which any can be decoded.

    Args:
        codes: The codes, of shape (rows, columns).
        lists: The list of all rows, float32 of shape (1, K), or that of each, (rows, K).
    """

    def __init__(self, codes: NDArray[np.unsignedinteger], lists: Floats) -> None:
        self.rows, self.columns = codes.shape
        self._lists = np.ascontiguousarray(lists, np.float32)
        bits = code_bits(lists.shape[1])
        self._codes_of_byte = 8 // bits if bits < 8 else 1
        self._packed = _packed_bytes(codes, bits)
        code = np.arange(256)[:, None] >> bits % 8 * np.arange(self._codes_of_byte)
        codes_of_byte = np.minimum(code % (1 << min(bits, 8)), lists.shape[1] - 1)
        # What each byte stands for: of one list the values, else the codes.
        is_one_list, is_long = len(lists) == 1, bits > 8
        table = self._lists[0][codes_of_byte] if is_one_list else codes_of_byte.astype(np.uint8)
        self._table = None if is_long else table

    @property
    def nbytes(self) -> int:
        """The bytes of memory that the rows take."""
        table = 0 if self._table is None else self._table.nbytes
        return self._packed.nbytes + self._lists.nbytes + table

    def decoded(self, rows: slice | NDArray[np.integer]) -> Floats:
        """Return some rows as floats."""
        packed = self._packed[rows]
        if self._table is None:
            return self._numbers(packed, rows)
        # This form of taking is many times faster than indexing.
        entries = np.take(self._table, packed, axis=0, mode="clip")
        entries = entries.reshape(len(packed), -1)[:, : self.columns]
        return entries if len(self._lists) == 1 else self._numbers(entries, rows)

    def _numbers(
        self, codes: NDArray[np.unsignedinteger], rows: slice | NDArray[np.integer]
    ) -> Floats:
        """Return the values of codes that have an element each."""
        if len(self._lists) == 1:
            return np.take(self._lists[0], codes, mode="clip")
        return np.take_along_axis(self._lists[rows], codes.astype(np.intp), axis=1)


class DecodedMatrix(Matrix):
    """A matrix is decoded block by block, and BLAS multiplies each block.

    Args:
        codes: The codes, of shape (inputs, outputs).
        lists: The list of all outputs, float32 of shape (1, K), or that of each, (outputs, K).
    """

    def __init__(self, codes: NDArray[np.unsignedinteger], lists: Floats) -> None:
        self.inputs, self.outputs = codes.shape
        self._rows = PackedRows(codes.T, lists)

    @property
    def nbytes(self) -> int:
        """The bytes of memory that the matrix takes."""
        return self._rows.nbytes

    def product(self, samples: Floats) -> Floats:
        """Return the products with samples of shape (n, inputs), of shape (n, outputs)."""
        results = np.empty((len(samples), self.outputs), np.float32)
        step = max(1, _BLOCK // max(1, self.inputs))
        for start in range(0, self.outputs, step):
            block = slice(start, start + step)
            results[:, block] = samples @ self._rows.decoded(block).T
        return results


class _Part(NamedTuple):
    """A part of a matrix: bundles of so many tiles each.

    Attributes:
        tiles: The tiles of a bundle.
        bundles: How many bundles there are.
        first: The first of its outputs.
        chunks: The words of each chunk of inputs, uint32 (bundles, words, tiles, lanes).
    """

    tiles: int
    bundles: int
    first: int
    chunks: list[NDArray[np.uint32]]


class TableMatrix(Matrix):
    """A matrix of few values is multiplied by tables of sums, see `_kernels`, while it is packed.

    Of many samples BLAS multiplies decoded blocks, since it reads each weight once for all.

    Args:
        codes: The codes, of shape (inputs, outputs).
        values: The list, float32 of up to 16 values.
        lanes: The numbers of a vector of this processor.
        threads: What splits large products.
    """

    def __init__(
        self,
        codes: NDArray[np.unsignedinteger],
        values: Floats,
        lanes: int,
        threads: Threads,
    ) -> None:
        self.inputs, self.outputs = codes.shape
        self._layout = layout = Layout(code_bits(len(values)), lanes)
        self._threads = threads
        self._kernels = kernels(layout)
        self._patterns = _aligned(layout.patterns(values))
        self._list = _aligned(layout.repeated(values))
        words = layout.words(codes)
        self._word_count, tiles = words.shape[:2]
        whole = tiles // BUNDLE
        self._parts = [
            _part_of(words[:, : whole * BUNDLE], BUNDLE, 0),
            _part_of(words[:, whole * BUNDLE :], 1, whole * BUNDLE * lanes),
        ]
        self._padded_outputs = tiles * lanes

    @property
    def nbytes(self) -> int:
        """The bytes of memory that the matrix takes."""
        words = sum(chunk.nbytes for part in self._parts for chunk in part.chunks)
        return words + self._patterns.nbytes + self._list.nbytes

    def product(self, samples: Floats) -> Floats:
        """Return the products with samples of shape (n, inputs), of shape (n, outputs)."""
        if len(samples) > _SAMPLES_OF_TABLES[self._layout.bits]:
            return self._by_blocks(samples)
        return self._by_tables(samples)

    def _by_tables(self, samples: Floats) -> Floats:
        """Return the products by looking up sums."""
        layout = self._layout
        padded = np.zeros((len(samples), self._word_count * layout.codes_of_word), np.float32)
        padded[:, : self.inputs] = samples
        results = np.zeros((len(samples), self._padded_outputs), np.float32)
        for part in self._parts:

            def multiply(start: int, stop: int, part: _Part = part) -> None:
                self._multiply(padded, results, part, (start, stop))

            work = len(samples) * self.inputs * part.bundles * part.tiles * layout.lanes
            if part.bundles:
                self._threads.each_part(part.bundles, work, multiply)
        return results[:, : self.outputs]

    def _multiply(
        self, samples: Floats, results: Floats, part: _Part, bundles: tuple[int, int]
    ) -> None:
        """Add the products with some bundles to the results."""
        layout, (start, stop) = self._layout, bundles
        entries = _CHUNK * layout.groups_of_word * layout.entries
        tables = _aligned(np.empty(entries, np.float32))
        first = part.first + start * part.tiles * layout.lanes
        kernel = self._kernels[part.tiles].product
        step = _CHUNK * layout.codes_of_word * samples.itemsize
        for index, words in enumerate(part.chunks):
            kernel(
                words[start:].ctypes.data,
                samples.ctypes.data + index * step,
                self._patterns.ctypes.data,
                results.ctypes.data + first * results.itemsize,
                tables.ctypes.data,
                words.shape[1],
                stop - start,
                *(len(samples), samples.shape[1], results.shape[1]),
            )

    def _by_blocks(self, samples: Floats) -> Floats:
        """Return the products by decoding blocks of outputs for BLAS."""
        layout = self._layout
        results = np.empty((len(samples), self.outputs), np.float32)
        rows = self._word_count * layout.codes_of_word
        for part in self._parts:
            width = part.tiles * layout.lanes
            step = max(1, min(part.bundles, _BLOCK // (rows * width)))
            block = _aligned(np.empty((rows, step * width), np.float32))
            for start in range(0, part.bundles, step):
                count = min(step, part.bundles - start)
                self._decode(part, start, count, block)
                first = part.first + start * width
                last = min(first + count * width, self.outputs)
                decoded = block[: self.inputs, : last - first]
                results[:, first:last] = samples @ decoded
        return results

    def _decode(self, part: _Part, start: int, count: int, block: Floats) -> None:
        """Decode some bundles into a block of shape (padded inputs, outputs)."""
        kernel = self._kernels[part.tiles].decoding
        for index, words in enumerate(part.chunks):
            kernel(
                words[start:].ctypes.data,
                self._list.ctypes.data,
                block[index * _CHUNK * self._layout.codes_of_word :].ctypes.data,
                words.shape[1],
                count,
                block.shape[1],
            )


def code_bits(length: int) -> int:
    """Return the bits of a code of a list of so many values, as the runtime keeps it."""
    return next(bits for bits in (1, 2, 4, 8, 16) if length <= 1 << bits)


def _part_of(words: NDArray[np.uint32], tiles: int, first: int) -> _Part:
    """Return a part of bundles of words of shape (words, tiles of all bundles, lanes)."""
    count, all_tiles, lanes = words.shape
    bundles = all_tiles // tiles
    bundled = words.reshape(count, bundles, tiles, lanes).swapaxes(0, 1)
    chunks = [_aligned(bundled[:, start : start + _CHUNK]) for start in range(0, count, _CHUNK)]
    return _Part(tiles, bundles, first, chunks if bundles else [])


def _packed_bytes(
    codes: NDArray[np.unsignedinteger], bits: int
) -> NDArray[np.uint8] | NDArray[np.uint16]:
    """Return rows of codes in as few bytes as their bits allow, each row in whole bytes."""
    if bits >= 8:
        return np.ascontiguousarray(codes, np.uint8 if bits == 8 else np.uint16)
    codes_of_byte = 8 // bits
    packed = np.zeros((len(codes), -(-codes.shape[1] // codes_of_byte)), np.uint8)
    for code in range(codes_of_byte):
        columns = codes[:, code::codes_of_byte].astype(np.uint8)
        packed[:, : columns.shape[1]] |= columns << np.uint8(code * bits)
    return packed


def _aligned(array: NDArray[np.generic]) -> NDArray:
    """Return a contiguous copy that begins at a line of the cache."""
    memory = np.empty(array.nbytes + _CACHE_LINE, np.uint8)
    start = -memory.ctypes.data % _CACHE_LINE
    copy = memory[start : start + array.nbytes].view(array.dtype).reshape(array.shape)
    copy[...] = array
    return copy
