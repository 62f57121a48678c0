"""C99 without allocation: weights as packed codes, decoded where they are used."""

import math
import pathlib
import re
from typing import Any, NamedTuple

import keras
import numpy as np
from numpy.typing import NDArray

from quantal._export.arrays import Path
from quantal._export.chain import (
    Chain,
    Floats,
    Function,
    Listed,
    Pool,
    Product,
    Softmax,
    Step,
    Window,
    chain_of,
)
from quantal._storage.atomic import replace_file


def write_c(model: keras.Model, path: Path) -> list[pathlib.Path]:
    """The model as C source and header: `void net_predict(const float *, float *)`.

    It computes one sample in float32, as a float32 model does in inference, to rounding: a
    chain of Dense, Conv1D, Conv2D and depthwise convolutions, pooling, activations,
    batch normalization, rescaling and LearnableMultiplier, with or without Discrete
    around them. Samples lie as in NumPy: channels last, the last axis running fastest.
    The header has the macros `NET_INPUT_SIZE`, `NET_OUTPUT_SIZE` (floats),
    `NET_WEIGHT_BYTES` (the constant arrays) and `NET_BUFFER_BYTES` (memory between
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

    A code takes `ceil(log2 K)` bits for the `K` values that occur, so that it is found
    without division. A scale for each output, and batch normalization behind a layer
    without activation, cost a float for each output. The same model gives the same bytes.

    Args:
        model: A built Sequential or functional model without branches and with a fixed
            input shape.
        path: The source file, `net.c`; the header `net.h` is written beside it. The
            names in C begin with the file's, in letters, digits and `_`.

    Returns:
        The files written: source and header.

    Raises:
        TypeError: It is no Keras model or layer.
        ValueError: It is not built, is no such chain or has another layer (the message
            names it and the target that holds it); a number in it is not finite; or the
            file's name cannot stand in C.
    """
    source = pathlib.Path(path)
    header = source.with_suffix(".h")
    if re.search(r'["\\?\x00-\x1f]', header.name):
        raise ValueError(
            f"The file is called {source.name!r}. Expected a name that a C source can include, "
            'without ", \\, ? and control characters. Rename it.'
        )
    name = re.sub(r"\W", "_", source.stem, flags=re.ASCII)
    name = name if name[:1].isalpha() else f"model_{name}"
    texts = _Program(chain_of(model, ".c")).written(name, header.name)
    for place, text in zip((source, header), texts, strict=True):
        with replace_file(place) as file:
            file.write(text.encode())
    return [source, header]


class _Program:
    """A chain as C: its arrays, windows and functions, each of them once, and its calls."""

    def __init__(self, chain: Chain) -> None:
        self._chain = chain
        self._bytes = 0
        self._known: dict[Any, str] = {}
        self._texts: dict[str, list[str]] = {"array": [], "window": [], "function": []}
        places, self._buffers = _placed(chain.steps)
        self._calls = [
            f"{function}({', '.join([*arguments, *place])});"
            for step, place in zip(chain.steps, places, strict=True)
            for function, *arguments in [self._step(step)]
        ] or [f"memcpy(output, input, {math.prod(chain.input_shape)} * sizeof(float));"]

    def written(self, name: str, header: str) -> tuple[str, str]:
        """Source and header, for the beginning of the names in them and the header's file."""
        calls = "".join(f"    {call}\n" for call in self._calls)
        buffers = [f"static float {place}[{size}];" for place, size in self._buffers.items()]
        parts = [
            *self._texts["array"],
            _WINDOW if self._texts["window"] else "",
            *self._texts["window"],
            *self._texts["function"],
            "\n".join(buffers),
            f"void {name}_predict(const float *input, float *output)\n{{\n{calls}}}\n",
        ]
        text = "\n\n".join(part for part in parts if part)
        includes = [f'#include "{header}"']
        includes += [f"#include <{file}>" for file, used in _USES.items() if re.search(used, text)]
        inputs, outputs = self._chain.input_shape, self._chain.output_shape
        about = _HEADER.format(
            name=name,
            NAME=name.upper(),
            inputs=math.prod(inputs),
            outputs=math.prod(outputs),
            input_shape=inputs,
            output_shape=outputs,
            weights=self._bytes,
            buffers=4 * sum(self._buffers.values()),
        )
        return "\n".join([*includes, "", text]), about

    def _step(self, step: Step) -> list[str]:
        """The function of a step and its arguments, but for where it reads and writes."""
        match step:
            case Product():
                return self._product(step)
            case Pool():
                name, text = ("largest", _LARGEST) if step.largest else ("mean", _MEAN)
                return [self._function(name, text), self._window(step.window)]
            case Softmax():
                return [self._function("softmax", _SOFTMAX), str(step.size), str(step.row)]
            case Function():
                function = self._function(step.name, _MAP, value=_expression(step))
                return [function, str(step.size)]

    def _product(self, step: Product) -> list[str]:
        stored = _stored(step)
        bias = step.bias if np.any(step.bias) else None
        decode = ""
        given: dict[str, str] = {}  # Parameters in C, with their arguments.
        if stored.bits:
            decode = self._function("code", _CODE, value=_decoding(stored.bits))
            codes = _packed(stored.weights, stored.bits)
            given["const uint8_t *codes"] = self._array("codes", "uint8_t", codes)
        else:
            given["const float *weights"] = self._floats("weights", stored.weights)
        if stored.lists is not None:
            given["const float *values, int list_step"] = self._rows("values", stored.lists)
        if stored.scale is not None:
            given["const float *scale, int scale_step"] = self._rows("scale", stored.scale)
        if bias is not None:
            given["const float *bias"] = self._floats("bias", bias)
        factor = "" if stored.scale is None else " * scale[o * scale_step]"
        function = self._function(
            f"product_{stored.name}",
            _PRODUCT,
            given="".join(f", {parameter}" for parameter in given),
            step=stored.step.replace("@code@", f"{decode}(codes, i)"),
            result=f"sum{factor}{'' if bias is None else ' + bias[o]'}",
        )
        return [function, self._window(step.window), *given.values()]

    def _window(self, window: Window) -> str:
        fields = [f".{field} = {number}," for field, number in window._asdict().items()]
        lines = [" ".join(fields[place : place + 3]) for place in range(0, len(fields), 3)]
        text = "\n    ".join(["static const window @name@ = {", *lines]) + "\n};"
        return "&" + self._named("window", "window", window, text)

    def _function(self, name: str, text: str, **parts: str) -> str:
        text = _filled(text, **parts)
        return self._named("function", name, text, text)

    def _rows(self, name: str, rows: Floats) -> str:
        """Rows of numbers, and how far it is from one output's to the next's: 0 for one row."""
        return f"{self._floats(name, rows)}, {rows.shape[1] if len(rows) > 1 else 0}"

    def _floats(self, name: str, numbers: NDArray[Any]) -> str:
        with np.errstate(over="ignore"):
            rounded = numbers.astype(np.float32).ravel()
        if not np.isfinite(rounded).all():
            raise ValueError(
                f"The model has {rounded[~np.isfinite(rounded)][0]} among its {name}, scales and "
                "batch normalization multiplied in. Expected finite float32 numbers. Train it "
                "again, at a smaller rate."
            )
        return self._array(name, "float", rounded)

    def _array(self, name: str, kind: str, numbers: NDArray[Any]) -> str:
        key = kind, numbers.tobytes()
        if key not in self._known:
            self._bytes += numbers.nbytes
        text = f"static const {kind} @name@[{numbers.size}] = {{\n{_initializers(numbers)}\n}};"
        return self._named("array", name, key, text)

    def _named(self, kind: str, name: str, key: Any, text: str) -> str:
        """The name in C of what the text defines; it is defined when first asked for."""
        if key not in self._known:
            self._known[key] = f"{name}_{len(self._texts[kind]) + 1}"
            self._texts[kind].append(_filled(text, name=self._known[key]))
        return self._known[key]


class _Stored(NamedTuple):
    """How the weights of a product are stored and computed with.

    Attributes:
        name: What they are.
        bits: Bits of a code; 0 where weights are floats.
        weights: Codes, or floats with the scale in them; shape (outputs, inputs).
        lists: The numbers of the codes, shape (1 or outputs, K), where they are looked up.
        scale: The factors of the sums, shape (1 or outputs, 1), or None.
        step: C: adds the product of `number` and weight `i` to `sum`.
    """

    name: str
    bits: int
    weights: NDArray[Any]
    lists: Floats | None
    scale: Floats | None
    step: str

    @property
    def bytes(self) -> int:
        """What codes, lists and scales take."""
        numbers = sum(rows.size for rows in (self.lists, self.scale) if rows is not None)
        return _packed(self.weights, self.bits).size + 4 * numbers


_SIGNED = {-1.0: "-number", 0.0: "0.0f", 1.0: "number"}
"""C: `number` times these, without a multiplication."""


def _stored(product: Product) -> _Stored:
    """The weights as codes where these are smaller, else as floats."""
    scale = product.scale[:, None]
    if isinstance(product.weights, Listed):
        numbers = product.weights.numbers
        coded = _coded(product.weights, scale)
        if coded.bytes < 4 * numbers.size:
            return coded
    else:
        numbers = product.weights
    return _Stored("floats", 0, numbers * scale, None, None, "sum += weights[i] * number;")


def _coded(weights: Listed, scale: Floats) -> _Stored:
    """Codes of the values that occur, in ascending order."""
    used, codes = np.unique(weights.codes, return_inverse=True)
    lists = weights.lists[:, used]
    order = np.argsort(lists, axis=1, kind="stable")
    lists = np.take_along_axis(lists, order, axis=1)
    ranks = np.broadcast_to(np.argsort(order, axis=1), (len(scale), len(used)))
    codes = np.take_along_axis(ranks, codes.reshape(weights.codes.shape), axis=1)
    bits = max((len(used) - 1).bit_length(), 1)
    largest = np.abs(lists).max(axis=1, keepdims=True)
    units = {tuple(row) for row in (lists / np.where(largest > 0, largest, 1)).tolist()}
    unit = units.pop()
    if not units and set(unit) <= set(_SIGNED):
        # Looked up: processors guess wrong where codes decide on branches.
        step = f"const float signed_number[] = {{{', '.join(_SIGNED[u] for u in unit)}}};"
        step += "\n                    sum += signed_number[@code@];"
        return _Stored("signs", bits, codes, None, _shared(scale * largest), step)
    if len(lists) > 1 or (scale == scale[0]).all():
        scale, lists = np.ones((1, 1)), lists * (scale if len(lists) > 1 else scale[:1])
    step = "sum += values[o * list_step + @code@] * number;"
    return _Stored("listed", bits, codes, lists, _shared(scale), step)


def _shared(scale: Floats) -> Floats | None:
    """Factors as one where they are equal, as None where they are 1."""
    if (scale != scale[0]).any():
        return scale
    return None if scale[0] == 1 else scale[:1]


def _packed(codes: NDArray[Any], bits: int) -> NDArray[np.uint8]:
    """Codes of so many bits one behind the other, the lowest bit first."""
    digits = (codes.reshape(-1, 1) >> np.arange(bits)) & 1
    packed = np.packbits(digits.astype(np.uint8), bitorder="little")
    # What is read together with a code that begins in the last byte.
    return np.pad(packed, (0, _bytes_read(bits) - 1))


def _bytes_read(bits: int) -> int:
    """How many bytes hold a code of so many bits, wherever it begins."""
    return 1 if 8 % bits == 0 else -(-(7 + bits) // 8)


def _decoding(bits: int) -> str:
    """C: code number `i` of packed codes."""
    each, mask = 8 // bits, 2**bits - 1
    if bits == 8:
        return "codes[i]"
    if 8 % bits == 0:
        return f"(codes[i / {each}] >> (i % {each} * {bits})) & {mask}"
    at, *behind = (f"codes[i * {bits} / 8 + {place}]" for place in range(_bytes_read(bits)))
    window = " | ".join([at, *(f"(uint32_t){b} << {8 * n}" for n, b in enumerate(behind, 1))])
    return f"(({window}) >> (i * {bits} % 8)) & {mask}"


def _expression(function: Function) -> str:
    """C: a function of the float `v`."""
    if function.name != "relu":
        return _EXPRESSIONS[function.name].format(*map(_literal, function.numbers))
    slope, threshold, top = function.numbers
    start = _literal(threshold)
    text = f"v < {start} ? {f'{_literal(slope)} * (v - {start})' if slope else '0.0f'} : v"
    return text if top == math.inf else f"v > {_literal(top)} ? {_literal(top)} : {text}"


def _placed(steps: list[Step]) -> tuple[list[tuple[str, str]], dict[str, int]]:
    """Where each step reads and writes, and the sizes of the buffers in floats.

    Functions and softmax write where they read, unless that is the input; other steps
    write to the other buffer, the last of them to the output.
    """
    moving = [place == 0 or isinstance(step, Product | Pool) for place, step in enumerate(steps)]
    last = max((place for place, moves in enumerate(moving) if moves), default=0)
    places: list[tuple[str, str]] = []
    sizes: dict[str, int] = {}
    read = "input"
    for place, step in enumerate(steps):
        write = read
        if place >= last:
            write = "output"
        elif moving[place]:
            write = "buffer_b" if read == "buffer_a" else "buffer_a"
        if write != "output":
            sizes[write] = max(sizes.get(write, 0), step.size)
        places.append((read, write))
        read = write
    return places, sizes


def _literal(number: float) -> str:
    """A float constant that C reads back to the bit."""
    text = f"{float(np.float32(number)):.9g}"
    return f"{text}f" if "." in text or "e" in text else f"{text}.0f"


def _initializers(numbers: NDArray[Any], width: int = 96) -> str:
    texts = [_literal(n) if numbers.dtype.kind == "f" else str(n) for n in numbers.tolist()]
    each = width // (max(map(len, texts)) + 2)
    rows = (", ".join(texts[place : place + each]) for place in range(0, len(texts), each))
    return ",\n".join(f"    {row}" for row in rows)


def _filled(text: str, **parts: str) -> str:
    """The text with its places @part@ filled."""
    for part, own in parts.items():
        text = text.replace(f"@{part}@", own)
    return text


_EXPRESSIONS = {
    "sigmoid": "1.0f / (1.0f + expf(-v))",
    "tanh": "tanhf(v)",
    "elu": "v < 0.0f ? {} * expm1f(v) : v",
    "softplus": "v < 0.0f ? log1pf(expf(v)) : v + log1pf(expf(-v))",
    "silu": "v / (1.0f + expf(-v))",
    "hard_sigmoid": "v < -3.0f ? 0.0f : v > 3.0f ? 1.0f : v / 6.0f + 0.5f",
    "exponential": "expf(v)",
}
_USES = {
    "math.h": r"\b(expf|expm1f|log1pf|tanhf)\(",
    "stdint.h": r"\buint",
    "string.h": r"\bmemcpy\(",
}
"""Which words need which header."""

_HEADER = """\
/* A neural network and its weights, written by quantal. */
#ifndef {NAME}_H
#define {NAME}_H

#define {NAME}_INPUT_SIZE {inputs} /* floats, of the shape {input_shape} */
#define {NAME}_OUTPUT_SIZE {outputs} /* floats, of the shape {output_shape} */
#define {NAME}_WEIGHT_BYTES {weights} /* of the constant arrays */
#define {NAME}_BUFFER_BYTES {buffers} /* of the memory between layers */

#ifdef __cplusplus
extern "C" {{
#endif

/* One sample, the last axis of its shape running fastest. Input and output do not overlap.
   Calls must not run at the same time: they share the memory between layers. */
void {name}_predict(const float *input, float *output);

#ifdef __cplusplus
}}
#endif

#endif
"""

_WINDOW = """\
/* Which inputs each output sees; top and left are the padding before the first input. */
typedef struct {
    int in_height, in_width, in_channels;
    int out_height, out_width, out_channels;
    int kernel_height, kernel_width;
    int stride_y, stride_x;
    int dilation_y, dilation_x;
    int top, left;
    int groups;
} window;"""

_CODE = """\
static uint32_t @name@(const uint8_t *codes, uint32_t i)
{
    return @value@;
}"""

_VISITING = """\
static void @name@(const window *w@given@, const float *input, float *output)
{
@before@    for (int y = 0; y < w->out_height; y++)
    for (int x = 0; x < w->out_width; x++)
    for (int o = 0; o < w->out_channels; o++) {
        @start@
        for (int ky = 0; ky < w->kernel_height; ky++) {
            const int row = y * w->stride_y + ky * w->dilation_y - w->top;
            if (row < 0 || row >= w->in_height) continue;
            for (int kx = 0; kx < w->kernel_width; kx++) {
                const int column = x * w->stride_x + kx * w->dilation_x - w->left;
                if (column < 0 || column >= w->in_width) continue;
                const float *seen = input + (row * w->in_width + column) * w->in_channels;
                @visit@
            }
        }
        *output++ = @result@;
    }
}"""
_PRODUCT = _filled(
    _VISITING,
    before="    const int inputs = w->in_channels / w->groups;\n"
    "    const int outputs = w->out_channels / w->groups;\n",
    start="float sum = 0.0f;",
    visit="""\
const float *from = seen + o / outputs * inputs;
                uint32_t i = (uint32_t)o * w->kernel_height + ky;
                i = (i * w->kernel_width + kx) * inputs;
                for (int c = 0; c < inputs; c++, i++) {
                    const float number = from[c];
                    @step@
                }""",
)
_LARGEST = _filled(
    _VISITING,
    given="",
    before="",
    start="float largest = 0.0f;\n        int count = 0;",
    visit="if (!count++ || seen[o] > largest) largest = seen[o];",
    result="largest",
)
_MEAN = _filled(
    _VISITING,
    given="",
    before="",
    start="float sum = 0.0f;\n        int count = 0;",
    visit="sum += seen[o];\n                count++;",
    result="sum / count",
)

_MAP = """\
static void @name@(int size, const float *input, float *output)
{
    for (int i = 0; i < size; i++) {
        const float v = input[i];
        output[i] = @value@;
    }
}"""

_SOFTMAX = """\
static void @name@(int size, int row, const float *input, float *output)
{
    for (int start = 0; start < size; start += row) {
        const float *x = input + start;
        float *y = output + start, largest = x[0], sum = 0.0f;
        for (int i = 1; i < row; i++)
            if (x[i] > largest) largest = x[i];
        for (int i = 0; i < row; i++) sum += y[i] = expf(x[i] - largest);
        for (int i = 0; i < row; i++) y[i] /= sum;
    }
}"""
