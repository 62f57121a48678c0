"""A functional model is a graph of symbolic calls: it is read and its layers are exchanged."""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import keras


class Call(NamedTuple):
    """The call of a layer that created a symbolic tensor.

    Attributes:
        layer: The layer.
        node: The node of Keras's graph: inputs, outputs and arguments of the call.
    """

    layer: keras.Layer
    node: Any


def call_of(tensor: Any) -> Call:
    """Return the call that created a symbolic tensor."""
    layer, index, _ = tensor._keras_history
    return Call(layer, layer._inbound_nodes[index])


def graph_of(model: keras.Layer) -> Any:
    """Return what holds the graph of a model: the model inside a Sequential, or the model."""
    return getattr(model, "_functional", None) or model


def nodes_of(model: keras.Model) -> Iterator[Any]:
    """Yield the nodes of a model's graph; none for a subclassed model."""
    for level in getattr(graph_of(model), "_nodes_by_depth", {}).values():
        yield from level


def inputs_of_graph(model: keras.Model) -> list[Any]:
    """Return the symbolic inputs of a model's graph; none for a subclassed model."""
    return list(getattr(graph_of(model), "inputs", []))


def graph_outputs(model: keras.Model) -> list[Any]:
    """Return the symbolic outputs of a model's graph; none for a subclassed model."""
    return list(getattr(graph_of(model), "outputs", []))


def operations_of(model: keras.Model) -> list[Any]:
    """Return the layers and operations of a model's graph; none for a subclassed model."""
    return list(getattr(graph_of(model), "operations", []))


def operation_name(operation: Any) -> str | None:
    """Return the name of an operation on arrays that is a node of a graph, such as "add".

    It is that of the class in lower case; None for a layer or an operation of another kind.
    """
    kind = type(operation)
    return kind.__name__.lower() if kind.__module__ == "keras.src.ops.numpy" else None


def activation_operation(operation: Any) -> str | None:
    """Return the name of an operation of a graph that is an activation function, such as "relu".

    It is that of the class in lower case; None for a layer or an operation of another kind.
    """
    name = type(operation).__name__.lower()
    is_activation = type(operation).__module__ == "keras.src.ops.nn" and (
        hasattr(keras.activations, name) or name in ("hardtanh", "hardsigmoid", "leakyrelu")
    )
    return name if is_activation or operation_name(operation) == "sign" else None


def input_shapes(layer: keras.Layer) -> list[tuple[int | None, ...]]:
    """Return the shape of the first input of each symbolic call of a layer."""
    return [tuple(node.input_tensors[0].shape) for node in layer._inbound_nodes]


def takes_masks(layer: keras.Layer) -> bool:
    """Return whether an input of a symbolic call of a layer has a mask."""
    inputs = [tensor for node in layer._inbound_nodes for tensor in node.input_tensors]
    return any(getattr(tensor, "_keras_mask", None) is not None for tensor in inputs)


def rename_nodes(graph: Any, replacements: Mapping[object, keras.Layer]) -> None:
    """Let a graph know its nodes by other layers; it names them by their layers' identity."""
    names = getattr(graph, "_nodes", None)
    if not names:
        return
    new_of = {str(id(old)): str(id(new)) for old, new in replacements.items()}
    parts = [name.partition("_ib-") for name in names]
    graph._nodes = {new_of.get(start, start) + middle + end for start, middle, end in parts}


def hand_over_nodes(old: keras.Layer, new: keras.Layer) -> None:
    """Make the symbolic calls of a layer calls of another one, which had none."""
    for index, node in enumerate(old._inbound_nodes):
        node.operation = new
        for position, tensor in enumerate(node.outputs):
            tensor._keras_history = type(tensor._keras_history)(new, index, position)
    new._inbound_nodes = list(old._inbound_nodes)
    new._outbound_nodes = list(old._outbound_nodes)
    old._inbound_nodes, old._outbound_nodes = [], []
