"""Write the calls in C that compute the steps of a graph."""

import math
from collections.abc import Sequence

import numpy as np

from quantal._core.numbers.values import Values
from quantal._export.c.definitions import Definitions
from quantal._export.c.encoding import decoding, encode, pack_codes
from quantal._export.c.text import literal
from quantal._export.graph.steps import (
    Concatenate,
    Elementwise,
    Function,
    Nearest,
    Pad,
    Pool,
    Product,
    Rearrange,
    Repetition,
    Resize,
    Softmax,
    Step,
)


def calls_of(define: Definitions, step: Step, sources: Sequence[str], result: str) -> list[str]:
    """Return the calls that compute a step, and define the functions and arrays that they need.

    Args:
        define: The definitions of the program.
        step: The step.
        sources: C expressions of the arrays that it reads.
        result: That of the array that it writes.
    """
    if isinstance(step, Concatenate):
        return _concatenation(define, step, sources, result)
    arguments = _function_of(define, step)
    function, *others = arguments
    return [f"{function}({', '.join([*others, *sources, result])});"]


def _function_of(define: Definitions, step: Step) -> list[str]:
    """Return the function of a step and its arguments, without the arrays."""
    match step:
        case Product():
            return _product(define, step)
        case Pool():
            name = "largest" if step.largest else "mean"
            return [define.function(name, name), define.window(step.window)]
        case Softmax():
            return [define.function("softmax", "softmax"), str(step.size), str(step.row)]
        case Function():
            function = define.function(step.name, "map", value=_expression(step))
            return [function, str(step.size)]
        case Elementwise():
            return _elementwise(define, step)
        case Pad():
            numbers = [*step.shape, step.top, step.bottom, step.left, step.right]
            return [define.function("pad", "pad"), *map(str, numbers)]
        case Rearrange():
            return [define.function("rearrange", "rearrange"), define.view(step)]
        case Resize():
            numbers = [*step.before, *step.after[:2]]
            return [define.function("resize", "resize"), *map(str, numbers)]
        case Nearest():
            return _nearest(define, step)
    raise TypeError(f"The step is of the class {type(step).__name__}, which has no C.")


def _product(define: Definitions, step: Product) -> list[str]:
    encoding, window = encode(step), step.window
    decode = ""
    arguments: dict[str, str] = {}  # By the parameters in C that they are for.
    is_spread = (window.spread_y, window.spread_x) != (1, 1)
    if is_spread:
        arguments["int spread_y"] = str(window.spread_y)
        arguments["int spread_x"] = str(window.spread_x)
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
    row, column = _SPREAD if is_spread else _DENSE
    function = define.function(
        f"product_{encoding.name}",
        "product",
        parameters="".join(f", {parameter}" for parameter in arguments),
        row=row,
        column=column,
        step=encoding.step.replace("@code@", f"{decode}(codes, i)"),
        result=f"sum{factor}{bias}",
    )
    return [function, define.window(window), *arguments.values()]


_DENSE = (
    """\
const int row = y * w->stride_y + ky * w->dilation_y - w->top;
            if (row < 0 || row >= w->in_height) continue;""",
    """\
const int column = x * w->stride_x + kx * w->dilation_x - w->left;
                if (column < 0 || column >= w->in_width) continue;""",
)
"""C that computes which input a position of the kernel meets, and skips those outside."""
_SPREAD = (
    """\
const int at_y = y * w->stride_y + ky * w->dilation_y - w->top, row = at_y / spread_y;
            if (at_y < 0 || at_y % spread_y || row >= w->in_height) continue;""",
    """\
const int at_x = x * w->stride_x + kx * w->dilation_x - w->left, column = at_x / spread_x;
                if (at_x < 0 || at_x % spread_x || column >= w->in_width) continue;""",
)
"""The same for inputs that lie apart."""


def _elementwise(define: Definitions, step: Elementwise) -> list[str]:
    """Return a function of several arrays, some of which repeat, and its arguments."""
    parameters, numbers, reads = [], [], []
    for index, repetition in enumerate(step.repetitions):
        name = f"from_{index + 1}"
        if repetition == Repetition(1, step.size):
            reads.append(f"{name}[i]")
        elif repetition.period == 1:
            reads.append(f"{name}[0]")
        else:
            parameters += [f"int repeat_{index + 1}", f"int period_{index + 1}"]
            numbers += [repetition.repeat, repetition.period]
            reads.append(f"{name}[i / repeat_{index + 1} % period_{index + 1}]")
    arrays = [f"const float *from_{index + 1}" for index in range(len(reads))]
    operation = _OPERATIONS[step.operation]
    lines = [f"        v = {operation.format(read)};\n" for read in reads[1:]]
    if step.operation == "average":
        lines.append(f"        v /= {literal(len(reads))};\n")
    function = define.function(
        step.operation,
        "elementwise",
        parameters=", ".join(["int size", *parameters, *arrays]),
        first=reads[0],
        others="".join(lines),
    )
    return [function, str(step.size), *map(str, numbers)]


_OPERATIONS = {
    "add": "v + {0}",
    "average": "v + {0}",
    "subtract": "v - {0}",
    "multiply": "v * {0}",
    "divide": "v / {0}",
    "maximum": "v > {0} ? v : {0}",
    "minimum": "v < {0} ? v : {0}",
}
"""C of `v` and the next source."""


def _concatenation(
    define: Definitions, step: Concatenate, sources: Sequence[str], result: str
) -> list[str]:
    """Return a call for each source of a concatenation."""
    function = define.function("put", "put")
    calls, offset = [], 0
    for source, length in zip(sources, step.lengths, strict=True):
        target = f"{result} + {offset}" if offset else result
        numbers = f"{step.count}, {length}, {sum(step.lengths)}"
        calls.append(f"{function}({numbers}, {source}, {target});")
        offset += length
    return calls


def _nearest(define: Definitions, step: Nearest) -> list[str]:
    """Return a function that looks up the nearest level, and its arguments."""
    levels = step.levels.astype(np.float32)
    scaled = not np.all(step.scale == 1)
    arguments = {
        "int levels": str(len(levels)),
        "const float *values": define.floats("values", levels),
        "const float *thresholds": define.floats("thresholds", Values(levels).midpoints),
    }
    if scaled:
        arguments["const float *scale"] = define.floats("scale", step.scale)
        arguments["int period"] = str(len(step.scale))
    function = define.function(
        "nearest",
        "nearest",
        parameters="".join(f", {parameter}" for parameter in arguments),
        unit=" / scale[i % period]" if scaled else "",
        factor=" * scale[i % period]" if scaled else "",
    )
    return [function, str(step.size), *arguments.values()]


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
"""C expressions of the functions of a graph but for `relu`, in the float `v`."""
