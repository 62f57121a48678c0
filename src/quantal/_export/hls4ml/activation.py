"""Read a `DiscreteActivation` for hls4ml."""

from typing import Any

import numpy as np
from keras import layers
from numpy.typing import NDArray

from quantal._core.keras_internals.graph import call_of
from quantal._export.fixed_point import is_power_of_two, with_significant_bits
from quantal._export.hls4ml.nodes import (
    BITS_OF_SCALE,
    Affine,
    Config,
    Configs,
    Tensors,
    scaling,
)
from quantal._export.levels import Levels
from quantal.layers.activation import DiscreteActivation

_BITS_OF_INVERSE = 24
"""An inverse scale has as many significant bits as Keras's float32 quotients."""
_TIE = 2.0**-20
"""Numbers so near below the middle of two values, in steps, count as the middle: the quotients that
Keras computes are rounded, too, and on the middle the larger value wins."""
_RESHAPING = (layers.Flatten, layers.Reshape, layers.Permute)


def read_activation(layer: DiscreteActivation, inputs: Tensors, outputs: Tensors) -> Configs:
    """Return hls4ml's configurations of a `DiscreteActivation`: a fixed-point quantizer.

    Its list has even steps. Where a step times the scale is no power of two, or the list does
    not lie around 0, nodes before and behind the quantizer scale its inputs and outputs.

    Args:
        layer: A built layer.
        inputs: Its symbolic input.
        outputs: Its symbolic output.

    Raises:
        ValueError: The list has no even steps, or not 2^k or 2^k - 1 values; or the model rounds
            its own inputs to no list.
    """
    _refuse_unrounded_inputs(layer, inputs[0])
    levels, shape = Levels.of(layer.values.numbers, layer.name), tuple(inputs[0].shape[1:])
    step = levels.step * _scale_of(layer, shape)
    source, output = inputs[0].name, outputs[0].name
    if levels.offset == 0 and all(map(is_power_of_two, np.unique(step))):
        return (_fixed_point_quantizer(layer.name, levels, step, shape, (source, output)),)
    scaled, codes, one = f"{output}_in", f"{output}_codes", np.ones(1)
    step = np.broadcast_to(step, shape[-1:])
    rounded = with_significant_bits(step, BITS_OF_SCALE)
    behind = Affine(rounded, rounded * levels.offset)
    nodes = [scaling(f"{layer.name}_out", shape, behind, [codes], [output])]
    if levels.by_sign:
        scaled = source
    else:
        inverse = with_significant_bits(1 / step, _BITS_OF_INVERSE)
        before = Affine(inverse, one * (_TIE - levels.offset))
        nodes.append(scaling(f"{layer.name}_in", shape, before, [source], [scaled]))
    nodes.append(_fixed_point_quantizer(layer.name, levels, one, shape, (scaled, codes)))
    # In the order of the data: scale, round, scale back.
    return (*nodes[1:], nodes[0])


def _scale_of(layer: DiscreteActivation, shape: tuple[int, ...]) -> NDArray[np.float64]:
    """Return the scale of an activation: one, or one for each index of the last axis."""
    scale = np.asarray(layer.scale_value(), np.float64)
    if scale.size == 1:
        return scale.reshape(1)
    if scale.size != shape[-1] or scale.shape[-1] != shape[-1]:
        raise ValueError(
            f"The layer {layer.name!r} has scales of the shape {scale.shape}. Expected one, or one "
            f"for each of the {shape[-1]} channels along the last axis. Set axis=-1."
        )
    return scale.reshape(-1)


def _fixed_point_quantizer(
    name: str,
    levels: Levels,
    step: NDArray[np.float64],
    shape: tuple[int, ...],
    tensors: tuple[str, str],
) -> Config:
    """Return the configuration of a quantizer to a fixed-point format for each channel.

    On the middle between two values the larger one wins, as rounding half up has it. A sign is
    rounding down to -1 or 0.
    """
    integer = levels.bits + np.frexp(step)[1] - 1
    numbers = [np.full(step.shape, int(levels.signed)), np.full(step.shape, levels.bits), integer]
    if step.size > 1:
        numbers = [np.broadcast_to(array, (1, *shape)) for array in numbers]
    return {
        "name": name,
        "class_name": "FixedPointQuantizer",
        "mask_kbi": tuple(array.astype(np.int16) for array in numbers),
        "SAT": "SAT_SYM" if levels.symmetric else "SAT",
        "RND": "TRN" if levels.by_sign else "RND",
        "fusible": None,
        "overrides": {},
        "input_keras_tensor_names": [tensors[0]],
        "output_keras_tensor_names": [tensors[1]],
    }


def _refuse_unrounded_inputs(layer: DiscreteActivation, tensor: Any) -> None:
    """Refuse an activation in a model whose own inputs are rounded to no list.

    hls4ml then does not know their precision, and with one quantizer in a model it computes the
    precision of every node.
    """
    source, node = call_of(tensor)
    while not isinstance(source, layers.InputLayer):
        if isinstance(source, DiscreteActivation):
            return
        before = node.input_tensors[0]
        last, (source, node) = source, call_of(before)
        if isinstance(source, layers.InputLayer) and not isinstance(last, _RESHAPING):
            raise ValueError(
                f"The layer {layer.name!r} rounds to a list, but the model's input goes into the "
                f"layer {last.name!r} as it is. hls4ml needs the precision of inputs, too. "
                "Expected a DiscreteActivation right behind the input, such as "
                "quantal.DiscreteActivation(quantal.Values.signed(8, 1 / 64))."
            )
