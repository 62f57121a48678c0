"""Put packed digits in place of the float tensors of an ONNX graph."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quantal._export.coded_tensor import CodedTensor, encode
from quantal._export.onnx.graphs import set_entries
from quantal._export.packages import import_onnx
from quantal._storage import radix
from quantal._storage.radix import Words

WORTH = 512
"""A tensor becomes digits where that saves more bytes, since the nodes take some too."""

_INT32 = 6  # onnx.TensorProto.INT32


def shrink(
    model: Any,
    lists: Sequence[NDArray[np.float32]] = (),
    keep: Callable[[str, CodedTensor], bool] = lambda name, coded: False,
    worth: int = WORTH,
) -> Any:
    """Return an `onnx.ModelProto` with packed digits in place of floats, equal to the bit.

    Args:
        model: An `onnx.ModelProto`; it is left as it is.
        lists: Lists that its weights are on, each float32 (K,), to recognize a list with
            a scale multiplied into it.
        keep: Says of a tensor, by its name and what it is coded as, whether it stays floats.
        worth: How many bytes a tensor must save to become digits.
    """
    onnx = import_onnx()
    shrunk = onnx.ModelProto()
    shrunk.CopyFrom(model)
    rewriting = _Rewriting(shrunk.graph)
    for tensor in list(_float_tensors(shrunk.graph)):
        floats = onnx.numpy_helper.to_array(tensor)
        coded = encode(floats, lists) if floats.size else None
        if coded is None or coded.bytes + worth >= floats.nbytes:
            continue
        if not keep(tensor.name, coded):
            rewriting.replace(tensor.name, coded)
    rewriting.finish()
    return shrunk


def _float_tensors(graph: Any) -> Iterator[Any]:
    """Yield the float32 tensors of a graph; Constant nodes become initializers first."""
    onnx = import_onnx()
    constants = [node for node in graph.node if node.op_type == "Constant"]
    for node in constants:
        (attribute,) = node.attribute
        if attribute.HasField("t") and attribute.t.data_type == onnx.TensorProto.FLOAT:
            tensor = graph.initializer.add()
            tensor.CopyFrom(attribute.t)
            tensor.name = node.output[0]
            graph.node.remove(node)
    for tensor in graph.initializer:
        if tensor.data_type == onnx.TensorProto.FLOAT:
            yield tensor


class _Rewriting:
    """A rewriting collects the nodes and tensors that replace a graph's float tensors."""

    def __init__(self, graph: Any) -> None:
        self._graph = graph
        self._nodes: list[Any] = []
        self._tensors: dict[str, Any] = {}
        self._replaced: set[str] = set()

    def replace(self, name: str, coded: CodedTensor) -> None:
        """Compute the tensor of this name by nodes, from a coded tensor."""
        codes = self._codes(name, coded)
        numbers = self._tensor(f"{name}/values", coded.numbers.ravel())
        if coded.axis is None:
            self._node("Gather", [numbers, codes], name)
        elif coded.scale is None:
            channels, length = coded.numbers.shape
            first = coded.along_axis(np.arange(channels, dtype=np.int32) * length)
            first_name = self._tensor(f"{name}/first", first)
            codes = self._node("Add", [codes, first_name], f"{name}/places")
            self._node("Gather", [numbers, codes], name)
        else:
            scale = self._tensor(f"{name}/scale", coded.along_axis(coded.scale))
            listed = self._node("Gather", [numbers, codes], f"{name}/listed")
            self._node("Mul", [listed, scale], name)
        self._replaced.add(name)

    def finish(self) -> None:
        """Put the new nodes before all others, and remove the floats."""
        kept = [tensor for tensor in self._graph.initializer if tensor.name not in self._replaced]
        nodes = [*self._nodes, *self._graph.node]
        # Older versions of ONNX list initializers as inputs too.
        inputs = [i for i in self._graph.input if i.name not in self._replaced]
        set_entries(self._graph, "initializer", [*self._tensors.values(), *kept])
        set_entries(self._graph, "node", nodes)
        set_entries(self._graph, "input", inputs)

    def _codes(self, name: str, coded: CodedTensor) -> str:
        """Return the name of the codes as int32 in the tensor's shape, unpacked from bytes."""
        words = _words_of_a_byte(max(coded.numbers.shape[-1], 2))
        data = np.frombuffer(radix.encode(coded.codes.ravel(), words), np.uint8)
        if words.digits == 1:
            codes = self._tensor(f"{name}/packed", data.reshape(coded.codes.shape))
        else:
            codes = self._digits(name, data, words, coded.codes.shape)
        return self._node("Cast", [codes], f"{name}/codes", to=_INT32)

    def _digits(
        self, name: str, data: NDArray[np.uint8], words: Words, shape: tuple[int, ...]
    ) -> str:
        """Return the name of uint8 digits in a shape, looked up by the bytes that hold them."""
        size = int(np.prod(shape))
        packed = self._tensor(f"{name}/packed", data)
        indices = self._node("Cast", [packed], f"{name}/bytes", to=_INT32)
        # Only bytes that occur: fewer than 256 where the base is no power of two.
        table = radix.digit_table(words)[: words.base**words.digits]
        table_name = self._tensor(f"quantal/digits{words.base}", table)
        digits = self._node("Gather", [table_name, indices], f"{name}/digits")
        if len(data) * words.digits > size:
            flat = self._tensor("quantal/flat", np.array([-1], np.int64))
            digits = self._node("Reshape", [digits, flat], f"{name}/digits_flat")
            begin = self._tensor("quantal/begin", np.array([0], np.int64))
            end = self._tensor(f"{name}/size", np.array([size], np.int64))
            digits = self._node("Slice", [digits, begin, end], f"{name}/digits_cut")
        shape_name = self._tensor(f"{name}/shape", np.array(shape, np.int64))
        return self._node("Reshape", [digits, shape_name], f"{name}/digits_shaped")

    def _tensor(self, name: str, array: NDArray[Any]) -> str:
        if name not in self._tensors:
            self._tensors[name] = import_onnx().numpy_helper.from_array(array, name)
        return name

    def _node(self, kind: str, inputs: list[str], output: str, **attributes: Any) -> str:
        node = import_onnx().helper.make_node(kind, inputs, [output], name=output, **attributes)
        self._nodes.append(node)
        return output


def _words_of_a_byte(base: int) -> Words:
    """Return words of one byte, with as many digits as fit."""
    digits = 1
    while base ** (digits + 1) <= 256:
        digits += 1
    return Words(base, digits, 1)
