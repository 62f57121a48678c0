"""Write the kernels that decode weights once for a block of samples, and multiply them.

Short lists are decoded in registers, long ones into a scratch of floats.
"""

from typing import Any

from quantal.runtime._chunks import start_of, write_chunks
from quantal.runtime._layout import BLOCK, Layout
from quantal.runtime._vector_code import Number, VectorFunction, constant

AHEAD = 1024
"""Words that are asked for before they are needed where a tile is read by itself: a page of memory,
after which a processor no longer foresees what is read. A whole bundle it foresees."""


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
        start = f.offset(words, start_of(f, layout, tiles, (first_word, all_bundles)))
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

    write_chunks(f, count, chunk)
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
        start = f.offset(words, start_of(f, layout, tiles, (first_word, all_bundles)))
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

    write_chunks(f, count, chunk)
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
