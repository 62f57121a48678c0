"""Write the steps of a graph as nodes of ONNX and QONNX."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from quantal._export.graph.steps import (
    Concatenate,
    Elementwise,
    Function,
    Nearest,
    Node,
    Pad,
    Pool,
    Product,
    Rearrange,
    Repetition,
    Shape,
    Softmax,
)
from quantal._export.levels import Levels
from quantal._export.qonnx.emitter import QONNX, Emitter, Value
from quantal._export.qonnx.products import along_channels, by_period, geometry, write_product

_TIE = 2.0**-23
"""Times the number of levels, in steps: what is so near below the middle of two values counts as
the middle. QONNX rounds a middle to the even integer, and quantal to the larger value."""


def write_node(emitter: Emitter, node: Node, sources: Sequence[Value]) -> Value:
    """Write a node, and return its result.

    Raises:
        ValueError: QONNX does not hold its step.
    """
    match node.step:
        case Product() as step:
            return write_product(emitter, node, step, sources[0])
        case Nearest() as step:
            return _nearest(emitter, node, step, sources[0])
        case Pool() as step:
            return _pool(emitter, node, step, sources[0])
        case Function() as step:
            return _function(emitter, node, step, sources[0])
        case Softmax() as step:
            return _softmax(emitter, node, step, sources[0])
        case Elementwise() as step:
            return _elementwise(emitter, node, step, sources)
        case Concatenate() as step:
            return _concatenated(emitter, node, step, sources)
        case Pad() as step:
            return _padded(emitter, node, step, sources[0])
        case Rearrange() as step:
            return _rearranged(emitter, node, step, sources[0])
    raise _refusal(node, f"step of the kind {type(node.step).__name__}")


def _refusal(node: Node, what: str) -> ValueError:
    return ValueError(
        f"The layer {node.name!r} is computed by a {what}, which the target 'qonnx' does not hold. "
        "Expected products, pooling, DiscreteActivation, common activations, Add and the like. Put "
        "one of these in its place, or export to '.onnx' without target."
    )


def _nearest(emitter: Emitter, node: Node, step: Nearest, source: Value) -> Value:
    """Write a rounding to levels: a quantizer, between shifts where the levels need them."""
    levels = Levels.of(step.levels, node.name)
    value = by_period(emitter, source, len(step.scale), step.size)
    scale = along_channels(step.scale, value)
    name = node.name

    def constant(what: str, numbers: Any) -> str:
        return emitter.constant(f"{name}_{what}", np.asarray(numbers, np.float32))

    def shifted(value: Value, what: str, offset: float) -> Value:
        inputs = [value.name, constant(f"{what}_offset", scale * offset)]
        return emitter.node("Add", inputs, value._replace(name=f"{name}_{what}"))

    if levels.by_sign:
        inputs = [value.name, constant("scale", scale * (levels.step / 2))]
        return emitter.node(
            "BipolarQuant", inputs, value._replace(name=f"{name}_rounded"), domain=QONNX
        )
    tie = levels.step * _TIE * 2**levels.bits
    value = shifted(value, "moved", tie - levels.offset * levels.step)
    if not levels.signed:
        # It changes nothing: FINN asks for it before numbers without a sign.
        value = emitter.node("Relu", [value.name], value._replace(name=f"{name}_positive"))
    inputs = [
        value.name,
        constant("scale", scale * levels.step),
        constant("zero", 0),
        constant("bits", levels.bits),
    ]
    value = emitter.node(
        "Quant",
        inputs,
        value._replace(name=f"{name}_rounded"),
        domain=QONNX,
        signed=int(levels.signed),
        narrow=int(levels.symmetric),
        rounding_mode="ROUND",
    )
    return shifted(value, "levels", levels.offset * levels.step) if levels.offset else value


def _pool(emitter: Emitter, node: Node, step: Pool, source: Value) -> Value:
    w = step.window
    inputs = emitter.as_image(source, (w.in_height, w.in_width, w.in_channels))
    value = Value(f"{node.name}_pooled", (w.out_channels, w.out_height, w.out_width), is_image=True)
    if (w.kernel_height, w.kernel_width) == (w.in_height, w.in_width):
        return emitter.node(
            "GlobalMaxPool" if step.largest else "GlobalAveragePool", [inputs.name], value
        )
    return emitter.node(
        "MaxPool" if step.largest else "AveragePool",
        [inputs.name],
        value,
        kernel_shape=[w.kernel_height, w.kernel_width],
        **geometry(w),
    )


_FUNCTIONS = {
    "sigmoid": "Sigmoid", "tanh": "Tanh", "elu": "Elu", "softplus": "Softplus",
    "exponential": "Exp",
}  # fmt: skip
"""Functions of Keras that are operators of ONNX, some with an `alpha`."""
_SIXTH = 1 / 6
"""The slope of Keras's hard sigmoid."""


def _function(emitter: Emitter, node: Node, step: Function, source: Value) -> Value:
    value = source._replace(name=f"{node.name}_{step.name}")
    if step.name in _FUNCTIONS:
        attributes: dict[str, Any] = {"alpha": step.numbers[0]} if step.numbers else {}
        return emitter.node(_FUNCTIONS[step.name], [source.name], value, **attributes)
    if step.name == "hard_sigmoid":
        return emitter.node("HardSigmoid", [source.name], value, alpha=_SIXTH, beta=0.5)
    if step.name == "silu":
        sigmoid = source._replace(name=f"{node.name}_sigmoid")
        sigmoid = emitter.node("Sigmoid", [source.name], sigmoid)
        return emitter.node("Mul", [source.name, sigmoid.name], value)
    if step.name != "relu" or step.numbers[1]:
        raise _refusal(node, f"{step.name} with a threshold" if step.numbers else step.name)
    slope, _, top = step.numbers
    if slope:
        value = emitter.node("LeakyRelu", [source.name], value, alpha=slope)
    else:
        value = emitter.node("Relu", [source.name], value)
    if math.isinf(top):
        return value
    largest = emitter.constant(f"{node.name}_largest", np.array(top, np.float32))
    return emitter.node("Min", [value.name, largest], value)


def _softmax(emitter: Emitter, node: Node, step: Softmax, source: Value) -> Value:
    shape = (step.row,) if step.row == step.size else (step.size // step.row, step.row)
    inputs = emitter.in_order(source, shape)
    kind = "LogSoftmax" if step.log else "Softmax"
    value = Value(f"{node.name}_softmax", shape)
    return emitter.node(kind, [inputs.name], value, axis=len(shape))


_OPERATIONS = {
    "add": "Add", "average": "Add", "subtract": "Sub", "multiply": "Mul", "divide": "Div",
    "maximum": "Max", "minimum": "Min",
}  # fmt: skip


def _elementwise(
    emitter: Emitter, node: Node, step: Elementwise, sources: Sequence[Value]
) -> Value:
    whole = Repetition(1, step.size)
    images = {(value.is_image, value.shape) for value in sources}
    if len(images) == 1 and set(step.repetitions) == {whole}:
        operands = list(sources)
    else:
        operands = [
            emitter.in_order(value, _broadcast_shape(repetition, node.shape))
            for value, repetition in zip(sources, step.repetitions, strict=True)
        ]
    first, *others = operands
    shape = first.shape if first.is_image or len(images) == 1 else node.shape
    value = Value(first.name, shape, first.is_image)
    for other in others:
        new = value._replace(name=f"{node.name}_{step.operation}")
        value = emitter.node(_OPERATIONS[step.operation], [value.name, other.name], new)
    if step.operation != "average":
        return value
    share = emitter.constant(f"{node.name}_share", np.array(1 / len(operands), np.float32))
    return emitter.node("Mul", [value.name, share], value)


def _broadcast_shape(repetition: Repetition, shape: Shape) -> Shape:
    """Return the shape of a source whose numbers repeat over a sample, which broadcasts."""
    repeat, period = repetition
    last = len(shape)
    while repeat > 1:
        last -= 1
        repeat //= shape[last]
    first = last
    while period > 1:
        first -= 1
        period //= shape[first]
    return (1,) * first + shape[first:last] + (1,) * (len(shape) - last)


def _concatenated(
    emitter: Emitter, node: Node, step: Concatenate, sources: Sequence[Value]
) -> Value:
    positions = {value.shape[1:] for value in sources if value.is_image}
    by_channels = [value.is_image and value.shape[0] for value in sources] == list(step.lengths)
    name = f"{node.name}_joined"
    if by_channels and len(positions) == 1:
        value = Value(name, (sum(step.lengths), *positions.pop()), is_image=True)
        return emitter.node("Concat", [value_.name for value_ in sources], value, axis=1)
    parts = [
        emitter.in_order(value, (step.count, length)).name
        for value, length in zip(sources, step.lengths, strict=True)
    ]
    return emitter.node("Concat", parts, Value(name, (step.count, sum(step.lengths))), axis=2)


def _padded(emitter: Emitter, node: Node, step: Pad, source: Value) -> Value:
    inputs = emitter.as_image(source, step.shape)
    height, width, channels = step.shape
    after = channels, height + step.top + step.bottom, width + step.left + step.right
    sizes = np.array([0, 0, step.top, step.left, 0, 0, step.bottom, step.right], np.int64)
    margins = emitter.constant(f"{node.name}_margins", sizes)
    value = Value(f"{node.name}_padded", after, is_image=True)
    return emitter.node("Pad", [inputs.name, margins], value)


def _rearranged(emitter: Emitter, node: Node, step: Rearrange, source: Value) -> Value:
    """Write a copy of chosen numbers, by their indices."""
    flat = emitter.in_order(source, (math.prod(source.shape),))
    grids = np.indices(step.lengths).reshape(len(step.lengths), -1)
    numbers = step.start + np.asarray(step.steps) @ grids
    indices = emitter.constant(f"{node.name}_indices", numbers.astype(np.int64))
    value = Value(f"{node.name}_arranged", (step.size,))
    return emitter.node("Gather", [flat.name, indices], value, axis=1)
