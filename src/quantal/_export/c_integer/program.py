"""Write an integer network as C source and header."""

import functools
import math
import re
import zlib

from quantal._export.c.memory import names_of
from quantal._export.c.text import filled, literal, template
from quantal._export.c_integer.calls import KernelWriter
from quantal._export.c_integer.definitions import IntegerDefinitions, integer_template
from quantal._export.c_integer.kernels import kernels_of
from quantal._export.c_integer.memory import TYPES, Location, plan
from quantal._export.c_integer.products import UNPACKED
from quantal._export.graph.steps import Shape
from quantal._export.integer.model import IntegerModel
from quantal._export.operations import Operations


class IntegerSource:
    """A source holds the definitions, the memory and the calls that compute an integer network.

    Attributes:
        operations: What a sample takes.
        weight_bytes: The bytes of all constant arrays.
        buffer_bytes: The bytes of the memory between layers.

    Args:
        model: The integer model.
    """

    def __init__(self, model: IntegerModel) -> None:
        self._model = model
        program = self._program = model.program
        self._definitions = IntegerDefinitions()
        kernels = kernels_of(program)
        memory = plan(program, kernels)
        writer = KernelWriter(self._definitions, program, memory)
        written = [writer.written(kernel) for kernel in kernels]
        self.operations = sum((each.operations for each in written), Operations())
        self._calls = [call for each in written for call in each.calls]
        names = names_of("output", len(program.outputs))
        self._calls += [
            writer.copy(value, Location(names[index], "int32_t"))
            for index, value in memory.copies.items()
        ]
        words = max((each.words for each in written), default=0)
        self._memory = {name: (f"int{name.split('_')[1]}_t", n) for name, n in memory.sizes.items()}
        if words:
            self._memory["sign_bits"] = "uint32_t", 2 * words
        sums = max((each.sums for each in written), default=0)
        if sums:
            self._memory["sums_of_steps"] = "int32_t", sums
        unpacked = max((each.unpacked for each in written), default=0)
        if unpacked:
            self._memory[UNPACKED] = "int16_t", unpacked
        self.weight_bytes = self._definitions.array_bytes
        self.buffer_bytes = memory.bytes + 8 * words + 4 * sums + 2 * unpacked

    def source(self, name: str, header: str) -> str:
        """Return the source text.

        Args:
            name: The beginning of the names in C.
            header: The header's file name.
        """
        check = filled(template("check.c"), NAME=name.upper(), header=header, id=self.id)
        return "\n".join([f'#include "{header}"', "", check, _WIDE_ENOUGH, self._text(name)])

    def header(self, name: str) -> str:
        """Return the header's text, for the beginning of the names in C."""
        return filled(
            integer_template("header.h"),
            name=name,
            NAME=name.upper(),
            id=self.id,
            macros="\n".join(self._macros(name.upper())),
            weights=str(self.weight_bytes),
            buffers=str(self.buffer_bytes),
            operations=str(self.operations),
            signature=self._signature(name),
        )

    @functools.cached_property
    def id(self) -> str:
        """A number in C that differs where the numbers or the layers of two programs differ."""
        return f"0x{zlib.crc32(self._text('net').encode()):08x}"

    def input_types(self) -> list[str]:
        """Return the types of the inputs in C."""
        return [TYPES[each.bounds.dtype.name] for each in self._program.inputs]

    def _text(self, name: str) -> str:
        """Return the definitions of the source."""
        memory = [f"static {kind} {array}[{n}];" for array, (kind, n) in self._memory.items()]
        calls = "".join(f"    {call}\n" for call in self._calls)
        arrays: list[str] = []
        functions: list[str] = []
        for text in self._definitions.texts():
            (functions if re.search(r"\)\n\{", text) else arrays).append(text)
        parts = [*arrays, "\n".join(memory), *functions]
        parts.append(f"{self._signature(name)}\n{{\n{calls}}}\n")
        text = "\n\n".join(part for part in parts if part)
        return filled(text, NAME=name.upper())

    def _signature(self, name: str) -> str:
        """Return the function that computes a sample, as C declares it."""
        inputs = names_of("input", len(self._program.inputs))
        outputs = names_of("output", len(self._program.outputs))
        arguments = [
            f"const {kind} *{each}" for kind, each in zip(self.input_types(), inputs, strict=True)
        ]
        arguments += [f"int32_t *{each}" for each in outputs]
        return f"void {name}_predict({', '.join(arguments)})"

    def _macros(self, name: str) -> list[str]:
        """Return the macros of sizes and scales."""
        lines = []
        for end, each in zip(
            names_of("INPUT", len(self._program.inputs)), self._program.inputs, strict=True
        ):
            low, high = each.bounds
            lines.append(_size(f"{name}_{end}", each.shape, f"{each.kind} from {low} to {high}"))
        outputs = zip(
            names_of("OUTPUT", len(self._program.outputs)),
            self._program.outputs,
            self._model.scales,
            strict=True,
        )
        for end, output, scale in outputs:
            lines.append(_size(f"{name}_{end}", output.shape, "integers"))
            lines.append(
                f"#define {name}_{end}_SCALE {literal(scale)} /* an output of 1 stands for it */"
            )
        return lines


_WIDE_ENOUGH = """\
/* Indices are of the type int, which has to have 32 bits. */
typedef char int_has_32_bits[sizeof(int) >= 4 ? 1 : -1];
"""


def _size(name: str, shape: Shape, what: str) -> str:
    return f"#define {name}_SIZE {math.prod(shape)} /* {what}, of the shape {shape} */"
