"""Make configurations of hls4ml's nodes.

hls4ml is imported when a model is converted, by hls4ml itself.
"""

import importlib
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from quantal._export.fixed_point import FixedPoint, fixed_point_of

Config = dict[str, Any]
Configs = tuple[Config, ...]
Tensors = Sequence[Any]

BITS_OF_SCALE = 16
"""Scales that are no powers of two have so many significant bits: a DSP block's narrow input."""
_MOST_BITS = 32
"""A list that needs more bits is refused: no multiplier of an FPGA takes them."""


class Affine(NamedTuple):
    """A node multiplies by a factor and adds an offset, for each channel or each number.

    Attributes:
        factor: One for each index of the last axis, or one for each number of a sample.
        offset: As many, or one for all.
        precision: The format of the factors; None for the narrowest that holds them.
    """

    factor: NDArray[Any]
    offset: NDArray[Any]
    precision: FixedPoint | None = None


def scaling(
    name: str, shape: Sequence[int], affine: Affine, inputs: list[str], outputs: list[str]
) -> Config:
    """Return the configuration of a node that multiplies and adds."""
    factor, offset, precision = affine
    size = math.prod(shape)
    return {
        "name": name,
        "class_name": "ApplyAlpha",
        "n_in": size,
        "n_filt": -1 if len(factor) == size and len(shape) > 1 else len(factor),
        "scale_data": factor,
        "scale_quantizer": quantizer_of(precision or fixed_point_of(factor)),
        "bias_data": np.broadcast_to(offset, factor.shape).astype(np.float32),
        "input_keras_tensor_names": inputs,
        "output_keras_tensor_names": outputs,
    }


def quantizer_of(precision: FixedPoint) -> Any:
    """Return a quantizer of hls4ml's, which leaves numbers of its precision as they are."""
    quantizers = importlib.import_module("hls4ml.model.quantizers")
    types = importlib.import_module("hls4ml.model.types")
    width, integer, signed = precision
    fixed = types.FixedPrecisionType(width, integer, signed)
    return quantizers.QuantNodeQuantizer(fixed)


def open_type(name: str) -> Any:
    """Return a type of hls4ml's whose precision is computed."""
    types = importlib.import_module("hls4ml.model.types")
    return types.NamedType(name, types.UnspecifiedPrecisionType())


def checked(name: str, precision: FixedPoint) -> FixedPoint:
    """Refuse a precision that takes too many bits."""
    if precision.width > _MOST_BITS:
        raise ValueError(
            f"The list of the layer {name!r} needs {precision.width} bits in fixed point. "
            f"Expected at most {_MOST_BITS}. Round its numbers, or give it values with even steps."
        )
    return precision
