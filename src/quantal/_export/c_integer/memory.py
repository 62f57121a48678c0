"""Plan the memory between layers: an array for each size of integers, used again and again."""

from typing import NamedTuple

import numpy as np

from quantal._export.c.memory import Span, names_of, offsets_of
from quantal._export.c_integer.kernels import Kernel
from quantal._export.integer.program import IntegerProgram

TYPES = {"int8": "int8_t", "uint8": "uint8_t", "int16": "int16_t", "int32": "int32_t"}
"""The types in C by those of NumPy."""


class Location(NamedTuple):
    """A location is where a value lies: an expression in C, and the type of its integers."""

    text: str
    type: str


class Memory(NamedTuple):
    """The memory of a program.

    Attributes:
        locations: Where each value lies that a kernel reads or writes.
        sizes: The length of each array, by its name.
        copies: Values that are copied into outputs at the end, by the output's index.
    """

    locations: dict[int, Location]
    sizes: dict[str, int]
    copies: dict[int, int]

    @property
    def bytes(self) -> int:
        """The bytes of all arrays."""
        return sum(int(name.split("_")[1]) // 8 * size for name, size in self.sizes.items())


def plan(program: IntegerProgram, kernels: list[Kernel]) -> Memory:
    """Choose where each value lies.

    A value keeps its part of an array from the kernel that writes it to the last that reads it.
    Values of one size of integers share an array.
    """
    names = names_of("input", len(program.inputs))
    locations = {
        index: Location(name, TYPES[each.bounds.dtype.name])
        for index, (name, each) in enumerate(zip(names, program.inputs, strict=True))
    }
    last_reads: dict[int, int] = {}
    for order, kernel in enumerate(kernels):
        last_reads.update(dict.fromkeys(kernel.sources, order))
    copies: dict[int, int] = {}
    for index, (output, name) in enumerate(
        zip(program.outputs, names_of("output", len(program.outputs)), strict=True)
    ):
        value = output.value
        if value in locations or value in last_reads:
            copies[index] = value
            last_reads[value] = len(kernels)
        else:
            locations[value] = Location(name, "int32_t")
    sizes: dict[str, int] = {}
    for bits in (8, 16, 32):
        spans = {
            kernel.value: Span(
                program.size_of(kernel.value), order, last_reads.get(kernel.value, order)
            )
            for order, kernel in enumerate(kernels)
            if kernel.value not in locations and _bits(program, kernel.value) == bits
        }
        offsets = offsets_of(list(spans.values()))
        for (value, span), offset in zip(spans.items(), offsets, strict=True):
            name = f"memory_{bits}"
            sizes[name] = max(sizes.get(name, 0), offset + span.size)
            locations[value] = _location(program.bounds_of(value).dtype, offset)
    return Memory(locations, sizes, copies)


def _bits(program: IntegerProgram, value: int) -> int:
    return 8 * program.bounds_of(value).dtype.itemsize


def _location(dtype: "np.dtype[np.integer]", start: int) -> Location:
    bits = 8 * dtype.itemsize
    array = f"memory_{bits}" + (f" + {start}" if start else "")
    if dtype == np.uint8:  # The array is of int8_t, which uint8_t may stand for.
        array = f"(uint8_t *)({array})" if start else f"(uint8_t *){array}"
    return Location(array, TYPES[dtype.name])
