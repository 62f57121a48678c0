"""Write the weights of a product as arrays in C, and how they are computed with."""

from typing import NamedTuple

from quantal._export.c.definitions import Definitions
from quantal._export.c.encoding import SIGNS, decoding, encode, pack_codes
from quantal._export.graph.steps import Product


class CWeights(NamedTuple):
    """Weights in C.

    Attributes:
        name: The kind of their encoding, for the name of a function.
        arguments: What a function takes to compute with them, by the parameters in C.
        step: C that adds the product of `number` and weight `i`, of output `o`, to `sum`.
        factor: C that multiplies the sum; or empty.
        adds: Whether products are additions and subtractions.
    """

    name: str
    arguments: dict[str, str]
    step: str
    factor: str
    adds: bool


def weights_of(define: Definitions, product: Product) -> CWeights:
    """Define the arrays of a product's weights, and return how to compute with them."""
    encoding = encode(product)
    arguments: dict[str, str] = {}
    decode = factor = ""
    if encoding.bits:
        decode = define.function("code", "code", value=decoding(encoding.bits))
        codes = pack_codes(encoding.weights, encoding.bits)
        arguments["const uint8_t *codes"] = define.array("codes", "uint8_t", codes)
    else:
        arguments["const float *weights"] = define.floats("weights", encoding.weights)
    if encoding.lists is not None:
        lists = define.rows("values", encoding.lists)
        arguments["const float *values, int list_step"] = lists
    if encoding.scale is not None:
        factor = " * scale[o * scale_step]"
        arguments["const float *scale, int scale_step"] = define.rows("scale", encoding.scale)
    step = encoding.step.replace("@code@", f"{decode}(codes, i)")
    return CWeights(encoding.name, arguments, step, factor, encoding.name == SIGNS)
