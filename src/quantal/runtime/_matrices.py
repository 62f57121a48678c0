"""Multiply inputs by matrices that stay packed, block by block."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from quantal.runtime._layout import BLOCK, BUNDLE, CHUNK, Layout
from quantal.runtime._machine_code import kernels
from quantal.runtime._threads import Threads

Floats = NDArray[np.float32]

_BLOCK = 2**18
"""Floats of a block that NumPy decodes, so that it stays in the cache of a core."""
_CACHE_LINE = 64


class Matrix(ABC):
    """A matrix multiplies samples.

    Attributes:
        inputs: The numbers of a sample.
        outputs: The numbers of its product.
        padded_inputs: The inputs of a block of `product_of_blocks`; 0 where there are no blocks.
    """

    inputs: int
    outputs: int
    padded_inputs: int = 0

    @property
    @abstractmethod
    def nbytes(self) -> int:
        """The bytes of memory that the matrix takes."""

    @abstractmethod
    def product(self, samples: Floats) -> Floats:
        """Return the products with samples of shape (n, inputs), of shape (n, outputs).

        They are in an array of their own.
        """

    def product_of_blocks(self, blocks: Floats) -> Floats:
        """Return the products with blocks of eight samples, of shape (8 * blocks, outputs).

        Args:
            blocks: Shape (blocks, `padded_inputs`, 8), zeros behind the last input.
        """
        raise NotImplementedError(f"{type(self).__name__} takes no blocks. Call product.")


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
        words: Uint32 (chunks, bundles, words, tiles, lanes), the last chunk with fewer words.
        address: Where they are in memory.
    """

    tiles: int
    bundles: int
    first: int
    words: NDArray[np.uint32]
    address: int


class PackedMatrix(Matrix):
    """A matrix of up to 256 values is multiplied while it is packed: see `_kernels`.

    Of few values it is multiplied by tables of sums; of eight samples and more a weight is decoded
    in a register, once for all of them. Of long lists small parts are decoded.

    Args:
        codes: The codes, of shape (inputs, outputs).
        values: The list, float32 of up to 256 values.
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
        patterns = layout.patterns(values) if layout.has_tables else np.zeros(0, np.float32)
        self._patterns = _aligned(patterns)
        self._list = _aligned(layout.repeated(values))
        # Asking an array for its address takes as long as a small product.
        self._address_of_patterns = self._patterns.ctypes.data
        self._address_of_list = self._list.ctypes.data
        words = layout.words(codes)
        self._word_count, tiles = words.shape[:2]
        whole = tiles // BUNDLE
        self._parts = [
            _part_of(words[:, : whole * BUNDLE], BUNDLE, 0),
            _part_of(words[:, whole * BUNDLE :], 1, whole * BUNDLE * lanes),
        ]
        self._padded_outputs = tiles * lanes
        if layout.has_blocks:
            self.padded_inputs = self._word_count * layout.codes_of_word

    @property
    def nbytes(self) -> int:
        """The bytes of memory that the matrix takes."""
        words = sum(part.words.nbytes for part in self._parts)
        return words + self._patterns.nbytes + self._list.nbytes

    def product(self, samples: Floats) -> Floats:
        """Return the products with samples of shape (n, inputs), of shape (n, outputs)."""
        count, layout = len(samples), self._layout
        rest = count % BLOCK
        rows = count + BLOCK - rest if rest >= layout.fewest_of_block else count
        padded = np.zeros((rows, self._word_count * layout.codes_of_word), np.float32)
        padded[:count, : self.inputs] = samples
        results = np.zeros((rows, self._padded_outputs), np.float32)
        whole = rows // BLOCK * BLOCK if layout.has_blocks else 0
        if whole:
            self._add_by_blocks(padded[:whole], results[:whole])
        if whole < rows:
            self._add_by_tables(padded[whole:], results[whole:])
        return results[:count, : self.outputs]

    def _add_by_tables(self, samples: Floats, results: Floats) -> None:
        """Add the products of samples of shape (samples, padded inputs), by looking up sums."""
        layout, (count, inputs) = self._layout, samples.shape

        def multiply(part: _Part, start: int, stop: int) -> None:
            size = CHUNK * layout.groups_of_word * layout.entries
            tables = _empty((size,), np.float32)
            self._kernels[part.tiles].product(
                part.address,
                samples.ctypes.data,
                self._address_of_patterns,
                results.ctypes.data + part.first * results.itemsize,
                tables.ctypes.data,
                self._word_count,
                part.bundles,
                *(start, stop - start, count, inputs, results.shape[1]),
            )

        self._each_part(count, multiply)

    def _each_part(self, samples: int, multiply: Callable[[_Part, int, int], None]) -> None:
        """Call a function with each part and a range of its bundles, in several threads."""
        for part in self._parts:
            work = samples * self.inputs * part.bundles * part.tiles * self._layout.lanes
            if part.bundles and samples:
                self._threads.each_part(part.bundles, work, partial(multiply, part))

    def product_of_blocks(self, blocks: Floats) -> Floats:
        """Return the products with blocks of eight samples, of shape (8 * blocks, outputs).

        Args:
            blocks: Shape (blocks, `padded_inputs`, 8), zeros behind the last input.
        """
        results = np.zeros((len(blocks) * BLOCK, self._padded_outputs), np.float32)
        self._add_products(blocks, results)
        return results[:, : self.outputs]

    def _add_by_blocks(self, samples: Floats, results: Floats) -> None:
        """Add the products of whole blocks of samples, of shape (samples, padded inputs)."""
        blocks = samples.reshape(-1, BLOCK, samples.shape[1]).swapaxes(1, 2)
        self._add_products(_aligned(blocks), results)

    def _add_products(self, blocks: Floats, results: Floats) -> None:
        """Add the products of blocks of shape (blocks, padded inputs, 8) to the results."""
        count, inputs = len(blocks) * BLOCK, blocks.shape[1]

        def multiply(part: _Part, start: int, stop: int) -> None:
            kernels = self._kernels[part.tiles]
            addresses = (
                part.address,
                blocks.ctypes.data,
                self._address_of_list,
                results.ctypes.data + part.first * results.itemsize,
            )
            counts = (
                *(self._word_count, part.bundles, start, stop - start),
                *(len(blocks), inputs * BLOCK, results.shape[1]),
            )
            if kernels.decoded_product is None:
                kernels.block_product(*addresses, *counts)
                return
            floats = _empty((CHUNK * self._layout.codes_of_word, self._layout.lanes), np.float32)
            kernels.decoded_product(*addresses, floats.ctypes.data, *counts)

        self._each_part(count, multiply)


def code_bits(length: int) -> int:
    """Return the bits of a code of a list of so many values, as the runtime keeps it."""
    return next(bits for bits in (1, 2, 4, 8, 16) if length <= 1 << bits)


def _part_of(words: NDArray[np.uint32], tiles: int, first: int) -> _Part:
    """Return a part of bundles of words of shape (words, tiles of all bundles, lanes)."""
    count, all_tiles, lanes = words.shape
    bundles = all_tiles // tiles
    bundled = words.reshape(count, bundles, tiles, lanes).swapaxes(0, 1)
    ordered = _empty((words.size,), np.uint32)
    for start in range(0, count, CHUNK):
        chunk = bundled[:, start : start + CHUNK]
        begin = start * all_tiles * lanes
        ordered[begin : begin + chunk.size] = chunk.reshape(-1)
    return _Part(tiles, bundles, first, ordered, ordered.ctypes.data)


def _packed_bytes(codes: NDArray[np.unsignedinteger], bits: int) -> NDArray[np.unsignedinteger]:
    """Return rows of codes in as few bytes as their bits allow, each row in whole bytes."""
    if bits >= 8:
        return np.ascontiguousarray(codes, np.uint8 if bits == 8 else np.uint16)
    codes_of_byte = 8 // bits
    packed = np.zeros((len(codes), -(-codes.shape[1] // codes_of_byte)), np.uint8)
    for code in range(codes_of_byte):
        columns = codes[:, code::codes_of_byte].astype(np.uint8)
        packed[:, : columns.shape[1]] |= columns << np.uint8(code * bits)
    return packed


def _aligned(array: NDArray[Any]) -> NDArray[Any]:
    """Return a contiguous copy that begins at a line of the cache."""
    copy = _empty(array.shape, array.dtype)
    copy[...] = array
    return copy


def _empty(shape: tuple[int, ...], dtype: Any) -> NDArray[Any]:
    """Return an array without numbers yet that begins at a line of the cache."""
    size = math.prod(shape) * np.dtype(dtype).itemsize
    memory = np.empty(size + _CACHE_LINE, np.uint8)
    start = -memory.ctypes.data % _CACHE_LINE
    return memory[start : start + size].view(dtype).reshape(shape)
