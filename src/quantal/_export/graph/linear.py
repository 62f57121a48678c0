"""Read layers that are products: Dense, convolutions, normalization by constants, multipliers."""

import math
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import layers
from numpy.typing import NDArray

from quantal._core.keras_internals.layers import LAYER_SCALE
from quantal._core.tensors.distributed import whole_array
from quantal._export.graph.activations import activation
from quantal._export.graph.builder import Call, GraphBuilder, Reader
from quantal._export.graph.geometry import repeating_part, transposed_window_of, window_of
from quantal._export.graph.steps import Floats, Listed, Product, Window
from quantal._export.graph.weights import listed_weights
from quantal.layers.multiplier import LearnableMultiplier


def dense(builder: GraphBuilder, call: Call) -> int:
    """Read a Dense as a convolution that sees one position."""
    positions = (1, math.prod(call.before[:-1]), call.before[-1])
    window = window_of(positions, call.after[-1])
    return _product(builder, call, window, lambda kernel: np.moveaxis(kernel, -1, 0))


def convolution(builder: GraphBuilder, call: Call) -> int:
    """Read a Conv1D or Conv2D."""
    layer = call.layer
    sizes = (layer.kernel_size, layer.strides, layer.dilation_rate)
    window = window_of(
        call.before, call.after[-1], *sizes, padding=layer.padding, groups=layer.groups
    )
    return _product(builder, call, window, lambda kernel: np.moveaxis(kernel, -1, 0))


def depthwise(builder: GraphBuilder, call: Call) -> int:
    """Read a DepthwiseConv1D or DepthwiseConv2D, with as many groups as input channels."""
    layer, channels = call.layer, call.before[-1]
    sizes = (layer.kernel_size, layer.strides, layer.dilation_rate)
    window = window_of(call.before, call.after[-1], *sizes, padding=layer.padding, groups=channels)
    return _product(builder, call, window, lambda kernel: np.moveaxis(kernel, (-2, -1), (0, 1)))


def separable(builder: GraphBuilder, call: Call) -> int:
    """Read a SeparableConv1D or SeparableConv2D as a depthwise product and one of positions."""
    layer, channels = call.layer, call.before[-1]
    between = channels * layer.depth_multiplier
    sizes = (layer.kernel_size, layer.strides, layer.dilation_rate)
    window = window_of(call.before, between, *sizes, padding=layer.padding, groups=channels)

    def first(kernel: NDArray[Any]) -> NDArray[Any]:
        return np.moveaxis(kernel, (-2, -1), (0, 1)).reshape(between, -1)

    weights, scale = builder.weights.of_product(layer.depthwise_kernel, first)
    middle = call._replace(after=(*call.after[:-1], between))
    value = builder.add(Product(window, weights, scale, np.zeros(between)), middle)
    positions = (window.out_height, window.out_width, between)

    def second(kernel: NDArray[Any]) -> NDArray[Any]:
        return np.moveaxis(kernel, -1, 0)

    behind = call._replace(sources=(value,))
    pointwise = window_of(positions, call.after[-1])
    return _product(builder, behind, pointwise, second, kernel=layer.pointwise_kernel)


def transposed(builder: GraphBuilder, call: Call) -> int:
    """Read a Conv1DTranspose or Conv2DTranspose as a convolution over inputs that lie apart."""
    layer = call.layer
    window = transposed_window_of(
        call.before, call.after, layer.kernel_size, layer.strides, layer.dilation_rate,
        padding=layer.padding, output_padding=layer.output_padding,
    )  # fmt: skip
    axes = tuple(range(len(layer.kernel_size)))

    def view(kernel: NDArray[Any]) -> NDArray[Any]:
        # Keras has the outputs before the inputs, and a kernel that scatters.
        return np.moveaxis(np.flip(kernel, axes), -2, 0)

    return _product(builder, call, window, view)


def normalization(builder: GraphBuilder, call: Call) -> int:
    """Read a BatchNormalization with its moving statistics."""
    layer, rank = call.layer, len(call.before)
    mean, variance = (
        builder.weights.numbers(v) for v in (layer.moving_mean, layer.moving_variance)
    )
    factor = 1 / np.sqrt(variance + layer.epsilon)
    if layer.scale:
        factor = factor * builder.weights.numbers(layer.gamma)
    offset = builder.weights.numbers(layer.beta) if layer.center else 0.0
    axis = layer.axis % (rank + 1) - 1
    shape = [-1 if index == axis else 1 for index in range(rank)]
    return scaled(builder, call, factor.reshape(shape), (offset - mean * factor).reshape(shape))


def rescaling(builder: GraphBuilder, call: Call) -> int:
    """Read a Rescaling."""
    layer = call.layer
    factor, offset = (np.asarray(whole_array(n)) for n in (layer.scale, layer.offset))
    return scaled(builder, call, factor, offset)


def standardization(builder: GraphBuilder, call: Call) -> int:
    """Read a Normalization with the mean and variance it adapted to."""
    layer = call.layer
    mean, variance = (builder.weights.numbers(number)[0] for number in (layer.mean, layer.variance))
    deviation = np.maximum(np.sqrt(variance), keras.config.epsilon())
    if layer.invert:
        return scaled(builder, call, deviation, mean)
    return scaled(builder, call, 1 / deviation, -mean / deviation)


def layer_scale(builder: GraphBuilder, call: Call) -> int:
    """Read the factors of channels that a ConvNeXt has."""
    return scaled(builder, call, builder.weights.numbers(call.layer.gamma), 0.0)


def multiplier(builder: GraphBuilder, call: Call) -> int:
    """Read a LearnableMultiplier."""
    layer, rank = call.layer, len(call.before)
    (parameter,) = layer.discrete_parameters
    shape = [call.before[a] if a + 1 in layer.kernel_axes else 1 for a in range(rank)]
    part, period = repeating_part(shape, call.before)

    def view(array: NDArray[Any]) -> NDArray[Any]:
        return np.broadcast_to(array.reshape(shape), part).reshape(period, 1)

    return _multiply(builder, call, *listed_weights(parameter, view), np.zeros(period))


def scaled(builder: GraphBuilder, call: Call, factor: Any, offset: Any) -> int:
    """Add `factor * input + offset`, both broadcast over the sample."""
    shape = np.broadcast_shapes(np.shape(factor), np.shape(offset))
    if len(shape) > len(call.before):
        raise builder.refusal(call.layer, f"with numbers of the shape {shape}")
    shape = (1,) * (len(call.before) - len(shape)) + shape
    part, period = repeating_part(shape, call.before)
    factors, offsets = (
        np.broadcast_to(numbers, part).reshape(period).astype(np.float64)
        for numbers in (factor, offset)
    )
    return _multiply(builder, call, factors[:, None], np.ones(period), offsets)


def _product(
    builder: GraphBuilder,
    call: Call,
    window: Window,
    outputs_first: Callable[[Any], NDArray[Any]],
    *,
    kernel: Any = None,
) -> int:
    """Add a product with a layer's kernel and bias, and the activation of the layer."""
    layer, outputs = call.layer, window.out_channels

    def view(array: NDArray[Any]) -> NDArray[Any]:
        return outputs_first(array).reshape(outputs, -1)

    variable = layer.kernel if kernel is None else kernel
    weights, scale = builder.weights.of_product(variable, view)
    bias = builder.weights.numbers(layer.bias) if layer.use_bias else np.zeros(outputs)
    value = builder.add(Product(window, weights, scale, bias), call)
    return activation(builder, call.behind(value))


def _multiply(
    builder: GraphBuilder, call: Call, weights: Listed | Floats, scale: Floats, bias: Floats
) -> int:
    """Add a multiply-add for each channel."""
    period = len(bias)
    positions = (1, math.prod(call.before) // period, period)
    window = window_of(positions, period, groups=period)
    return builder.add(Product(window, weights, scale, bias), call)


READERS: dict[type, Reader] = {
    layers.Dense: dense,
    layers.Conv1D: convolution,
    layers.Conv2D: convolution,
    layers.DepthwiseConv1D: depthwise,
    layers.DepthwiseConv2D: depthwise,
    layers.SeparableConv1D: separable,
    layers.SeparableConv2D: separable,
    layers.Conv1DTranspose: transposed,
    layers.Conv2DTranspose: transposed,
    layers.BatchNormalization: normalization,
    layers.Rescaling: rescaling,
    layers.Normalization: standardization,
    LearnableMultiplier: multiplier,
    LAYER_SCALE: layer_scale,
}
"""The readers of layers that are products."""
