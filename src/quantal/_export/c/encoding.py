"""Encode the weights of a product in C: packed codes where these are smaller, else floats."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from quantal._export.graph.steps import Floats, Listed, Product

SIGNS = "signs"
"""The name of the encoding whose products are additions and subtractions."""
_SIGNED = {-1.0: "-number", 0.0: "0.0f", 1.0: "number"}
"""The C expressions that are `number` times the key, without a multiplication."""


class Encoding(NamedTuple):
    """An encoding says how the weights of a product are stored and computed with.

    Attributes:
        name: The kind, as it stands in the name of the C function.
        bits: Bits of a code; 0 where weights are floats.
        weights: Codes, or floats with the scale in them; shape (outputs, inputs).
        lists: The numbers of the codes, shape (1 or outputs, K), where they are looked up.
        scale: The factors of the sums, shape (1 or outputs, 1), or None.
        step: C that adds the product of `number` and weight `i` to `sum`.
        weight: The C expression of the number that the code `@code@` stands for; empty for floats.
    """

    name: str
    bits: int
    weights: NDArray[Any]
    lists: Floats | None
    scale: Floats | None
    step: str
    weight: str = ""

    @property
    def bytes(self) -> int:
        """The bytes of codes, lists and scales."""
        numbers = sum(rows.size for rows in (self.lists, self.scale) if rows is not None)
        return pack_codes(self.weights, self.bits).size + 4 * numbers


def encode(product: Product) -> Encoding:
    """Return the encoding of a product's weights that takes fewer bytes."""
    scale = product.scale[:, None]
    if isinstance(product.weights, Listed):
        numbers = product.weights.numbers
        coded = _coded(product.weights, scale)
        if coded.bytes < 4 * numbers.size:
            return coded
    else:
        numbers = product.weights
    return Encoding("floats", 0, numbers * scale, None, None, "sum += weights[i] * number;")


def pack_codes(codes: NDArray[Any], bits: int) -> NDArray[np.uint8]:
    """Return codes of so many bits one after the other, the lowest bit first.

    >>> pack_codes(np.array([1, 2, 3]), 2)
    array([57], dtype=uint8)
    """
    digits = (codes.reshape(-1, 1) >> np.arange(bits)) & 1
    packed = np.packbits(digits.astype(np.uint8), bitorder="little")
    # A code that begins in the last byte is read together with bytes after it.
    return np.pad(packed, (0, _bytes_read(bits) - 1))


def decoding(bits: int) -> str:
    """Return the C expression of code number `i` in the array `codes` of packed codes.

    >>> decoding(2)
    '(codes[i / 4] >> (i % 4 * 2)) & 3'
    """
    per_byte, mask = 8 // bits, 2**bits - 1
    if bits == 8:
        return "codes[i]"
    if 8 % bits == 0:
        return f"(codes[i / {per_byte}] >> (i % {per_byte} * {bits})) & {mask}"
    first, *others = (f"codes[i * {bits} / 8 + {index}]" for index in range(_bytes_read(bits)))
    window = " | ".join([first, *(f"(uint32_t){b} << {8 * n}" for n, b in enumerate(others, 1))])
    return f"(({window}) >> (i * {bits} % 8)) & {mask}"


def _bytes_read(bits: int) -> int:
    """Return the number of bytes to read for one code, at any bit offset."""
    return 1 if 8 % bits == 0 else -(-(7 + bits) // 8)


def _coded(weights: Listed, scale: Floats) -> Encoding:
    """Encode weights as codes of the values that occur, in ascending order."""
    codes, lists = _ascending(weights)
    bits = max((lists.shape[1] - 1).bit_length(), 1)
    largest = np.abs(lists).max(axis=1, keepdims=True)
    units = {tuple(row) for row in (lists / np.where(largest > 0, largest, 1)).tolist()}
    unit = units.pop()
    if not units and set(unit) <= set(_SIGNED):
        # A table, since processors mispredict branches that depend on codes.
        step = f"const float signed_number[] = {{{', '.join(_SIGNED[u] for u in unit)}}};"
        step += "\n                    sum += signed_number[@code@];"
        weight = _sign_of_code(unit)
        return Encoding(SIGNS, bits, codes, None, _shared(scale * largest), step, weight)
    if len(lists) > 1 or (scale == scale[0]).all():
        scale, lists = np.ones((1, 1)), lists * (scale if len(lists) > 1 else scale[:1])
    step = "sum += values[(uint32_t)(o * list_step) + @code@] * number;"
    return Encoding("listed", bits, codes, lists, _shared(scale), step, "values[@code@]")


def _sign_of_code(unit: tuple[float, ...]) -> str:
    """Return the C expression of a code's number: signs, and 0, in ascending order.

    >>> _sign_of_code((-1.0, 0.0, 1.0)), _sign_of_code((-1.0, 1.0))
    ('(float)((int32_t)(@code@) - 1)', '(float)(2 * (int32_t)(@code@) - 1)')
    """
    first = int(unit[0])
    factor = "2 * " if unit == (-1.0, 1.0) else ""
    start = f" {'-' if first < 0 else '+'} {abs(first)}" if first else ""
    return f"(float)({factor}(int32_t)(@code@){start})"


def _ascending(weights: Listed) -> tuple[NDArray[Any], Floats]:
    """Return codes of the values that occur, and these values in ascending order."""
    used, codes = np.unique(weights.codes, return_inverse=True)
    lists = weights.lists[:, used]
    order = np.argsort(lists, axis=1, kind="stable")
    ranks = np.broadcast_to(np.argsort(order, axis=1), (len(weights.codes), len(used)))
    codes = np.take_along_axis(ranks, codes.reshape(weights.codes.shape), axis=1)
    return codes, np.take_along_axis(lists, order, axis=1)


def _shared(scale: Floats) -> Floats | None:
    """Return factors as one where they are equal, and as None where they are 1."""
    if (scale != scale[0]).any():
        return scale
    return None if scale[0] == 1 else scale[:1]
