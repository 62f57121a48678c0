"""Write the two kernels: a product with codes by tables, and the decoding of codes.

A table holds, for a group of inputs, the sums of products that the group's codes can mean: with
four codes of one bit 16 sums. One instruction looks up such a sum for a vector of outputs, so a
weight costs a part of a lookup and an addition, and no multiplication. All is done in float32, and
sums are added in pairs: the result is as exact as that of a float matrix.
"""

from typing import Any

from quantal.runtime._layout import BUNDLE, Layout
from quantal.runtime._vector_code import Number, VectorFunction, constant


def write_product(module: Any, name: str, layout: Layout, tiles: int) -> None:
    """Write a function that adds the product of samples with a chunk of words to outputs.

    Its arguments are the addresses of words (bundles, words, tiles, lanes), inputs, patterns,
    outputs and a scratch for tables (words * groups of a word, entries); and the numbers of words,
    of bundles, of samples, of inputs and of outputs from one sample to the next.

    Args:
        module: The module that it is added to.
        name: Its name.
        layout: The layout of the words.
        tiles: The tiles of a bundle.
    """
    f = VectorFunction(module, name, pointers=5, counts=5, lanes=layout.lanes)
    words, inputs, patterns, outputs, tables, count, bundles, samples, inputs_step, outputs_step = (
        f.arguments
    )

    def sample(index: Number, _: Any) -> list[Number]:
        _write_tables(f, layout, (f.offset(inputs, f.times(index, inputs_step)), patterns, tables))
        output = f.offset(outputs, f.times(index, outputs_step))

        def bundle(index: Number, _: Any) -> list[Number]:
            first = f.offset(words, f.times(index, count, constant(tiles * layout.lanes)))
            sums = _write_sums(f, layout, tiles, (first, tables))
            for tile, total in enumerate(sums):
                position = f.times(f.sum(f.times(index, constant(tiles)), constant(tile)),
                                   constant(layout.lanes))  # fmt: skip
                f.store(f.builder.fadd(f.load(output, position), total), output, position)
            return []

        return f.loop(bundles, bundle)

    f.loop(samples, sample)
    f.end()


def _write_tables(f: VectorFunction, layout: Layout, addresses: tuple[Number, ...]) -> None:
    """Write the loop that computes the tables of a sample: inputs, patterns and tables."""
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

    f.loop(f.times(f.arguments[5], constant(layout.groups_of_word)), group)


def _write_sums(
    f: VectorFunction, layout: Layout, tiles: int, addresses: tuple[Number, ...]
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

    return f.loop(f.arguments[5], word, [f.zero()] * tiles)


def write_decoding(module: Any, name: str, layout: Layout, tiles: int) -> None:
    """Write a function that decodes a chunk of words into floats (inputs, outputs).

    Its arguments are the addresses of words (bundles, words, tiles, lanes), the repeated list and
    the floats; and the numbers of words, of bundles, and of floats from one input to the next.

    Args:
        module: The module that it is added to.
        name: Its name.
        layout: The layout of the words.
        tiles: The tiles of a bundle.
    """
    f = VectorFunction(module, name, pointers=3, counts=3, lanes=layout.lanes)
    words, values, floats, count, bundles, floats_step = f.arguments
    # Of few values one vector holds each often enough for any three bits.
    vectors = layout.vectors if layout.bits == 4 else 1
    table = [f.load(values, constant(v * layout.lanes)) for v in range(vectors)]

    def bundle(index: Number, _: Any) -> list[Number]:
        first = f.offset(words, f.times(index, count, constant(tiles * layout.lanes)))
        column = f.times(index, constant(tiles * layout.lanes))

        def word(index: Number, _: Any) -> list[Number]:
            position = f.times(index, constant(tiles * layout.lanes))
            row = f.sum(f.times(index, constant(layout.codes_of_word), floats_step), column)
            for tile in range(tiles):
                bits = f.load_words(first, f.sum(position, constant(tile * layout.lanes)))
                for code in range(layout.codes_of_word):
                    target = f.sum(f.times(floats_step, constant(code)), row,
                                   constant(tile * layout.lanes))  # fmt: skip
                    f.store(f.look_up(table, bits, layout.shift(code)), floats, target)
            return []

        return f.loop(count, word)

    f.loop(bundles, bundle)
    f.end()


def write_all(module: Any, layout: Layout) -> None:
    """Write both kernels for whole bundles, and for the tiles that are left."""
    for tiles in (BUNDLE, 1):
        write_product(module, f"product_{tiles}", layout, tiles)
        write_decoding(module, f"decoding_{tiles}", layout, tiles)


def _sum_in_pairs(f: VectorFunction, terms: list[Number]) -> Number:
    """Write the sum of vectors, of halves of them first: its rounding grows with their log."""
    if len(terms) == 1:
        return terms[0]
    middle = len(terms) // 2
    halves = (_sum_in_pairs(f, terms[:middle]), _sum_in_pairs(f, terms[middle:]))
    return f.builder.fadd(*halves)
