"""Write the weights of a product as arrays in C, and how they are computed with."""

from typing import NamedTuple

from quantal._export.c.definitions import Definitions
from quantal._export.c.encoding import SIGNS, Encoding, decoding, encode, pack_codes
from quantal._export.c.unpacking import unpacking
from quantal._export.graph.steps import Listed, Product

_PIECE = 32
"""So many weights of a layer with a single position are unpacked at once, on the stack."""
_POSITIONS = 32
"""Weights are unpacked again after at least so many positions, whose inputs caches still hold."""


class CWeights(NamedTuple):
    """Weights in C.

    Attributes:
        name: The kind of their encoding, for the name of a function.
        arguments: What a function takes to compute with them, by the parameters in C.
        step: C that adds the product of `number` and weight `i`, of output `o`, to `sum`.
        factor: C that multiplies the sum; or empty.
        adds: Whether products are additions and subtractions.
        unpack: C that unpacks `{size}` weights from `{start}` on into `kernel`; empty for floats.
        times: The C function that multiplies; empty where C's own product does.
    """

    name: str
    arguments: dict[str, str]
    step: str
    factor: str
    adds: bool
    unpack: str
    times: str

    def product(self, number: str, weight: str) -> str:
        """Return the C expression of a product."""
        return f"{self.times}({number}, {weight})" if self.times else f"{number} * {weight}"


def weights_of(define: Definitions, product: Product, *, unpacks: bool = False) -> CWeights:
    """Define the arrays of a product's weights, and return how to compute with them.

    Args:
        define: The definitions of the program.
        product: The product.
        unpacks: Whether weights are unpacked before they meet inputs, rather than one by one.
    """
    encoding = encode(product)
    arguments: dict[str, str] = {}
    step, factor, unpack, times = encoding.step, "", "", ""
    if encoding.bits:
        codes = pack_codes(encoding.weights, encoding.bits)
        arguments["const uint8_t *codes"] = define.array("codes", "uint8_t", codes)
        if unpacks:
            unpack = _unpack(define, encoding)
            times = define.function("times", "times") if encoding.name == SIGNS else ""
        else:
            decode = define.function("code", "code", value=decoding(encoding.bits))
            step = step.replace("@code@", f"{decode}(codes, i)")
    else:
        arguments["const float *weights"] = define.floats("weights", encoding.weights)
    if encoding.lists is not None:
        lists = define.rows("values", encoding.lists)
        arguments["const float *values, int list_step"] = lists
    if encoding.scale is not None:
        factor = " * scale[o * scale_step]"
        arguments["const float *scale, int scale_step"] = define.rows("scale", encoding.scale)
    adds = encoding.name == SIGNS
    return CWeights(encoding.name, arguments, step, factor, adds, unpack, times)


def is_dense(product: Product) -> bool:
    """Return whether each output sees all inputs, in one position."""
    w = product.window
    lengths = (w.out_height, w.out_width, w.kernel_height, w.kernel_width, w.groups)
    return set(lengths) == {1}


def unpacked_of(product: Product) -> int:
    """Return how many weights a product unpacks at once, in floats of the memory between layers."""
    if is_dense(product) or not isinstance(product.weights, Listed):
        return 0
    return product.weights.codes.shape[1] if encode(product).bits else 0


def parts_of_product(weights: CWeights, product: Product) -> dict[str, str]:
    """Return the parts of the template of a product that depend on how weights are stored."""
    if is_dense(product):
        unpack = "const float *const kernel = weights + o * size + start;"
        if weights.unpack:
            call = weights.unpack.format(start="o * size + start", size="count")
            unpack = f"float kernel[{_PIECE}];\n            {call}"
        product_text = weights.product("input[start + k]", "kernel[k]")
        return {"piece": str(_PIECE), "unpack": unpack, "product": product_text}
    kernel = "const float *const kernel = weights + o * size;"
    if weights.unpack:
        kernel = weights.unpack.format(start="o * size", size="size")
    return {"kernel": kernel, "product": weights.product("from[c]", "tap[c]")}


def rows_at_once(product: Product) -> int:
    """Return for how many rows of positions weights are unpacked once."""
    window = product.window
    return min(-(-_POSITIONS // window.out_width), window.out_height)


def _unpack(define: Definitions, encoding: Encoding) -> str:
    """Define the function that unpacks weights, and return a call of it."""
    is_listed = encoding.lists is not None
    parameters = ", const float *values" if is_listed else ""
    text = unpacking(encoding.bits, encoding.weight, "float", parameters)
    values = ", values + o * list_step" if is_listed else ""
    unpack = define.function_of_text("unpack", text)
    return f"{unpack}(codes{values}, (uint32_t)({{start}}), {{size}}, kernel);"
