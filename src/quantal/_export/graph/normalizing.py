"""Read layers that normalize each sample by its own numbers."""

import math

import numpy as np
from keras import layers

from quantal._export.graph.builder import Call, GraphBuilder, Reader
from quantal._export.graph.linear import scaled
from quantal._export.graph.steps import Normalize

_UNIT_EPSILON = 1e-12
"""The least sum of squares in Keras's UnitNormalization."""


def layer_normalization(builder: GraphBuilder, call: Call) -> int:
    """Read a LayerNormalization over the last axes."""
    layer = call.layer
    if getattr(layer, "rms_scaling", False):
        raise builder.refusal(layer, "with rms_scaling")
    value = _rows(builder, call, "standard", layer.epsilon)
    return _affine(builder, call.behind(value), layer.gamma, layer.beta)


def rms_normalization(builder: GraphBuilder, call: Call) -> int:
    """Read an RMSNormalization over the last axes."""
    value = _rows(builder, call, "rms", call.layer.epsilon)
    return _affine(builder, call.behind(value), call.layer.scale, None)


def unit_normalization(builder: GraphBuilder, call: Call) -> int:
    """Read a UnitNormalization over the last axes."""
    return _rows(builder, call, "unit", _UNIT_EPSILON)


def group_normalization(builder: GraphBuilder, call: Call) -> int:
    """Read a GroupNormalization of the last axis."""
    layer, channels = call.layer, call.before[-1]
    if layer.axis not in (-1, len(call.before)):
        raise builder.refusal(layer, f"along the axis {layer.axis}, not the last")
    positions = math.prod(call.before[:-1])
    width = channels // layer.groups
    value = builder.add(Normalize("standard", positions, layer.groups, width, layer.epsilon), call)
    gamma, beta = layer.gamma if layer.scale else None, layer.beta if layer.center else None
    return _affine(builder, call.behind(value), gamma, beta)


def _rows(builder: GraphBuilder, call: Call, kind: str, epsilon: float) -> int:
    """Add the normalization of the numbers along the last axes, each row by itself."""
    layer, rank = call.layer, len(call.before)
    axes = [layer.axis] if isinstance(layer.axis, int) else list(layer.axis)
    axes = sorted(axis % (rank + 1) for axis in axes)
    if axes != list(range(rank + 1 - len(axes), rank + 1)) or 0 in axes:
        raise builder.refusal(layer, f"along the axes {axes}, not the last ones")
    width = math.prod(call.before[-len(axes) :])
    return builder.add(Normalize(kind, 1, call.size // width, width, epsilon), call)


def _affine(builder: GraphBuilder, call: Call, gamma: object, beta: object) -> int:
    """Add factors and offsets of the last axes; None for none."""
    if gamma is None and beta is None:
        return call.sources[0]
    factor = np.float64(1) if gamma is None else builder.weights.numbers(gamma)
    offset = np.float64(0) if beta is None else builder.weights.numbers(beta)
    return scaled(builder, call, factor, offset)


READERS: dict[type, Reader] = {
    layers.LayerNormalization: layer_normalization,
    layers.RMSNormalization: rms_normalization,
    layers.UnitNormalization: unit_normalization,
    layers.GroupNormalization: group_normalization,
}
"""The readers of normalization by a sample's own numbers."""
