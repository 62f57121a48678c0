"""Write the kernels: products with packed codes by tables, and by blocks of samples.

A table holds, for a group of inputs, the sums of products that the group's codes can mean: with
four codes of one bit 16 sums. One instruction looks up such a sum for a vector of outputs, so a
weight costs a part of a lookup and an addition, and no multiplication. All is done in float32, and
sums are added in pairs: the result is as exact as that of a float matrix.
"""

from collections.abc import Callable
from typing import Any

from quantal.runtime._layout import BLOCK, BUNDLE, CHUNK, Layout
from quantal.runtime._vector_code import Number, VectorFunction, constant

AHEAD = 1024
"""Words that are asked for before they are needed where a tile is read by itself: a page of memory,
after which a processor no longer foresees what is read. A whole bundle it foresees."""


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
        start = f.offset(words, _start_of(f, layout, tiles, (first_word, all_bundles)))
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

    _write_chunks(f, count, chunk)
    f.end()


def _write_chunks(f: VectorFunction, count: Number, body: Callable[[Number, Number], None]) -> None:
    """Write the loop over the chunks of words, from each one's first word and its length."""

    def chunk(index: Number, _: Any) -> list[Number]:
        first = f.times(index, constant(CHUNK))
        body(first, f.smaller(f.difference(count, first), constant(CHUNK)))
        return []

    f.loop(f.quotient(f.sum(count, constant(CHUNK - 1)), constant(CHUNK)), chunk)


def _start_of(
    f: VectorFunction, layout: Layout, tiles: int, numbers: tuple[Number, Number]
) -> Number:
    """Write where a chunk's words begin, from its first word and the number of all bundles."""
    return f.times(*numbers, constant(tiles * layout.lanes))


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


def write_block_product(module: Any, name: str, layout: Layout, tiles: int) -> None:
    """Write a function that adds the products of blocks of samples with words to outputs.

    Each weight is decoded in a register, once for all samples of a block, and multiplied.

    Its arguments are the addresses of words (chunks, bundles, words, tiles, lanes), inputs (blocks,
    inputs, samples of a block), the repeated list and outputs; and the numbers of words for an
    output, of all bundles, the first bundle, and how many bundles; of blocks; and of inputs of a
    block and of outputs from one sample to the next.

    Args:
        module: The module that it is added to.
        name: Its name.
        layout: The layout of the words.
        tiles: The tiles of a bundle.
    """
    f = VectorFunction(module, name, pointers=4, counts=7, lanes=layout.lanes)
    words, inputs, values, outputs, *counts = f.arguments
    count, all_bundles, first_bundle, bundles, blocks, inputs_step, outputs_step = counts
    # Of few values one vector holds each often enough for any index of a lookup.
    vectors = layout.vectors if layout.bits == 4 else 1
    table = [f.load(values, constant(v * layout.lanes)) for v in range(vectors)]
    # So many sums of tiles and samples fit the registers.
    width = min(tiles, 2 if layout.lanes == 16 else 1)

    def chunk(first_word: Number, length: Number) -> None:
        start = f.offset(words, _start_of(f, layout, tiles, (first_word, all_bundles)))
        first_input = f.times(first_word, constant(layout.codes_of_word * BLOCK))

        def block(index: Number, _: Any) -> list[Number]:
            numbers = f.offset(inputs, f.sum(f.times(index, inputs_step), first_input))
            output = f.offset(outputs, f.times(index, outputs_step, constant(BLOCK)))

            def bundle(index: Number, _: Any) -> list[Number]:
                number = f.sum(index, first_bundle)
                first = f.offset(start, f.times(number, length, constant(tiles * layout.lanes)))
                column = f.times(number, constant(tiles * layout.lanes))
                for tile in range(0, tiles, width):
                    tile_words = f.offset(first, constant(tile * layout.lanes))
                    sums = _write_block_sums(
                        f, layout, (tiles, width, length), (tile_words, numbers, table)
                    )
                    for position, total in enumerate(sums):
                        sample, lane = divmod(position, width)
                        shift = constant((tile + lane) * layout.lanes)
                        target = f.sum(f.times(outputs_step, constant(sample)), column, shift)
                        f.store(f.builder.fadd(f.load(output, target), total), output, target)
                return []

            return f.loop(bundles, bundle)

        f.loop(blocks, block)

    _write_chunks(f, count, chunk)
    f.end()


def _write_block_sums(
    f: VectorFunction, layout: Layout, sizes: tuple[int, int, Number], numbers: tuple[Any, ...]
) -> list[Number]:
    """Write the loop over words of some tiles and return a sum for each sample and tile.

    Args:
        f: The function.
        layout: The layout of the words.
        sizes: The tiles of a bundle, how many of them are summed, and the number of words.
        numbers: The addresses of words and inputs, and the list's vectors.
    """
    tiles, width, length = sizes
    first, inputs, table = numbers

    def word(index: Number, sums: list[Number]) -> list[Number]:
        position = f.times(index, constant(tiles * layout.lanes))
        for tile in range(width):
            f.prefetch(first, f.sum(position, constant(tile * layout.lanes + AHEAD)))
        words = [
            f.load_words(first, f.sum(position, constant(tile * layout.lanes)))
            for tile in range(width)
        ]
        start = f.offset(inputs, f.times(index, constant(layout.codes_of_word * BLOCK)))
        sums = list(sums)
        for code in range(layout.codes_of_word):
            weights = [f.look_up(table, bits, layout.shift(code)) for bits in words]
            for sample in range(BLOCK):
                number = f.broadcast(start, constant(code * BLOCK + sample))
                for tile, weight in enumerate(weights):
                    sum_index = sample * width + tile
                    sums[sum_index] = f.multiply_add(number, weight, sums[sum_index])
        return sums

    return f.loop(length, word, [f.zero()] * (BLOCK * width))


def write_decoded_product(module: Any, name: str, layout: Layout, tiles: int) -> None:
    """Write a function that does what that of `write_block_product` does, for long lists.

    A chunk of a tile is decoded into a scratch of floats, once for all blocks, since reading the
    values of a long list takes longer than multiplying. The scratch is one more address.

    Args:
        module: The module that it is added to.
        name: Its name.
        layout: The layout of the words.
        tiles: The tiles of a bundle.
    """
    f = VectorFunction(module, name, pointers=5, counts=7, lanes=layout.lanes)
    words, inputs, values, outputs, scratch, *counts = f.arguments
    count, all_bundles, first_bundle, bundles, blocks, inputs_step, outputs_step = counts

    def chunk(first_word: Number, length: Number) -> None:
        start = f.offset(words, _start_of(f, layout, tiles, (first_word, all_bundles)))
        first_input = f.times(first_word, constant(layout.codes_of_word * BLOCK))

        def tile(index: Number, _: Any) -> list[Number]:
            bundle = f.sum(f.quotient(index, constant(tiles)), first_bundle)
            lane = f.times(f.remainder(index, constant(tiles)), constant(layout.lanes))
            first = f.times(bundle, length, constant(tiles * layout.lanes))
            tile_words = f.offset(start, f.sum(first, lane))
            _write_decoding(f, layout, (tiles, length), (tile_words, values, scratch))
            column = f.sum(f.times(bundle, constant(tiles * layout.lanes)), lane)

            def block(index: Number, _: Any) -> list[Number]:
                numbers = f.offset(inputs, f.sum(f.times(index, inputs_step), first_input))
                output = f.offset(outputs, f.times(index, outputs_step, constant(BLOCK)))
                sums = _write_decoded_sums(f, layout, length, (numbers, scratch))
                for sample, total in enumerate(sums):
                    target = f.sum(f.times(outputs_step, constant(sample)), column)
                    f.store(f.builder.fadd(f.load(output, target), total), output, target)
                return []

            return f.loop(blocks, block)

        f.loop(f.times(bundles, constant(tiles)), tile)

    _write_chunks(f, count, chunk)
    f.end()


def _write_decoding(
    f: VectorFunction, layout: Layout, sizes: tuple[int, Number], addresses: tuple[Number, ...]
) -> None:
    """Write the decoding of a tile's words into floats: words, values and floats.

    Args:
        f: The function.
        layout: The layout of the words.
        sizes: The tiles of a bundle, and the number of words.
        addresses: Those of the words, the list and the floats.
    """
    tiles, length = sizes
    first, values, floats = addresses

    def word(index: Number, _: Any) -> list[Number]:
        position = f.times(index, constant(tiles * layout.lanes))
        f.prefetch(first, f.sum(position, constant(AHEAD)))
        bits = f.load_words(first, position)
        start = f.times(index, constant(layout.codes_of_word * layout.lanes))
        for code in range(layout.codes_of_word):
            decoded = f.gather(values, bits, layout.shift(code), layout.bits)
            f.store(decoded, floats, f.sum(start, constant(code * layout.lanes)))
        return []

    f.loop(length, word)


def _write_decoded_sums(
    f: VectorFunction, layout: Layout, length: Number, addresses: tuple[Number, Number]
) -> list[Number]:
    """Write the loop over decoded words and return a sum for each sample: inputs and floats."""
    inputs, floats = addresses

    def code(index: Number, sums: list[Number]) -> list[Number]:
        weight = f.load(floats, f.times(index, constant(layout.lanes)))
        first = f.offset(inputs, f.times(index, constant(BLOCK)))
        return [
            f.multiply_add(f.broadcast(first, constant(sample)), weight, total)
            for sample, total in enumerate(sums)
        ]

    return f.loop(f.times(length, constant(layout.codes_of_word)), code, [f.zero()] * BLOCK)


def write_all(module: Any, layout: Layout) -> None:
    """Write the kernels for whole bundles, and for the tiles that are left."""
    for tiles in (BUNDLE, 1):
        if not layout.has_tables:
            write_decoded_product(module, f"decoded_product_{tiles}", layout, tiles)
            continue
        write_product(module, f"product_{tiles}", layout, tiles)
        if layout.has_blocks:
            write_block_product(module, f"block_product_{tiles}", layout, tiles)


def _sum_in_pairs(f: VectorFunction, terms: list[Number]) -> Number:
    """Write the sum of vectors, of halves of them first: its rounding grows with their log."""
    if len(terms) == 1:
        return terms[0]
    middle = len(terms) // 2
    halves = (_sum_in_pairs(f, terms[:middle]), _sum_in_pairs(f, terms[middle:]))
    return f.builder.fadd(*halves)
