"""Read recurrent layers and embeddings: what works on sequences."""

import math
from typing import Any

import numpy as np
from keras import layers
from numpy.typing import NDArray

from quantal._export.graph.activations import function_step, known_name, nearest_step
from quantal._export.graph.builder import Call, GraphBuilder, Reader
from quantal._export.graph.geometry import window_of
from quantal._export.graph.linear import scaled
from quantal._export.graph.steps import (
    Concatenate,
    Elementwise,
    Floats,
    Function,
    Listed,
    Lookup,
    Nearest,
    Product,
    Rearrange,
    Recurrent,
    Repetition,
)
from quantal.layers.activation import DiscreteActivation
from quantal.layers.discrete import unwrapped


def embedding(builder: GraphBuilder, call: Call) -> int:
    """Read an Embedding, whose codes stay codes where rows or columns have a scale each."""
    layer = call.layer
    if layer.mask_zero:
        raise builder.refusal(layer, "with mask_zero=True")
    count = math.prod(call.before)
    weights, scale = builder.weights.of_product(layer.embeddings, lambda table: table)
    if isinstance(weights, Listed):
        return builder.add(Lookup(count, weights, scale), call)
    columns, scales = builder.weights.of_product(layer.embeddings, np.transpose)
    if not isinstance(columns, Listed) or len(np.unique(columns.lists, axis=0)) > 1:
        return builder.add(Lookup(count, weights, scale), call)
    table = Listed(columns.codes.T, columns.lists[:1])
    value = builder.add(Lookup(count, table, scale), call)
    return scaled(builder, call.behind(value), scales, 0.0)


def recurrent(builder: GraphBuilder, call: Call) -> int:
    """Read a SimpleRNN, LSTM or GRU."""
    layer = call.layer
    if layer.stateful:
        raise builder.refusal(layer, "with stateful=True")
    time, _ = call.before
    cell, kind = layer.cell, _CELLS[type(layer)]
    units = cell.units
    function = _function(builder, layer, cell.activation)
    gate = function if kind == "simple" else _function(builder, layer, cell.recurrent_activation)
    bias, bias_of_state = _biases(builder, cell)
    gates = cell.kernel.shape[-1] // units
    inputs = _dense(builder, cell.kernel, slice(0, gates * units), bias)
    if kind == "gru" and cell.reset_after:
        kind = "gru_reset_after"
    parts = [slice(0, gates * units)]
    if kind == "gru":
        parts = [slice(0, 2 * units), slice(2 * units, 3 * units)]
    states = tuple(
        _dense(builder, cell.recurrent_kernel, part, bias_of_state[part]) for part in parts
    )
    step = Recurrent(
        kind, time, inputs, states, function, gate, layer.return_sequences, layer.go_backwards
    )
    return builder.add(step, call)


def bidirectional(builder: GraphBuilder, call: Call) -> int:
    """Read a Bidirectional around a SimpleRNN, LSTM or GRU."""
    layer = call.layer
    directions = [unwrapped(layer.forward_layer), unwrapped(layer.backward_layer)]
    if layer.merge_mode not in (*_MERGES, "concat"):
        raise builder.refusal(layer, f"with merge_mode={layer.merge_mode!r}")
    for direction in directions:
        if type(direction) not in _CELLS:
            raise builder.refusal(direction, f"inside {layer.name!r}")
    units, time = directions[0].cell.units, call.before[0]
    count = time if layer.return_sequences else 1
    after = (count, units) if layer.return_sequences else (units,)
    forward, backward = (
        recurrent(builder, call._replace(layer=direction, after=after)) for direction in directions
    )
    if layer.return_sequences:
        flip = Rearrange((count, units), (-units, 1), (count - 1) * units)
        backward = builder.add(flip, call._replace(after=after), (backward,))
    pair = (forward, backward)
    if layer.merge_mode == "concat":
        return builder.add(Concatenate(count, (units, units)), call, pair)
    whole = Repetition(1, count * units)
    step = Elementwise(_MERGES[layer.merge_mode], count * units, (whole, whole))
    return builder.add(step, call, pair)


def distributed(builder: GraphBuilder, call: Call) -> int:
    """Read a TimeDistributed around a Dense or an activation, which see one position anyway."""
    layer = unwrapped(call.layer.layer)
    if type(layer) not in (layers.Dense, layers.Activation):
        raise builder.refusal(layer, f"inside {call.layer.name!r}")
    return builder.read(call._replace(layer=layer))


def _function(builder: GraphBuilder, layer: Any, activation: Any) -> Function | Nearest:
    """Return the step of an activation inside a recurrent layer."""
    if isinstance(activation, DiscreteActivation):
        step = nearest_step(builder, activation, (layer.cell.units,))
        if (step.scale != step.scale[0]).any():
            raise builder.refusal(layer, "with a scale for each unit in its activation")
        return step
    name = known_name(activation)
    if name is None or name in ("softmax", "log_softmax"):
        name = getattr(activation, "__name__", repr(activation))
        raise builder.refusal(layer, f"with the activation {name!r}")
    return function_step(name, layer.cell.units)


def _biases(builder: GraphBuilder, cell: Any) -> tuple[Floats, Floats]:
    """Return the biases of the products with the input and with the state."""
    outputs = cell.kernel.shape[-1]
    if not cell.use_bias:
        return np.zeros(outputs), np.zeros(outputs)
    bias = builder.weights.numbers(cell.bias)
    return (bias, np.zeros(outputs)) if bias.ndim == 1 else (bias[0], bias[1])


def _dense(builder: GraphBuilder, kernel: Any, columns: slice, bias: Floats) -> Product:
    """Return a product of one position with columns of a kernel."""

    def view(array: NDArray[Any]) -> NDArray[Any]:
        return array[:, columns].T

    weights, scale = builder.weights.of_product(kernel, view)
    return Product(window_of((1, 1, kernel.shape[0]), len(bias)), weights, scale, bias)


_CELLS = {layers.SimpleRNN: "simple", layers.LSTM: "lstm", layers.GRU: "gru"}
_MERGES = {"sum": "add", "ave": "average", "mul": "multiply"}
READERS: dict[type, Reader] = {
    layers.Embedding: embedding,
    layers.Bidirectional: bidirectional,
    layers.TimeDistributed: distributed,
    **dict.fromkeys(_CELLS, recurrent),
}
"""The readers of layers on sequences."""
