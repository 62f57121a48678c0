"""Read activations: functions of single numbers, and softmax."""

import math
from typing import Any

import keras
import numpy as np
from keras import activations, layers

from quantal._export.graph.builder import Call, GraphBuilder, Reader
from quantal._export.graph.geometry import repeating_part
from quantal._export.graph.steps import FUNCTIONS, Function, Nearest, Shape, Slopes, Softmax
from quantal.layers.activation import DiscreteActivation


def activation(builder: GraphBuilder, call: Call) -> int:
    """Read the activation of a layer, if it has one, on the one source of a call."""
    function = call.layer.activation
    if isinstance(function, keras.Layer):
        return builder.read(call._replace(layer=function))
    name = known_name(function)
    if name is None:
        name = getattr(function, "__name__", repr(function))
        raise builder.refusal(call.layer, f"with the activation {name!r}")
    if name in _SOFTMAX:
        return builder.add(Softmax(call.size, call.after[-1], _SOFTMAX[name]), call)
    if name == "linear":
        return call.sources[0]
    return builder.add(function_step(name, call.size), call)


def known_name(function: Any) -> str | None:
    """Return the name of an activation that a graph can hold; None for another."""
    known = ("linear", *_SOFTMAX, *_RECTIFIERS, *FUNCTIONS)
    return next((n for n in known if getattr(activations, n, None) is function), None)


def function_step(name: str, size: int) -> Function:
    """Return the step of an activation, by its name in Keras."""
    if name in _RECTIFIERS:
        return Function("relu", size, _RECTIFIERS[name])
    return Function(name, size, (1.0,) if name == "elu" else ())


def rectifier(builder: GraphBuilder, call: Call) -> int:
    """Read a ReLU or LeakyReLU."""
    layer = call.layer
    threshold, top = getattr(layer, "threshold", 0.0), getattr(layer, "max_value", None)
    return _relu(builder, call, layer.negative_slope, threshold, top)


def elu(builder: GraphBuilder, call: Call) -> int:
    """Read an ELU."""
    return builder.add(Function("elu", call.size, (float(call.layer.alpha),)), call)


def softmax(builder: GraphBuilder, call: Call) -> int:
    """Read a Softmax."""
    axis = call.layer.axis
    if axis not in (-1, len(call.before)):
        raise builder.refusal(call.layer, f"along the axis {axis}, not the last")
    return builder.add(Softmax(call.size, call.after[-1]), call)


def parametric(builder: GraphBuilder, call: Call) -> int:
    """Read a PReLU."""
    alpha = builder.weights.numbers(call.layer.alpha)
    part, period = repeating_part(alpha.shape, call.before)
    slopes = np.broadcast_to(alpha, part).reshape(period)
    return builder.add(Slopes(call.size, slopes), call)


def nearest(builder: GraphBuilder, call: Call) -> int:
    """Read a DiscreteActivation with one list for all channels."""
    return builder.add(nearest_step(builder, call.layer, call.before), call)


def nearest_step(builder: GraphBuilder, layer: DiscreteActivation, before: Shape) -> Nearest:
    """Return the step of a DiscreteActivation with one list for all channels.

    Args:
        builder: The builder.
        layer: The layer.
        before: The shape of a sample of its inputs.
    """
    if layer.values.channels is not None:
        raise builder.refusal(layer, "with a list for each channel")
    scale = layer.scale_value()
    scale = scale.reshape(scale.shape[1:])  # Without the axis of samples.
    part, period = repeating_part(scale.shape, before)
    scales = np.broadcast_to(scale, part).reshape(period).astype(np.float64)
    return Nearest(math.prod(before), layer.values.ascending.astype(np.float64), scales)


def _relu(builder: GraphBuilder, call: Call, slope: Any, threshold: Any, top: Any) -> int:
    numbers = float(slope), float(threshold), math.inf if top is None else float(top)
    return builder.add(Function("relu", call.size, numbers), call)


_SOFTMAX = {"softmax": False, "log_softmax": True}
"""Whether its logarithm is taken."""
_RECTIFIERS = {
    "relu": (0.0, 0.0, math.inf),
    "relu6": (0.0, 0.0, 6.0),
    "leaky_relu": (0.2, 0.0, math.inf),
}
"""Slope, threshold and largest output."""
READERS: dict[type, Reader] = {
    layers.ReLU: rectifier,
    layers.LeakyReLU: rectifier,
    layers.ELU: elu,
    layers.Softmax: softmax,
    layers.PReLU: parametric,
    DiscreteActivation: nearest,
    layers.Activation: activation,
}
"""The readers of activations."""
