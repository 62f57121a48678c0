"""Write the calls in C that compute the steps of a graph."""

import functools
from collections.abc import Sequence

import numpy as np

from quantal._core.numbers.values import Values
from quantal._export.c.counting import operations_of
from quantal._export.c.definitions import Definitions
from quantal._export.c.functions import expression
from quantal._export.c.recurrent import recurrent
from quantal._export.c.text import literal
from quantal._export.c.weights import (
    CWeights,
    is_dense,
    parts_of_product,
    rows_at_once,
    weights_of,
)
from quantal._export.graph.geometry import window_of
from quantal._export.graph.steps import (
    Concatenate,
    Elementwise,
    Function,
    Lookup,
    Nearest,
    Normalize,
    Pad,
    Pool,
    Product,
    Rearrange,
    Recurrent,
    Repetition,
    Resize,
    Slopes,
    Softmax,
    Step,
)
from quantal._export.operations import Operations


def calls_of(
    define: Definitions, step: Step, sources: Sequence[str], result: str, scratch: str
) -> list[str]:
    """Return the calls that compute a step, and define the functions and arrays that they need.

    Args:
        define: The definitions of the program.
        step: The step.
        sources: C expressions of the arrays that it reads.
        result: That of the array that it writes.
        scratch: That of the memory that it needs while it runs; or empty.
    """
    define.count(operations_of(step))
    if isinstance(step, Concatenate):
        return _concatenation(define, step, sources, result)
    if isinstance(step, Recurrent):
        with define.repeated(step.time):
            function = recurrent(define, step, functools.partial(_product_between, define))
        return [f"{function}({sources[0]}, {result}, {scratch});"]
    function, *others = _function_of(define, step, scratch)
    return [f"{function}({', '.join([*others, *sources, result])});"]


def _function_of(define: Definitions, step: Step, scratch: str) -> list[str]:
    """Return the function of a step and its arguments, without the arrays."""
    match step:
        case Product():
            return _product(define, step, scratch)
        case Pool():
            name = "largest" if step.largest else "mean"
            return [define.function(name, name), define.window(step.window)]
        case Softmax():
            name = "log_softmax" if step.log else "softmax"
            return [define.function(name, name), str(step.size), str(step.row)]
        case Function():
            function = define.function(step.name, "map", value=expression(step))
            return [function, str(step.size)]
        case Slopes():
            slopes = define.floats("slopes", step.slopes)
            function = define.function("slope", "slopes")
            return [function, str(step.size), slopes, str(len(step.slopes))]
        case Normalize():
            return _normalize(define, step)
        case Lookup():
            return _lookup(define, step)
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


def _product(define: Definitions, step: Product, scratch: str) -> list[str]:
    window, is_spread = step.window, (step.window.spread_y, step.window.spread_x) != (1, 1)
    weights = weights_of(define, step, unpacks=True)
    arguments = dict(weights.arguments)
    if is_spread:
        arguments["int spread_y"] = str(window.spread_y)
        arguments["int spread_x"] = str(window.spread_x)
    bias = ""
    if np.any(step.bias):
        bias = " + bias[o]"
        arguments["const float *bias"] = define.floats("bias", step.bias)
    define.count(_operations_of_product(step, weights))
    is_single = is_dense(step)
    if weights.unpack and not is_single:
        arguments["float *kernel"] = scratch
    row, column = _SPREAD if is_spread else _DENSE
    function = define.function(
        f"product_dense_{weights.name}" if is_single else f"product_{weights.name}",
        "dense" if is_single else "product",
        parameters="".join(f", {parameter}" for parameter in arguments),
        row=row,
        column=column,
        result=f"sum{weights.factor}{bias}",
        **parts_of_product(weights, step),
    )
    first = [define.window(window), *([] if is_single else [str(rows_at_once(step))])]
    return [function, *first, *arguments.values()]


def _operations_of_product(step: Product, weights: CWeights) -> Operations:
    """Return what a product takes, padding counted as if it were data."""
    window, size = step.window, step.size
    sums = size * window.kernel_height * window.kernel_width * window.in_channels // window.groups
    products = (0 if weights.adds else sums) + (size if weights.factor else 0)
    return Operations(sums + (size if np.any(step.bias) else 0), products=products)


def _product_between(define: Definitions, step: Product, source: str, result: str) -> str:
    """Return the call that computes a product of one position from one array into another."""
    function, *arguments = _product(define, step, "")
    return f"{function}({', '.join([*arguments, source, result])});"


def _lookup(define: Definitions, step: Lookup) -> list[str]:
    """Return a function that looks up rows of a table, and its arguments."""
    # A row is what a product has at one input: the weights of a Dense with one input a row.
    window = window_of((1, 1, step.width), step.rows)
    table = Product(window, step.weights, step.scale, np.zeros(step.rows))
    weights = weights_of(define, table)
    function = define.function(
        f"lookup_{weights.name}",
        "lookup",
        parameters="".join(f", {parameter}" for parameter in weights.arguments),
        step=weights.step,
        result=f"sum{weights.factor}",
    )
    numbers = map(str, (step.count, step.rows, step.width))
    return [function, *numbers, *weights.arguments.values()]


def _normalize(define: Definitions, step: Normalize) -> list[str]:
    """Return a function that normalizes groups of numbers, and its arguments."""
    mean, size = _NORMALIZED[step.kind]
    function = define.function(f"{step.kind}_normalization", "normalize", mean=mean, size=size)
    numbers = map(str, (step.positions, step.groups, step.width))
    return [function, *numbers, literal(step.epsilon)]


_MEAN_SQUARE = "squares / (float)(positions * width) + epsilon"
_MEAN = """\
        float mean = 0.0f;
        for (int p = 0; p < positions; p++) {
            const float *x = input + (p * groups + g) * width;
            for (int k = 0; k < width; k++) mean += x[k];
        }
        mean /= (float)(positions * width);
"""
_NO_MEAN = "        const float mean = 0.0f;\n"
_NORMALIZED = {
    "standard": (_MEAN, _MEAN_SQUARE),
    "rms": (_NO_MEAN, _MEAN_SQUARE),
    "unit": (_NO_MEAN, "squares > epsilon ? squares : epsilon"),
}
"""C of what is subtracted from each number, and of the square of what it is divided by."""


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
        unit=" * (1.0f / scale[i % period])" if scaled else "",
        factor=" * scale[i % period]" if scaled else "",
    )
    return [function, str(step.size), *arguments.values()]
