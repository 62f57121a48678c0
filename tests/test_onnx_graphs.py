"""Graphs are rewritten to the same floats, and repaired where runtimes refuse them."""

import numpy as np
import pytest

from conftest import on_one_backend
from quantal._export.onnx.repairs import repair_pooling
from quantal._export.onnx.shrink import shrink

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

pytestmark = on_one_backend  # ONNX alone

FLOAT = onnx.TensorProto.FLOAT


def model_of(nodes, tensors, inputs, outputs):
    values = [
        [onnx.helper.make_tensor_value_info(name, FLOAT, shape) for name, shape in ends.items()]
        for ends in (inputs, outputs)
    ]
    initializers = [onnx.numpy_helper.from_array(a, name) for name, a in tensors.items()]
    graph = onnx.helper.make_graph(nodes, "graph", *values, initializers)
    opsets = [onnx.helper.make_opsetid("", 21)]
    return onnx.helper.make_model(graph, opset_imports=opsets, ir_version=10)


def outputs_of(model, x):
    onnx.checker.check_model(model, full_check=True)
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    return session.run(None, {session.get_inputs()[0].name: x})[0]


def pooling(source, result, name, pads):
    """The nodes that jax2onnx 0.17.1 writes for one pooling of images, channels last."""
    make = onnx.helper.make_node
    attributes = {"kernel_shape": [1, 2, 3, 1], "strides": [1, 2, 1, 1], "pads": pads}
    return [
        make("Unsqueeze", [source, "axes"], [f"{name}a"]),
        make("Unsqueeze", [f"{name}a", "axes"], [f"{name}b"]),
        make("MaxPool", [f"{name}b"], [f"{name}c"], **attributes),
        make("Squeeze", [f"{name}c", "both"], [result]),
    ]


def test_several_poolings_over_all_axes_are_repaired(random):
    axes = {"axes": np.array([0]), "both": np.array([0, 1])}
    no_pads, one_column = [0] * 8, [0, 0, 1, 0, 0, 0, 1, 0]
    nodes = [
        *pooling("x", "h", "first", no_pads),
        onnx.helper.make_node("Relu", ["h"], ["r"]),
        *pooling("r", "y", "second", one_column),
    ]
    model = model_of(nodes, axes, {"x": [2, 8, 7, 3]}, {"y": [2, 2, 5, 3]})
    x = random.normal(size=(2, 8, 7, 3)).astype(np.float32)
    with pytest.raises(Exception, match="MaxPool"):
        outputs_of(model, x)
    repair_pooling(model.graph)
    assert [node.op_type for node in model.graph.node] == [
        *["Transpose", "MaxPool", "Transpose"], "Relu", *["Transpose", "MaxPool", "Transpose"],
    ]  # fmt: skip

    def pooled(array):
        windows = np.lib.stride_tricks.sliding_window_view(array, (2, 3), axis=(1, 2))
        return windows[:, ::2].max(axis=(-2, -1))

    hidden = np.maximum(pooled(x), 0)
    padded = np.pad(hidden, ((0, 0), (0, 0), (1, 1), (0, 0)))
    np.testing.assert_array_equal(outputs_of(model, x), pooled(padded))


def test_other_graphs_are_left_as_they_are():
    node = onnx.helper.make_node("MaxPool", ["x"], ["y"], kernel_shape=[2, 2])
    model = model_of([node], {}, {"x": [1, 3, 4, 4]}, {"y": [1, 3, 3, 3]})
    before = model.SerializeToString()
    repair_pooling(model.graph)
    assert model.SerializeToString() == before


LISTS = {
    "signs": [1, -1],
    "ternary": [1, 0, -1],
    "five": [1, 0.7, 0, -0.1, -0.2],
    "seventeen": np.linspace(-1, 1, 17),
}


@pytest.mark.parametrize("form", ["list", "scale of outputs", "scale of inputs", "lists"])
@pytest.mark.parametrize("name", LISTS)
def test_digits_are_the_same_floats(name, form, random):
    numbers = np.array(LISTS[name], np.float32)
    kernel = numbers[random.integers(0, len(numbers), (301, 40))]
    if form == "scale of outputs":
        kernel *= random.lognormal(size=40).astype(np.float32)
    elif form == "scale of inputs":
        kernel *= random.lognormal(size=(301, 1)).astype(np.float32)
    elif form == "lists":
        kernel = np.sign(kernel) * np.where(kernel > 0, 1, random.lognormal(size=40))
        kernel = kernel.astype(np.float32)
    product = onnx.helper.make_node("MatMul", ["x", "w"], ["y"])
    model = model_of([product], {"w": kernel}, {"x": [5, 301]}, {"y": [5, 40]})
    shrunk = shrink(model, [numbers])
    assert shrunk.ByteSize() < model.ByteSize() / 2
    x = random.normal(size=(5, 301)).astype(np.float32)
    np.testing.assert_array_equal(outputs_of(model, x), outputs_of(shrunk, x))
