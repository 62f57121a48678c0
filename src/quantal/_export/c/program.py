"""Write a model as C source and header."""

import functools
import math
import pathlib
import re
import zlib
from typing import NamedTuple

import keras
import numpy as np

from quantal._export.c.definitions import Definitions
from quantal._export.c.encoding import decoding, encode, pack_codes
from quantal._export.c.text import filled, literal, template
from quantal._export.chain.reader import read_chain
from quantal._export.chain.steps import Chain, Function, Pool, Product, Softmax, Step
from quantal._export.target import Written


def write_c(model: keras.Model, path: pathlib.Path) -> Written:
    """Write a model as C source and header: `void net_predict(const float *, float *)`.

    It computes one sample in float32, as a float32 model does in inference, to rounding: a
    chain of Dense, Conv1D, Conv2D and depthwise convolutions, pooling, activations,
    batch normalization, rescaling and LearnableMultiplier, with or without Discrete
    around them. Samples lie as in NumPy: channels last, the last axis running fastest.
    The header has the macros `NET_INPUT_SIZE`, `NET_OUTPUT_SIZE` (floats),
    `NET_WEIGHT_BYTES` (the constant arrays), `NET_ID` (the source
    refuses another model's header) and `NET_BUFFER_BYTES` (memory between
    layers); there is no other memory, so calls must not run at the same time. It needs
    a C99 compiler and the standard headers stdint.h, string.h and math.h, each only
    where it is used.

    | weights | stored | computed |
    |---|---|---|
    | on `[-v, v]`, `[-v, 0, v]`, `[0, v]` | codes | by adding and subtracting; once times `v` |
    | on other lists | codes, and the list as floats | by looking the value up |
    | on lists or scales that change within an output | floats | by multiplying |
    | where codes and list would not be smaller | floats | by multiplying |
    | not on a list | floats | by multiplying |

    A code takes `ceil(log2 K)` bits for the `K` values that occur, so that it is decoded
    without division. A scale for each output, and batch normalization behind a layer
    without activation, cost a float for each output. The same model gives the same bytes.

    Args:
        model: A built Sequential or functional model without branches and with a fixed
            input shape.
        path: The source file, `net.c`; the header `net.h` is written next to it. The
            names in C begin with the file's, in letters, digits and `_`.

    Raises:
        TypeError: It is no Keras model or layer.
        ValueError: It is not built, is no such chain or has another layer (the message
            names it and the target that holds it); a number in it is not finite; or the
            file's name cannot stand in C.
    """
    header = path.with_suffix(".h")
    if re.search(r'["\\?\x00-\x1f\x7f\ud800-\udfff]', header.name):
        raise ValueError(
            f"The file is called {path.name!r}. Expected a name that a C source can include, "
            'without ", \\, ? and control characters. Rename it.'
        )
    name = re.sub(r"\W", "_", path.stem, flags=re.ASCII)
    name = name if name[:1].isalpha() else f"model_{name}"
    program = _Program(read_chain(model, ".c"))
    path.write_bytes(program.source(name, header.name).encode())
    header.write_bytes(program.header(name).encode())
    return Written([path, header])


class _Program:
    """A program holds the definitions, buffers and calls that compute a chain."""

    def __init__(self, chain: Chain) -> None:
        self._chain = chain
        self._definitions = Definitions()
        self._memory = _memory_of(chain.steps)
        self._calls = [
            f"{function}({', '.join([*arguments, *buffers])});"
            for step, buffers in zip(chain.steps, self._memory.buffers_of_steps, strict=True)
            for function, *arguments in [self._function_of(step)]
        ] or [f"memcpy(output, input, {math.prod(chain.input_shape)} * sizeof(float));"]

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
        sizes = self._memory.sizes
        parts = [
            *self._definitions.texts(),
            "\n".join(f"static float {buffer}[{size}];" for buffer, size in sizes.items()),
            f"void {name}_predict(const float *input, float *output)\n{{\n{calls}}}\n",
        ]
        return "\n\n".join(part for part in parts if part)

    @functools.cached_property
    def id(self) -> str:
        """A number in C that differs where the numbers or the layers of two programs differ."""
        return f"0x{zlib.crc32(self._text('net').encode()):08x}"

    def header(self, name: str) -> str:
        """Return the header's text, for the beginning of the names in C."""
        inputs, outputs = self._chain.input_shape, self._chain.output_shape
        return filled(
            template("header.h"),
            name=name,
            NAME=name.upper(),
            id=self.id,
            inputs=str(math.prod(inputs)),
            outputs=str(math.prod(outputs)),
            input_shape=str(inputs),
            output_shape=str(outputs),
            weights=str(self._definitions.array_bytes),
            buffers=str(4 * sum(self._memory.sizes.values())),
        )

    def _function_of(self, step: Step) -> list[str]:
        """Return the function of a step and its arguments, without the buffers."""
        define = self._definitions
        match step:
            case Product():
                return self._product(step)
            case Pool():
                name = "largest" if step.largest else "mean"
                return [define.function(name, name), define.window(step.window)]
            case Softmax():
                return [define.function("softmax", "softmax"), str(step.size), str(step.row)]
            case Function():
                function = define.function(step.name, "map", value=_expression(step))
                return [function, str(step.size)]

    def _product(self, step: Product) -> list[str]:
        define, encoding = self._definitions, encode(step)
        decode = ""
        arguments: dict[str, str] = {}  # By the parameters in C that they are for.
        if encoding.bits:
            decode = define.function("code", "code", value=decoding(encoding.bits))
            codes = pack_codes(encoding.weights, encoding.bits)
            arguments["const uint8_t *codes"] = define.array("codes", "uint8_t", codes)
        else:
            arguments["const float *weights"] = define.floats("weights", encoding.weights)
        factor = bias = ""
        if encoding.lists is not None:
            lists = define.rows("values", encoding.lists)
            arguments["const float *values, int list_step"] = lists
        if encoding.scale is not None:
            factor = " * scale[o * scale_step]"
            arguments["const float *scale, int scale_step"] = define.rows("scale", encoding.scale)
        if np.any(step.bias):
            bias = " + bias[o]"
            arguments["const float *bias"] = define.floats("bias", step.bias)
        function = define.function(
            f"product_{encoding.name}",
            "product",
            parameters="".join(f", {parameter}" for parameter in arguments),
            step=encoding.step.replace("@code@", f"{decode}(codes, i)"),
            result=f"sum{factor}{bias}",
        )
        return [function, define.window(step.window), *arguments.values()]


class _Memory(NamedTuple):
    """The memory between layers.

    Attributes:
        buffers_of_steps: The buffers that each step reads and writes.
        sizes: The length of each buffer in floats, without input and output.
    """

    buffers_of_steps: list[tuple[str, str]]
    sizes: dict[str, int]


def _memory_of(steps: list[Step]) -> _Memory:
    """Choose the buffer that each step writes.

    Functions and softmax write where they read, unless that is the input; other steps
    write to the other buffer, the last of them to the output.
    """
    moving = [index == 0 or isinstance(step, Product | Pool) for index, step in enumerate(steps)]
    last = max((index for index, moves in enumerate(moving) if moves), default=0)
    buffers: list[tuple[str, str]] = []
    sizes: dict[str, int] = {}
    read = "input"
    for index, step in enumerate(steps):
        write = read
        if index >= last:
            write = "output"
        elif moving[index]:
            write = "buffer_b" if read == "buffer_a" else "buffer_a"
        if write != "output":
            sizes[write] = max(sizes.get(write, 0), step.size)
        buffers.append((read, write))
        read = write
    return _Memory(buffers, sizes)


def _expression(function: Function) -> str:
    """Return the C expression of a function of the float `v`."""
    if function.name != "relu":
        return EXPRESSIONS[function.name].format(*map(literal, function.numbers))
    slope, threshold, top = function.numbers
    start = literal(threshold)
    text = f"v < {start} ? {f'{literal(slope)} * (v - {start})' if slope else '0.0f'} : v"
    return text if top == math.inf else f"v > {literal(top)} ? {literal(top)} : {text}"


EXPRESSIONS = {
    "sigmoid": "1.0f / (1.0f + expf(-v))",
    "tanh": "tanhf(v)",
    "elu": "v < 0.0f ? {} * expm1f(v) : v",
    "softplus": "v < 0.0f ? log1pf(expf(v)) : v + log1pf(expf(-v))",
    "silu": "v / (1.0f + expf(-v))",
    "hard_sigmoid": "v < -3.0f ? 0.0f : v > 3.0f ? 1.0f : v / 6.0f + 0.5f",
    "exponential": "expf(v)",
}
"""C expressions of the functions of a chain but for `relu`, in the float `v`."""
_USES = {
    "math.h": r"\b(expf|expm1f|log1pf|tanhf)\(",
    "stdint.h": r"\buint",
    "string.h": r"\bmemcpy\(",
}
"""Each header is included where one of these words stands in the source."""
