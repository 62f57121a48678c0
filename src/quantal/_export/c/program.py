"""Write a model as C source and header."""

import dataclasses
import functools
import math
import pathlib
import re
import zlib
from collections.abc import Sequence

import keras
import numpy as np

from quantal._export.c.calls import calls_of
from quantal._export.c.definitions import Definitions
from quantal._export.c.memory import names_of, plan
from quantal._export.c.text import filled, names_in_c, template
from quantal._export.c.vectors import Vectors, check_program, samples_of_vectors
from quantal._export.graph.reader import read_graph
from quantal._export.graph.steps import Graph, Shape
from quantal._export.object_size import object_size
from quantal._export.operations import Operations
from quantal._export.report import Report
from quantal._export.target import Samples, Written


def write_c(model: keras.Model, path: pathlib.Path) -> Written:
    """Write a model as C source and header: `void net_predict(const float *, float *)`.

    It computes one sample in float32, as a float32 model does in inference, to rounding: a
    graph of the layers that docs/export.md lists, with or without Discrete around them, with
    branches, shared layers, and models in models. Samples lie as in NumPy: channels last, the
    last axis running fastest. Several inputs and outputs are arguments in the model's order:
    `net_predict(input_1, input_2, output_1, output_2)`, with `NET_INPUT_1_SIZE` and so on.
    The header has the macros `NET_INPUT_SIZE`, `NET_OUTPUT_SIZE` (floats),
    `NET_WEIGHT_BYTES` (the constant arrays), `NET_ID` (the source
    refuses another model's header) and `NET_BUFFER_BYTES` (memory between
    layers); there is no other memory, so calls must not run at the same time. It needs
    a C99 compiler and the standard headers stdint.h, string.h and math.h, each only
    where it is used.

    | weights | stored | computed |
    |---|---|---|
    | on `[-v, v]`, `[-v, 0, v]`, `[0, v]` | codes | with ±1 and 0; once times `v` |
    | on other lists | codes, and the list as floats | with the value that is looked up |
    | on lists or scales that change within an output | floats | by multiplying |
    | where codes and list would not be smaller | floats | by multiplying |
    | not on a list | floats | by multiplying |

    Codes of one output at a time are unpacked into floats, which serve all positions of a
    convolution, or 32 positions and more; they lie in the memory between layers (those of a layer
    with a single position on the stack, 32 at a time). Without a floating-point unit, or where
    `NET_WITHOUT_PRODUCTS` is defined, ±1 and 0 are not multiplied with, but added and subtracted.

    A code takes `ceil(log2 K)` bits for the `K` values that occur, so that it is decoded
    without division. A scale for each output, and batch normalization behind a layer
    without activation, cost a float for each output. The same model gives the same bytes.

    Args:
        model: A built Sequential or functional model with a fixed input shape.
        path: The source file, `net.c`; the header `net.h` is written next to it, and
            `net_check.c`, a program that checks the network on samples, where `export` gets
            `inputs`. The names in C begin with the file's, in letters, digits and `_`.

    Raises:
        TypeError: It is no Keras model or layer.
        ValueError: It is not built, is no such graph or has another layer (the message
            names it and the target that holds it); a number in it is not finite; or the
            file's name cannot stand in C.
    """
    header, name = names_in_c(path)
    program = _Program(read_graph(model, ".c"))
    path.write_bytes(program.source(name, header.name).encode())
    header.write_bytes(program.header(name).encode())

    def finish(report: Report, samples: Samples | None) -> Report:
        return _finished(report, path, program.operations, samples)

    return Written([path, header], finish=finish)


def _finished(
    report: Report, path: pathlib.Path, operations: Operations, samples: Samples | None
) -> Report:
    """Return a report that says what the program takes, with test vectors of a user's samples.

    The vectors stand beside the source, in `net_check.c`.
    """
    remarks = [report.remark] if report.remark else []
    remarks.append(f"a sample takes {operations}")
    size = object_size(path)
    if size is not None:
        remarks.append(f"compiled here with -Os: {size}")
    paths = report.paths
    if samples is not None:
        vectors = path.with_name(f"{path.stem}_check.c")
        vectors.write_text(_vectors(path, samples, report.bound or 0.0), encoding="utf-8")
        paths = [*paths, vectors]
    return dataclasses.replace(report, paths=paths, remark="\n".join(remarks))


def _vectors(path: pathlib.Path, samples: Samples, bound: float) -> str:
    """Return a program that checks the first samples, to the bound that their check had."""
    header, name = names_in_c(path)
    count = samples_of_vectors(sum(array[0].size for array in samples.inputs))
    count = min(count, *map(len, samples.inputs))
    inputs, outputs = (
        [Vectors("float", array[:count].reshape(count, -1).astype(np.float32)) for array in arrays]
        for arrays in samples
    )
    size = max(float(np.sqrt(np.mean(np.square(array)))) for array in samples.outputs)
    return check_program(header.name, name, inputs, outputs, bound * (size or 1.0))


class _Program:
    """A program holds the definitions, the memory and the calls that compute a graph."""

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self._definitions = Definitions()
        self._memory = plan(graph)
        locations = self._memory.locations
        self._calls = [
            call
            for index, node in enumerate(graph.nodes)
            for call in calls_of(
                self._definitions,
                node.step,
                [locations[source] for source in node.sources],
                locations[graph.value_of(index)],
                self._memory.scratch[index],
            )
        ]
        self._calls += [
            f"memcpy({target}, {source}, {size} * sizeof(float));"
            for target, source, size in self._memory.copies
        ]

    @property
    def operations(self) -> Operations:
        """What a sample takes."""
        return self._definitions.operations

    def source(self, name: str, header: str) -> str:
        """Return the source text.

        Args:
            name: The beginning of the names in C.
            header: The header's file name.
        """
        text = self._text(name)
        includes = [f"#include <{file}>" for file, words in _USES.items() if re.search(words, text)]
        check = filled(template("check.c"), NAME=name.upper(), header=header, id=self.id)
        return "\n".join([f'#include "{header}"', *includes, "", check, text])

    def _text(self, name: str) -> str:
        """Return the definitions of the source."""
        calls = "".join(f"    {call}\n" for call in self._calls)
        size = self._memory.size
        parts = [
            *self._definitions.texts(),
            f"static float memory[{size}];" if size else "",
            f"{self._signature(name)}\n{{\n{calls}}}\n",
        ]
        return filled("\n\n".join(part for part in parts if part), NAME=name.upper())

    def _signature(self, name: str) -> str:
        """Return the function that computes a sample, as C declares it."""
        inputs = names_of("input", len(self._graph.inputs))
        outputs = names_of("output", len(self._graph.outputs))
        arguments = [f"const float *{name}" for name in inputs]
        arguments += [f"float *{name}" for name in outputs]
        return f"void {name}_predict({', '.join(arguments)})"

    @functools.cached_property
    def id(self) -> str:
        """A number in C that differs where the numbers or the layers of two programs differ."""
        return f"0x{zlib.crc32(self._text('net').encode()):08x}"

    def header(self, name: str) -> str:
        """Return the header's text, for the beginning of the names in C."""
        shapes = [output.shape for output in self._graph.outputs]
        sizes = [
            *_size_macros(f"{name.upper()}_INPUT", self._graph.inputs),
            *_size_macros(f"{name.upper()}_OUTPUT", shapes),
        ]
        several = len(self._graph.inputs) + len(shapes) > 2
        return filled(
            template("header.h"),
            name=name,
            NAME=name.upper(),
            id=self.id,
            sizes="\n".join(sizes),
            arrays="Inputs and outputs do" if several else "Input and output do",
            weights=str(self._definitions.array_bytes),
            buffers=str(4 * self._memory.size),
            signature=self._signature(name),
        )


def _size_macros(name: str, shapes: Sequence[Shape]) -> list[str]:
    """Return a macro for the size of each input, or of each output."""
    names = [f"{name}_SIZE"]
    if len(shapes) > 1:
        names = [f"{name}_{index + 1}_SIZE" for index in range(len(shapes))]
    return [
        f"#define {name} {math.prod(shape)} /* floats, of the shape {shape} */"
        for name, shape in zip(names, shapes, strict=True)
    ]


_USES = {
    "math.h": r"\b(expf|expm1f|erfcf|fabsf|log1pf|logf|sqrtf|tanhf)\(",
    "stdint.h": r"\buint",
    "string.h": r"\bmemcpy\(",
}
"""Each header is included where one of these words stands in the source."""
