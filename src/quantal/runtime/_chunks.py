"""Write the loop over chunks of words, which all kernels have."""

from collections.abc import Callable
from typing import Any

from quantal.runtime._layout import CHUNK, Layout
from quantal.runtime._vector_code import Number, VectorFunction, constant


def write_chunks(f: VectorFunction, count: Number, body: Callable[[Number, Number], None]) -> None:
    """Write the loop over the chunks of words, from each one's first word and its length."""

    def chunk(index: Number, _: Any) -> list[Number]:
        first = f.times(index, constant(CHUNK))
        body(first, f.smaller(f.difference(count, first), constant(CHUNK)))
        return []

    f.loop(f.quotient(f.sum(count, constant(CHUNK - 1)), constant(CHUNK)), chunk)


def start_of(
    f: VectorFunction, layout: Layout, tiles: int, numbers: tuple[Number, Number]
) -> Number:
    """Write where a chunk's words begin, from its first word and the number of all bundles."""
    return f.times(*numbers, constant(tiles * layout.lanes))
