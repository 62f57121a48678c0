"""Write the kernel that multiplies packed codes by tables of sums.

A table holds, for a group of inputs, the sums of products that the group's codes can mean: with
four codes of one bit 16 sums. One instruction looks up such a sum for a vector of outputs, so a
weight costs a part of a lookup and an addition, and no multiplication. All is done in float32, and
sums are added in pairs: the result is as exact as that of a float matrix.
"""

from typing import Any

from quantal.runtime._chunks import start_of, write_chunks
from quantal.runtime._layout import Layout
from quantal.runtime._vector_code import Number, VectorFunction, constant


def write_product(module: Any, name: str, layout: Layout, tiles: int) -> None:
    """Write a function that adds the products of samples with words to outputs.

    Its arguments are the addresses of words (chunks, bundles, words, tiles, lanes), inputs,
    patterns, outputs and a scratch for the tables of a chunk; and the numbers of words for an
    output, of all bundles, the first bundle, and how many bundles; of samples; and of inputs and of
    outputs from one sample to the next.

    Args:
        module: The module that it is added to.
        name: Its name.
        layout: The layout of the words.
        tiles: The tiles of a bundle.
    """
    f = VectorFunction(module, name, pointers=5, counts=7, lanes=layout.lanes)
    words, inputs, patterns, outputs, tables, *counts = f.arguments
    count, all_bundles, first_bundle, bundles, samples, inputs_step, outputs_step = counts

    def chunk(first_word: Number, length: Number) -> None:
        start = f.offset(words, start_of(f, layout, tiles, (first_word, all_bundles)))
        first_input = f.times(first_word, constant(layout.codes_of_word))

        def sample(index: Number, _: Any) -> list[Number]:
            numbers = f.offset(inputs, f.sum(f.times(index, inputs_step), first_input))
            _write_tables(f, layout, length, (numbers, patterns, tables))
            output = f.offset(outputs, f.times(index, outputs_step))

            def bundle(index: Number, _: Any) -> list[Number]:
                number = f.sum(index, first_bundle)
                first = f.offset(start, f.times(number, length, constant(tiles * layout.lanes)))
                sums = _write_sums(f, layout, tiles, length, (first, tables))
                for tile, total in enumerate(sums):
                    tile_number = f.sum(f.times(number, constant(tiles)), constant(tile))
                    position = f.times(tile_number, constant(layout.lanes))
                    f.store(f.builder.fadd(f.load(output, position), total), output, position)
                return []

            return f.loop(bundles, bundle)

        f.loop(samples, sample)

    write_chunks(f, count, chunk)
    f.end()


def _write_tables(
    f: VectorFunction, layout: Layout, words: Number, addresses: tuple[Number, ...]
) -> None:
    """Write the loop that computes the tables of some words: inputs, patterns and tables."""
    inputs, patterns, tables = addresses
    codes, vectors = layout.codes_of_group, layout.vectors
    rows = [
        [
            f.load(patterns, constant(code * layout.entries + v * layout.lanes))
            for v in range(vectors)
        ]
        for code in range(codes)
    ]

    def group(index: Number, _: Any) -> list[Number]:
        first = f.times(index, constant(codes))
        numbers = [f.broadcast(inputs, f.sum(first, constant(code))) for code in range(codes)]
        for v in range(vectors):
            terms = [f.builder.fmul(x, row[v]) for x, row in zip(numbers, rows, strict=True)]
            position = f.sum(f.times(index, constant(layout.entries)), constant(v * layout.lanes))
            f.store(_sum_in_pairs(f, terms), tables, position)
        return []

    f.loop(f.times(words, constant(layout.groups_of_word)), group)


def _write_sums(
    f: VectorFunction, layout: Layout, tiles: int, count: Number, addresses: tuple[Number, ...]
) -> list[Number]:
    """Write the loop over a bundle's words and return the sums of its tiles: words and tables."""
    first, tables = addresses

    def word(index: Number, sums: list[Number]) -> list[Number]:
        position = f.times(index, constant(tiles * layout.lanes))
        words = [
            f.load_words(first, f.sum(position, constant(tile * layout.lanes)))
            for tile in range(tiles)
        ]
        terms: list[list[Number]] = [[] for _ in words]
        for group in range(layout.groups_of_word):
            table = [
                f.load(tables, f.sum(
                    f.times(index, constant(layout.groups_of_word * layout.entries)),
                    constant(group * layout.entries + v * layout.lanes),
                ))
                for v in range(layout.vectors)
            ]  # fmt: skip
            for tile, bits in enumerate(words):
                terms[tile].append(f.look_up(table, bits, group * layout.group_bits))
        return [
            f.builder.fadd(total, _sum_in_pairs(f, parts))
            for total, parts in zip(sums, terms, strict=True)
        ]

    return f.loop(count, word, [f.zero()] * tiles)


def _sum_in_pairs(f: VectorFunction, terms: list[Number]) -> Number:
    """Write the sum of vectors, of halves of them first: its rounding grows with their log."""
    if len(terms) == 1:
        return terms[0]
    middle = len(terms) // 2
    halves = (_sum_in_pairs(f, terms[:middle]), _sum_in_pairs(f, terms[middle:]))
    return f.builder.fadd(*halves)
