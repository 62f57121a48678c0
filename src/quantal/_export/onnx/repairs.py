"""Repair graphs that Keras's ONNX exporters write and runtimes refuse."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from quantal._export.onnx.graphs import set_entries
from quantal._export.packages import import_onnx


class _Pooling(NamedTuple):
    """A MaxPool over all axes, and the nodes around it that change the rank.

    Attributes:
        before: The two Unsqueezes that raise the rank.
        pool: The MaxPool.
        after: The Squeeze that lowers the rank.
    """

    before: list[Any]
    pool: Any
    after: Any


def repair(graph: Any) -> None:
    """Repair a graph in every way that is known.

    Args:
        graph: An `onnx.GraphProto`, which is changed.
    """
    repair_pooling(graph)
    repair_error_functions(graph)


def repair_error_functions(graph: Any) -> None:
    """Compute 1 - Erf(x) where a graph asks for Erfc(x), which is no operator of ONNX.

    tf2onnx 1.17 writes it for gelu. The repair can go when `tests/test_onnx_graphs.py` passes
    without it.

    Args:
        graph: An `onnx.GraphProto`, which is changed.
    """
    onnx = import_onnx()
    if not any(node.op_type == "Erfc" for node in graph.node):
        return
    one = onnx.numpy_helper.from_array(np.float32(1), "quantal/one")
    nodes: list[Any] = []
    for node in graph.node:
        if node.op_type == "Erfc":
            erf = f"{node.output[0]}/erf"
            nodes.append(onnx.helper.make_node("Erf", list(node.input), [erf], name=erf))
            names = [one.name, erf], list(node.output)
            nodes.append(onnx.helper.make_node("Sub", *names, name=node.name))
        else:
            nodes.append(node)
    set_entries(graph, "node", nodes)
    graph.initializer.append(one)


def repair_pooling(graph: Any) -> None:
    """Pool over the axes of positions alone, where a graph pools over all axes.

    jax2onnx 0.17.1 writes two Unsqueezes, a MaxPool over the axes of samples and channels
    too, with windows of 1, and a Squeeze; onnxruntime 1.32 refuses a MaxPool over four axes.
    A Transpose, a MaxPool over the positions and a Transpose take the place of these nodes.
    The repair can go when `tests/test_runtimes.py` passes on JAX without it.

    Args:
        graph: An `onnx.GraphProto`, which is changed.
    """
    poolings = list(_poolings_over_all_axes(graph))
    if not poolings:
        return
    replaced = [node for pooling in poolings for node in (*pooling.before, pooling.after)]
    nodes: list[Any] = []
    for node in graph.node:
        pooling = next((pooling for pooling in poolings if pooling.pool is node), None)
        if pooling is not None:
            nodes += _over_positions(pooling)
        elif not any(node is other for other in replaced):
            nodes.append(node)
    set_entries(graph, "node", nodes)


def _poolings_over_all_axes(graph: Any) -> Iterator[_Pooling]:
    producers = {output: node for node in graph.node for output in node.output}
    users = {name: node for node in graph.node for name in node.input}
    for pool in graph.node:
        if pool.op_type != "MaxPool":
            continue
        kernel = _attributes(pool).get("kernel_shape", [])
        if len(kernel) < 3 or kernel[0] != 1 or kernel[-1] != 1:
            continue
        squeeze = users.get(pool.output[0])
        second = producers.get(pool.input[0])
        first = second and producers.get(second.input[0])
        around = [node.op_type for node in (first, second, squeeze) if node]
        if around == ["Unsqueeze", "Unsqueeze", "Squeeze"]:
            yield _Pooling([first, second], pool, squeeze)


def _over_positions(pooling: _Pooling) -> list[Any]:
    """Return the nodes that pool over positions, channels first as ONNX has them."""
    helper = import_onnx().helper
    attributes = _attributes(pooling.pool)
    rank = len(attributes["kernel_shape"])
    for key in ("kernel_shape", "strides", "dilations"):
        if key in attributes:
            attributes[key] = list(attributes[key])[1:-1]
    if "pads" in attributes:  # Those before all axes, then those behind all axes.
        pads = list(attributes["pads"])
        attributes["pads"] = pads[1 : rank - 1] + pads[rank + 1 : -1]
    channels_first = [0, rank - 1, *range(1, rank - 1)]
    channels_last = [0, *range(2, rank), 1]
    name, source = pooling.pool.output[0], pooling.before[0].input[0]
    first, pooled = f"{name}/first", f"{name}/pooled"
    return [
        helper.make_node("Transpose", [source], [first], perm=channels_first),
        helper.make_node("MaxPool", [first], [pooled], **attributes),
        helper.make_node("Transpose", [pooled], list(pooling.after.output), perm=channels_last),
    ]


def _attributes(node: Any) -> dict[str, Any]:
    helper = import_onnx().helper
    return {a.name: helper.get_attribute_value(a) for a in node.attribute}
