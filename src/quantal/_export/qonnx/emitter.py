"""Collect the nodes and tensors of an ONNX graph, with images in ONNX's order or in Keras's."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from quantal._export.graph.steps import Shape
from quantal._export.packages import import_onnx

QONNX = "qonnx.custom_op.general"
"""The domain of QONNX's operators."""
_OPSET = 11
"""The version of ONNX's operators that QONNX and FINN transform."""
_IR_VERSION = 8
"""A version of the file's form that older runtimes read, too."""


class Value(NamedTuple):
    """A value is a tensor of the graph, in one of two orders of its axes.

    Attributes:
        name: The tensor's name.
        shape: The shape of a sample, without the axis of samples, as the tensor has it.
        is_image: Whether the channels stand before rows and columns, as ONNX has them.
    """

    name: str
    shape: Shape
    is_image: bool = False


class Emitter:
    """An emitter collects a graph's nodes, constants and the shapes of its tensors.

    The graph takes one sample: tools for hardware need fixed shapes.
    """

    def __init__(self) -> None:
        self._nodes: list[Any] = []
        self._constants: dict[str, Any] = {}
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._arranged: dict[tuple[str, Shape, bool], Value] = {}

    def constant(self, name: str, array: NDArray[Any]) -> str:
        """Add a constant tensor under an unused name, and return that name."""
        name = self._unused(name)
        self._constants[name] = import_onnx().numpy_helper.from_array(np.asarray(array), name)
        self._shapes[name] = tuple(np.shape(array))
        return name

    def node(
        self,
        kind: str,
        inputs: Sequence[str],
        value: Value,
        *,
        constant: bool = False,
        domain: str = "",
        **attributes: Any,
    ) -> Value:
        """Add a node, and return its output.

        Args:
            kind: The operator.
            inputs: The names of its inputs.
            value: The output: a name, which is made unused, the shape and the order of axes.
            constant: Whether it is computed from constants, and has no axis of samples.
            domain: The operator's domain.
            attributes: The operator's attributes.
        """
        name = self._unused(value.name)
        shape = value.shape if constant else (1, *value.shape)
        self._shapes[name] = shape
        self._nodes.append(
            import_onnx().helper.make_node(
                kind, list(inputs), [name], name=f"{kind}_{name}", domain=domain, **attributes
            )
        )
        return value._replace(name=name)

    def input(self, name: str, shape: Shape) -> Value:
        """Register an input of the graph."""
        self._shapes[name] = (1, *shape)
        return Value(name, shape)

    def in_order(self, value: Value, shape: Shape) -> Value:
        """Return a value in Keras's order of axes, in a shape."""
        if value.is_image:
            channels, height, width = value.shape
            if height == width == 1:
                return self._reshaped(value._replace(is_image=False), shape)
            value = self._transposed(value, (height, width, channels), (0, 2, 3, 1))
        return self._reshaped(value, shape)

    def as_image(self, value: Value, shape: Shape) -> Value:
        """Return a value as an image, channels first, from its rows, columns and channels."""
        height, width, channels = shape
        first = channels, height, width
        if value.is_image and value.shape == first:
            return value
        return self._transposed(self.in_order(value, shape), first, (0, 3, 1, 2))

    def _reshaped(self, value: Value, shape: Shape) -> Value:
        if value.shape == shape:
            return value
        key = (value.name, shape, False)
        if key not in self._arranged:
            sizes = self.constant(f"{value.name}_shape", np.array([1, *shape], np.int64))
            new = Value(f"{value.name}_reshaped", shape)
            self._arranged[key] = self.node("Reshape", [value.name, sizes], new)
        return self._arranged[key]

    def _transposed(self, value: Value, shape: Shape, order: tuple[int, ...]) -> Value:
        key = (value.name, shape, True)
        if key not in self._arranged:
            new = Value(f"{value.name}_transposed", shape, is_image=not value.is_image)
            self._arranged[key] = self.node("Transpose", [value.name], new, perm=order)
        return self._arranged[key]

    def model(self, inputs: Sequence[Value], outputs: Sequence[Value], name: str) -> Any:
        """Return the graph as an `onnx.ModelProto`."""
        helper, types = import_onnx().helper, import_onnx().TensorProto
        ends = {value.name for value in (*inputs, *outputs)}

        def described(name: str) -> Any:
            return helper.make_tensor_value_info(name, types.FLOAT, self._shapes[name])

        between = [n for n in self._shapes if n not in ends and n not in self._constants]
        graph = helper.make_graph(
            self._nodes,
            name,
            [described(value.name) for value in inputs],
            [described(value.name) for value in outputs],
            list(self._constants.values()),
            value_info=[described(name) for name in between],
        )
        versions = [helper.make_opsetid("", _OPSET), helper.make_opsetid(QONNX, 1)]
        return helper.make_model(
            graph, opset_imports=versions, ir_version=_IR_VERSION, producer_name="quantal"
        )

    def _unused(self, name: str) -> str:
        number, unused = 1, name
        while unused in self._shapes:
            number += 1
            unused = f"{name}_{number}"
        return unused
