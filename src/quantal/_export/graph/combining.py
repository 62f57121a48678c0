"""Read layers and operations that combine several values: Add and the like, Concatenate."""

import math
from typing import Any

import keras
import numpy as np
from keras import layers

from quantal._core.keras_internals.graph import operation_name
from quantal._core.keras_internals.layers import SCALED_SUM
from quantal._export.graph.arranging import row_major
from quantal._export.graph.builder import Call, GraphBuilder, Reader
from quantal._export.graph.linear import scaled
from quantal._export.graph.steps import (
    OPERATIONS,
    Concatenate,
    Elementwise,
    Rearrange,
    Repetition,
    Shape,
)


def merge(builder: GraphBuilder, call: Call) -> int:
    """Read an Add, Multiply, Subtract, Average, Maximum or Minimum."""
    return elementwise(builder, call, _MERGING[type(call.layer)])


def elementwise(builder: GraphBuilder, call: Call, operation: str) -> int:
    """Add an operation of the values of a call, which are broadcast as Keras does."""
    sources, repetitions = [], []
    for value, shape in zip(call.sources, call.shapes, strict=True):
        repetition = _repetition(shape, call.after)
        if repetition is None:
            value = _broadcast(builder, call, value, shape)
            repetition = Repetition(1, call.size)
        sources.append(value)
        repetitions.append(repetition)
    step = Elementwise(operation, call.size, tuple(repetitions))
    return builder.add(step, call, tuple(sources))


def scaled_sum(builder: GraphBuilder, call: Call) -> int:
    """Read the sum `x + scale * y` that an InceptionResNetV2 has."""
    first, second = call.sources
    behind = call._replace(sources=(second,), shapes=call.shapes[1:])
    product = scaled(builder, behind, call.layer.scale, 0.0)
    return elementwise(builder, call._replace(sources=(first, product)), "add")


def concatenate(builder: GraphBuilder, call: Call) -> int:
    """Read a Concatenate along any axis of a sample."""
    axis = call.layer.axis
    axis = axis % (len(call.after) + 1) - 1
    if axis < 0:
        raise builder.refusal(call.layer, "along the axis of samples")
    lengths = tuple(math.prod(shape[axis:]) for shape in call.shapes)
    return builder.add(Concatenate(math.prod(call.after[:axis]), lengths), call)


def operate(builder: GraphBuilder, call: Call) -> int | None:
    """Read an operation such as `x + y` or `2 * x`; return None where it is no such.

    Args:
        builder: The builder.
        call: The call of an operation, with its arguments.
    """
    name = operation_name(call.layer) or ""
    name = _NAMES.get(name, name)
    if name not in OPERATIONS or len(call.arguments) != 2:
        return None
    if len(call.sources) == 2:
        # Operations align the axis of samples, too; layers align the last axes.
        return elementwise(builder, call, name) if len(set(map(len, call.shapes))) == 1 else None
    tensor_first = isinstance(call.arguments[0], keras.KerasTensor)
    number = call.arguments[1 if tensor_first else 0]
    if not _is_number(number):
        return None
    return _with_constant(builder, call, name, float(number), tensor_first)


def _with_constant(
    builder: GraphBuilder, call: Call, name: str, number: float, tensor_first: bool
) -> int | None:
    """Add an operation of a tensor and a number, if it is linear in the tensor."""
    if name == "add":
        return scaled(builder, call, 1.0, number)
    if name == "multiply":
        return scaled(builder, call, number, 0.0)
    if name == "subtract":
        return scaled(builder, call, *((1.0, -number) if tensor_first else (-1.0, number)))
    if name == "divide" and tensor_first:
        return scaled(builder, call, 1 / number, 0.0)
    return None


def _is_number(argument: Any) -> bool:
    return np.ndim(argument) == 0 and isinstance(argument, int | float | np.generic)


def _repetition(shape: Shape, after: Shape) -> Repetition | None:
    """Return how a value is read that is broadcast to a shape; None where that is no repetition."""
    shape = (1,) * (len(after) - len(shape)) + shape
    varying = [axis for axis, length in enumerate(shape) if length > 1]
    if not varying:
        return Repetition(1, 1)
    first, last = varying[0], varying[-1]
    if shape[first : last + 1] != after[first : last + 1]:
        return None
    return Repetition(math.prod(after[last + 1 :]), math.prod(shape))


def _broadcast(builder: GraphBuilder, call: Call, value: int, shape: Shape) -> int:
    """Add a copy of a value that has the shape of a call's result."""
    shape = (1,) * (len(call.after) - len(shape)) + shape
    steps = tuple(
        0 if length == 1 else step for length, step in zip(shape, row_major(shape), strict=True)
    )
    return builder.add(Rearrange(call.after, steps), call, (value,))


_MERGING = {
    layers.Add: "add",
    layers.Subtract: "subtract",
    layers.Multiply: "multiply",
    layers.Average: "average",
    layers.Maximum: "maximum",
    layers.Minimum: "minimum",
}
# Operations of Keras that have another name here.
_NAMES = {"truedivide": "divide"}
READERS: dict[type, Reader] = {
    layers.Concatenate: concatenate,
    SCALED_SUM: scaled_sum,
    **dict.fromkeys(_MERGING, merge),
}
"""The readers of layers that combine values."""
