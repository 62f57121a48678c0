"""Write products as MatMul or Conv, with quantizers on their weights."""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quantal._export.graph.steps import Listed, Node, Product, Window
from quantal._export.qonnx.emitter import QONNX, Emitter, Value
from quantal._export.qonnx.quantizers import integers_of


def write_product(emitter: Emitter, node: Node, step: Product, source: Value) -> Value:
    """Write a product: by a matrix, a convolution or number by number.

    Raises:
        ValueError: It is a transposed convolution, or its list has no even steps.
    """
    window = step.window
    if step.is_element_wise:
        return _element_wise(emitter, node, step, source)
    if window.spread_y > 1 or window.spread_x > 1:
        raise ValueError(
            f"The layer {node.name!r} is a transposed convolution, which the target 'qonnx' does "
            "not hold. Put an UpSampling2D and a Conv2D in its place, or export to '.onnx' without "
            "target."
        )
    if _is_matrix(window):
        value = _matrix(emitter, node, step, source)
    else:
        value = _convolution(emitter, node, step, source)
    return _scaled(emitter, node.name, value, step.scale, step.bias)


def _is_matrix(window: Window) -> bool:
    """Return whether a product sees one position at a time, along at most one axis."""
    w = window
    ones = (w.in_height, w.out_height, w.kernel_height, w.kernel_width, w.stride_x, w.groups)
    return set(ones) == {1} and w.top == w.left == 0


def _matrix(emitter: Emitter, node: Node, step: Product, source: Value) -> Value:
    window = step.window
    positions = () if window.in_width == 1 else (window.in_width,)
    inputs = emitter.in_order(source, (*positions, window.in_channels))
    weights = _weights(emitter, node.name, step.weights, (1, 0), window)
    value = Value(f"{node.name}_sums", (*positions, window.out_channels))
    return emitter.node("MatMul", [inputs.name, weights], value)


def _convolution(emitter: Emitter, node: Node, step: Product, source: Value) -> Value:
    w = step.window
    inputs = emitter.as_image(source, (w.in_height, w.in_width, w.in_channels))
    weights = _weights(emitter, node.name, step.weights, (0, 3, 1, 2), w)
    value = Value(f"{node.name}_sums", (w.out_channels, w.out_height, w.out_width), is_image=True)
    # QONNX's transformations, and FINN's, ask for dilations even where they are 1.
    dilations = {"dilations": [w.dilation_y, w.dilation_x]}
    return emitter.node(
        "Conv",
        [inputs.name, weights],
        value,
        group=w.groups,
        kernel_shape=[w.kernel_height, w.kernel_width],
        **dilations | geometry(w),
    )


def geometry(window: Window) -> dict[str, Any]:
    """Return the attributes of ONNX that say how a window moves over its inputs."""
    w = window
    below = (w.out_height - 1) * w.stride_y + (w.kernel_height - 1) * w.dilation_y + 1
    right = (w.out_width - 1) * w.stride_x + (w.kernel_width - 1) * w.dilation_x + 1
    ends = max(below - w.in_height - w.top, 0), max(right - w.in_width - w.left, 0)
    attributes: dict[str, Any] = {
        "strides": [w.stride_y, w.stride_x],
        "pads": [w.top, w.left, *ends],
    }
    if w.dilation_y > 1 or w.dilation_x > 1:
        attributes["dilations"] = [w.dilation_y, w.dilation_x]
    return attributes


def _weights(
    emitter: Emitter,
    name: str,
    weights: Listed | NDArray[Any],
    order: tuple[int, ...],
    window: Window,
) -> str:
    """Add the weights of a product, behind a quantizer where they are on a list.

    Args:
        emitter: The emitter.
        name: The layer's name.
        weights: Shape (outputs, inputs).
        order: The axes of the result, among outputs and inputs; or outputs, rows, columns and
            channels.
        window: The window of the product.
    """

    def arranged(array: NDArray[Any]) -> NDArray[Any]:
        w = window
        if len(order) > 2:
            sizes = w.kernel_height, w.kernel_width, w.in_channels // w.groups
            array = array.reshape(-1, *(sizes if array.shape[1] > 1 else (1, 1, 1)))
        return np.ascontiguousarray(array.transpose(order))

    if not isinstance(weights, Listed):
        return emitter.constant(f"{name}_weights", arranged(weights).astype(np.float32))
    return quantized(emitter, name, weights, arranged)


def quantized(emitter: Emitter, name: str, weights: Listed, arranged: Any) -> str:
    """Add weights on a list as floats, and the quantizer that says which integers they are.

    Args:
        emitter: The emitter.
        name: The layer's name.
        weights: The weights, shape (outputs, inputs).
        arranged: Brings an array of the shape (outputs, inputs), or (outputs, 1), to that of the
            tensor.
    """
    codes, step, bits, signed, narrow, bipolar = integers_of(weights, name)
    floats = arranged((codes * step[:, None]).astype(np.float32))
    uniform = bool((step == step[0]).all())
    scale = np.float32(step[0]) if uniform else arranged(step[:, None].astype(np.float32))
    scale = np.asarray(scale, np.float32)
    inputs = [
        emitter.constant(f"{name}_weights", floats),
        emitter.constant(f"{name}_weights_scale", scale),
    ]
    value = Value(f"{name}_weights_quantized", floats.shape)
    if bipolar:
        return emitter.node("BipolarQuant", inputs, value, constant=True, domain=QONNX).name
    attributes = {"signed": int(signed), "narrow": int(narrow), "rounding_mode": "ROUND"}
    inputs += [
        emitter.constant(f"{name}_weights_zero", np.zeros((), np.float32)),
        emitter.constant(f"{name}_weights_bits", np.asarray(bits, np.float32)),
    ]
    return emitter.node("Quant", inputs, value, constant=True, domain=QONNX, **attributes).name


def _element_wise(emitter: Emitter, node: Node, step: Product, source: Value) -> Value:
    """Write a multiplication and addition of each number."""
    period = len(step.scale)
    value = by_period(emitter, source, period, math.prod(node.shape))
    if isinstance(step.weights, Listed):

        def arranged(array: NDArray[Any]) -> NDArray[Any]:
            return along_channels(array[:, 0], value)

        weights = quantized(emitter, node.name, step.weights, arranged)
        output = value._replace(name=f"{node.name}_product")
        value = emitter.node("Mul", [value.name, weights], output)
        return _scaled(emitter, node.name, value, step.scale, step.bias)
    return _scaled(emitter, node.name, value, step.scale * step.weights[:, 0], step.bias)


def by_period(emitter: Emitter, source: Value, period: int, size: int) -> Value:
    """Return a value whose axis of channels has a period's length, as it is where it may stay."""
    channels = source.shape[0 if source.is_image else -1] if source.shape else 1
    if period in (1, channels):
        return source
    return emitter.in_order(source, (period,) if period == size else (size // period, period))


def along_channels(numbers: NDArray[Any], value: Value) -> NDArray[np.float32]:
    """Return numbers in a shape that broadcasts along the channels of a value."""
    numbers = np.asarray(numbers, np.float32)
    if numbers.size == 1:
        return numbers.reshape(())
    return numbers.reshape(1, -1, 1, 1) if value.is_image else numbers


def _scaled(
    emitter: Emitter, name: str, value: Value, scale: NDArray[Any], bias: NDArray[Any]
) -> Value:
    """Write a multiplication by scales and an addition of biases, where they change anything."""
    if (scale != 1).any():
        scale = scale[:1] if (scale == scale[0]).all() else scale
        factor = emitter.constant(f"{name}_scale", along_channels(scale, value))
        value = emitter.node("Mul", [value.name, factor], value._replace(name=f"{name}_scaled"))
    if bias.any():
        offset = emitter.constant(f"{name}_bias", along_channels(bias, value))
        value = emitter.node("Add", [value.name, offset], value._replace(name=f"{name}_biased"))
    return value
