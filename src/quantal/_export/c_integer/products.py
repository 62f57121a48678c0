"""Write products with packed weights: an output's weights are unpacked once for many positions."""

from typing import NamedTuple

import numpy as np

from quantal._export.c.encoding import pack_codes
from quantal._export.c.unpacking import unpacking
from quantal._export.c_integer.definitions import IntegerDefinitions
from quantal._export.c_integer.encoding import IntegerEncoding, encoding_of
from quantal._export.integer.steps import Products

UNPACKED = "unpacked"
"""The name of the array of int16_t that holds the weights of an output."""
_POSITIONS = 32
"""Weights are unpacked again after at least so many positions, whose inputs caches still hold."""
_PIECE = 64
"""So many weights of a layer with a single position are unpacked at once, on the stack."""
_FEW = 1024
"""So many weights are unpacked at once where numbers that lie side by side are few."""
_LONG = 16
"""So many numbers that lie side by side are worth a call."""


class ProductFunction(NamedTuple):
    """A function of C that computes products.

    Attributes:
        name: Its name.
        first: Its first arguments.
        arguments: Those that follow, by the parameters that they are for.
        length: The length that the array `unpacked` needs.
    """

    name: str
    first: str
    arguments: dict[str, str]
    length: int


class Stored(NamedTuple):
    """A stored result is the expression in C of a sum, with the types of inputs and results.

    Attributes:
        text: The C expression of the result, from `sum`.
        arguments: The names of the arrays in C that it needs, by their parameters.
        source: The type of inputs in C.
        target: That of results.
    """

    text: str
    arguments: dict[str, str]
    source: str
    target: str


class _Weights(NamedTuple):
    """Weights in C.

    Attributes:
        arguments: The arrays, by the parameters of a function that computes with them.
        type: The type of the weights of an output, once they are unpacked.
        unpack: C that unpacks weights from `{start}` on into `{into}`; empty where they lie ready.
        times: The C function that multiplies; empty where C's own product does.
    """

    arguments: dict[str, str]
    type: str
    unpack: str
    times: str


def product_function(define: IntegerDefinitions, step: Products, stored: Stored) -> ProductFunction:
    """Define the function that computes a step, and return how it is called."""
    window, encoding = step.window, encoding_of(step.weights)
    weights = _weights(define, encoding)
    is_dense = (window.out_height, window.out_width, window.groups) == (1, 1, 1) and (
        (window.kernel_height, window.kernel_width) == (1, 1)
    )
    arguments = weights.arguments | stored.arguments
    parts = {"from": stored.source, "to": stored.target, "type": weights.type}
    parts |= {"result": stored.text, "parameters": _parameters(arguments)}
    if is_dense:
        dot = _dot(define, step, encoding, weights, stored.source)
        name = define.function(
            f"dense_{encoding.name}", "dense", dot=dot, piece=str(_PIECE),
            kernel=_kernel_of_piece(weights), **parts,
        )  # fmt: skip
        return ProductFunction(name, define.window(window), arguments, 0)
    if _are_patches(step, stored.source):
        return _patches(define, step, encoding, weights, arguments, parts)
    name = define.function(
        f"products_{encoding.name}",
        "products",
        kernel=_kernel(weights),
        row=_position("row", "y", "top", window.spread_y),
        **_along_a_row(define, step, encoding, weights, stored.source),
        **parts,
    )
    rows = min(-(-_POSITIONS // window.out_width), window.out_height)
    length = step.weights.shape[1] if weights.unpack else 0
    return ProductFunction(name, f"{define.window(window)}, {rows}", arguments, length)


def _are_patches(step: Products, source: str) -> bool:
    """Return whether all weights are few, and numbers of int16 hold a window that is gathered."""
    window = step.window
    is_plain = window.groups == window.spread_y == window.spread_x == 1
    is_short = window.in_channels * window.kernel_width < _LONG
    return is_plain and is_short and step.weights.size <= _FEW and source in ("int8_t", "uint8_t")


def _patches(
    define: IntegerDefinitions,
    step: Products,
    encoding: IntegerEncoding,
    weights: _Weights,
    arguments: dict[str, str],
    parts: dict[str, str],
) -> ProductFunction:
    """Define a function that gathers each window, and return how it is called."""
    gathered = step._replace(zero=0, multiple=1)
    count, size = step.weights.shape
    kernels = f"const {weights.type} *const kernels = weights;"
    if weights.unpack:
        kernels = f"int16_t *const kernels = {UNPACKED} + size;\n    " + weights.unpack.format(
            start="0", size="w->out_channels * size", into="kernels"
        )
    name = define.function(
        f"patches_{encoding.name}",
        "patches",
        kernels=kernels,
        number=_number(step, "from[c]"),
        dot=_dot(define, gathered, encoding, weights, "int16_t"),
        **parts,
    )
    length = size + (count * size if weights.unpack else 0)
    return ProductFunction(name, define.window(step.window), arguments, length)


def _weights(define: IntegerDefinitions, encoding: IntegerEncoding) -> _Weights:
    """Define the arrays of weights, and the functions that unpack and multiply them."""
    arguments, values = dict[str, str](), ""
    if not encoding.bits:
        kind = _type(encoding.codes)
        return _Weights({f"const {kind} *weights": _array(define, encoding.codes)}, kind, "", "")
    codes = pack_codes(encoding.codes, encoding.bits)
    arguments["const uint8_t *codes"] = define.array("codes", "uint8_t", codes)
    if encoding.values is not None:
        values = f"const {_type(encoding.values)} *values"
        arguments[values] = _array(define, encoding.values)
    weight, times = "values[@code@]", ""
    if not values:
        integer = define.function("integer", "integer", integer=encoding.integer)
        weight = f"{integer}(@code@)"
        times = define.function("times", "times", product=encoding.product)
    text = unpacking(encoding.bits, weight, "int16_t", f", {values}" if values else "")
    unpack = define.function_of_text("unpack", text)
    others = ", values" if values else ""
    call = f"{unpack}(codes{others}, (uint32_t)({{start}}), {{size}}, {{into}});"
    return _Weights(arguments, "int16_t", call, times)


def _type(integers: "np.ndarray[tuple[int, ...], np.dtype[np.integer]]") -> str:
    """Return the type in C that holds integers."""
    return "int8_t" if np.abs(integers).max() < 128 else "int16_t"


def _array(
    define: IntegerDefinitions, integers: "np.ndarray[tuple[int, ...], np.dtype[np.integer]]"
) -> str:
    """Define the array of values, or of weights that are stored as they are."""
    kind = _type(integers)
    return define.array("weights", kind, integers.astype(kind.removesuffix("_t")).ravel())


def _kernel(weights: _Weights) -> str:
    """Return the lines that make `kernel` the weights of the output `o`."""
    if not weights.unpack:
        return f"const {weights.type} *const kernel = weights + o * size;"
    call = weights.unpack.format(start="o * size", size="size", into=UNPACKED)
    return f"const int16_t *const kernel = {UNPACKED};\n        {call}"


def _kernel_of_piece(weights: _Weights) -> str:
    """Return the lines that make `kernel` the weights of the output `o` from `start` on."""
    if not weights.unpack:
        return f"const {weights.type} *const kernel = weights + o * size + start;"
    call = weights.unpack.format(start="o * size + start", size="count", into="kernel")
    return f"int16_t kernel[{_PIECE}];\n            {call}"


def _dot(
    define: IntegerDefinitions,
    step: Products,
    encoding: IntegerEncoding,
    weights: _Weights,
    source: str,
) -> str:
    """Define the function that sums products of numbers that lie side by side."""
    block, single = (
        _product(step, weights, f"input[{index}]", f"kernel[{index}]") for index in ("k + j", "k")
    )
    parts = {"from": source, "type": weights.type}
    return define.function(f"dot_{encoding.name}", "dot", block=block, single=single, **parts)


def _product(step: Products, weights: _Weights, number: str, weight: str) -> str:
    """Return the C expression of the product of an input and a weight."""
    number = _number(step, number)
    if weights.times:
        return f"{weights.times}({number}, {weight})"
    return f"({number}) * {weight}" if " " in number else f"{number} * {weight}"


def _number(step: Products, number: str) -> str:
    """Return the C expression of what weights multiply, for an input."""
    if step.multiple != 1:
        number = f"{step.multiple} * {number}"
    return f"{number} - {step.zero}" if step.zero else number


def _along_a_row(
    define: IntegerDefinitions,
    step: Products,
    encoding: IntegerEncoding,
    weights: _Weights,
    source: str,
) -> dict[str, str]:
    """Return the lines that sum the products of a row of the kernel."""
    window = step.window
    inputs = window.in_channels // window.groups
    dot = ""
    if inputs * window.kernel_width >= _LONG or inputs >= _LONG:
        dot = _dot(define, step, encoding, weights, source)
    if window.groups == window.dilation_x == window.spread_x == 1 and dot:
        return {"columns": _COLUMNS, "run": _RUN.replace("@dot@", dot)}
    sums = (
        f"for (int c = 0; c < inputs; c++) sum += {_product(step, weights, 'from[c]', 'tap[c]')};"
    )
    if dot and inputs >= _LONG:
        sums = f"sum += {dot}(from, tap, inputs);"
    column = _position("column", "x", "left", window.spread_x).replace("\n", "\n    ")
    parts = {"column": column, "from": source, "type": weights.type, "sums": sums}
    run = _SINGLE_TAPS
    for name, text in parts.items():
        run = run.replace(f"@{name}@", text)
    return {"columns": "", "run": run}


_COLUMNS = """\
            const int column = x * w->stride_x - w->left, skipped = column < 0 ? -column : 0;
            const int beyond = column + w->kernel_width - w->in_width;
            const int count = w->kernel_width - skipped - (beyond > 0 ? beyond : 0);
"""
_RUN = """\
                if (count > 0)
                    sum += @dot@(line + (column + skipped) * w->in_channels,
                        taps + skipped * inputs, count * inputs);
"""
"""C that sums over all columns of a kernel that lie within the inputs: these lie side by side."""
_SINGLE_TAPS = """\
                for (int kx = 0; kx < w->kernel_width; kx++) {
                    @column@
                    if (column < 0 || column >= w->in_width) continue;
                    const @from@ *const from = line + column * w->in_channels;
                    const @type@ *const tap = taps + kx * inputs;
                    @sums@
                }
"""
"""C that sums column by column."""


def _position(name: str, output: str, before: str, spread: int) -> str:
    """Return C that computes the row or column of an input."""
    position = f"{output} * w->stride_{output} + k{output} * w->dilation_{output} - w->{before}"
    if spread == 1:
        return f"const int {name} = {position};"
    return (
        f"const int spread_{name} = {position}, {name} = spread_{name} / {spread};\n"
        f"                if (spread_{name} < 0 || spread_{name} % {spread}) continue;"
    )


def _parameters(arguments: dict[str, str]) -> str:
    return "".join(f", {parameter}" for parameter in arguments)
