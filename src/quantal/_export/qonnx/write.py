"""Write a model as QONNX."""

import math
import pathlib

import keras

from quantal._export.graph.reader import read_graph
from quantal._export.graph.steps import Function, Graph, Nearest, Node
from quantal._export.packages import import_onnx
from quantal._export.qonnx.emitter import Emitter, Value
from quantal._export.qonnx.nodes import write_node
from quantal._export.target import Written

_RELU = (0.0, 0.0, math.inf)
"""The constants of a plain ReLU."""


def without_idle_nodes(graph: Graph) -> list[tuple[int, Node]]:
    """Return the nodes of a graph with their values, without a ReLU that changes nothing.

    It changes nothing right before a rounding to levels from 0 on.
    """
    nodes = dict(enumerate(graph.nodes, len(graph.inputs)))
    for value, node in nodes.items():
        if isinstance(node.step, Nearest) and node.step.levels[0] >= 0:
            before = nodes.get(node.sources[0])
            if (
                before is not None
                and isinstance(before.step, Function)
                and before.step.numbers == _RELU
            ):
                nodes[value] = node._replace(sources=before.sources)
    needed = {output.value for output in graph.outputs}
    for value in sorted(nodes, reverse=True):
        if value in needed:
            needed.update(nodes[value].sources)
    return [(value, node) for value, node in nodes.items() if value in needed]


def write_qonnx(model: keras.Model, path: pathlib.Path) -> Written:
    """Write ONNX with QONNX's quantizers, for FINN and other tools that make hardware.

    Weights on lists are floats behind a `Quant`, whose scale, bits and sign say which integers they
    are, or behind a `BipolarQuant` for ±1; a scale of each channel is a multiplication behind the
    product. A `DiscreteActivation` is such a node, too. It is written on every backend, from the
    layers themselves, for one sample a call.

    Args:
        model: A built model with a fixed input shape.
        path: The file.

    Raises:
        ImportError: `onnx` is not installed.
        ValueError: A list has no even steps, or a layer is none that the target holds.

    Source: https://github.com/fastmachinelearning/qonnx, "Quant" and "BipolarQuant".
    """
    import_onnx()
    graph = read_graph(model, "qonnx")
    emitter = Emitter()
    names = [tensor.name for tensor in model.inputs]
    inputs = [emitter.input(name, shape) for name, shape in zip(names, graph.inputs, strict=True)]
    values = dict(enumerate(inputs))
    for value, node in without_idle_nodes(graph):
        sources = [values[source] for source in node.sources]
        values[value] = write_node(emitter, node, sources)
    outputs: list[Value] = []
    for output in graph.outputs:
        last = emitter.in_order(values[output.value], output.shape)
        if any(last.name == other.name for other in (*inputs, *outputs)):
            last = emitter.node("Identity", [last.name], last)
        outputs.append(last)
    proto = emitter.model(inputs, outputs, model.name)
    path.write_bytes(proto.SerializeToString(deterministic=True))
    return Written([path])
