"""ONNX: what Keras's exporter writes, with discrete weights as packed digits."""

import os
import pathlib
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from quantal._core.parameter import parameters_of
from quantal._export.folding import folded
from quantal._export.inputs import inputs_of
from quantal._export.tables import Table, table_of
from quantal._models.inputs import zero_inputs
from quantal._storage.atomic import replace_file
from quantal._storage.radix import Words, digit_table, encode

WORTH = 512
"""A tensor becomes digits where that saves as many bytes: the nodes take some, too."""


def write_onnx(model: keras.Model, path: str | os.PathLike[str]) -> list[pathlib.Path]:
    """An ONNX file whose discrete weights take as few bits as their lists allow.

    Made by Keras's own exporter from the plain model, then rewritten: every tensor that
    holds few different numbers, or few times a scale, becomes packed base-K digits,
    which standard operators (Cast, Gather, Reshape, Mul) turn into the same floats, bit
    for bit. Runtimes do that once, when they load the file: speed and memory are those
    of the floats, the file is 32, 20, 16 or 8 times smaller for 2, 3, 4 or 16 values.

    Args:
        model: A built model.
        path: The file.

    Returns:
        The files written.

    On PyTorch a model whose shapes its exporter cannot leave open takes one sample a call.

    Raises:
        ImportError: `onnx` is not installed, or what Keras's exporter needs: tf2onnx on
            TensorFlow, jax2onnx on JAX, onnxscript on PyTorch.
        ValueError: As `quantal.bake`.
    """
    graph = shrink(converted(model), [p.values.numbers for p in parameters_of(model)])
    return _write(graph, path)


def write_onnx_floats(model: keras.Model, path: str | os.PathLike[str]) -> list[pathlib.Path]:
    """The same file with floats, as Keras's exporter writes it; as `write_onnx` otherwise."""
    return _write(converted(model), path)


def _write(graph: Any, path: str | os.PathLike[str]) -> list[pathlib.Path]:
    with replace_file(path) as file:
        file.write(graph.SerializeToString(deterministic=True))
    return [pathlib.Path(path)]


def converted(model: keras.Model) -> Any:
    """The plain model as Keras's exporter gives it: an `onnx.ModelProto` with floats."""
    onnx = import_onnx()
    plain = folded(model)
    # A model that was never called is refused on JAX.
    plain(zero_inputs(inputs_of(plain)))
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        # Of the tracers, about themselves.
        warnings.simplefilter("ignore")
        beside = os.path.join(folder, "model.onnx")
        try:
            plain.export(beside, format="onnx", verbose=False)
        except Exception:
            if keras.config.backend() != "torch":
                raise
            # PyTorch's exporter of open shapes knows less than that of fixed ones.
            plain.export(beside, format="onnx", verbose=False, input_signature=_alone(plain))
        made = onnx.load(beside)
    _repair_pooling(made.graph)
    return made


def shrink(
    model: Any,
    lists: Sequence[NDArray[np.float32]] = (),
    keep: Callable[[Table], bool] = lambda table: False,
) -> Any:
    """An `onnx.ModelProto` with packed digits in place of floats; the same to the bit.

    Args:
        model: An `onnx.ModelProto`; it is left as it is.
        lists: Lists that its weights are on, which help to find a scale folded into them.
        keep: Which tensors, by their tables, stay floats.
    """
    onnx = import_onnx()
    made = onnx.ModelProto()
    made.CopyFrom(model)
    rewriting = _Rewriting(made.graph)
    lists = [numbers for numbers in lists if numbers.ndim == 1]
    for tensor in list(_float_tensors(made.graph)):
        floats = onnx.numpy_helper.to_array(tensor)
        table = table_of(floats, lists) if floats.size else None
        if table is not None and table.bytes + WORTH < floats.nbytes and not keep(table):
            rewriting.replace(tensor.name, table)
    rewriting.finish()
    return made


def _float_tensors(graph: Any) -> Iterator[Any]:
    """The float32 tensors of a graph, those of Constant nodes made initializers first."""
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


def replaced(graph: Any, field: str, entries: Sequence[Any]) -> None:
    """Set a repeated field of a graph, also from entries of its own."""
    copies = []
    for entry in entries:
        copies.append(type(entry)())
        copies[-1].CopyFrom(entry)
    del getattr(graph, field)[:]
    getattr(graph, field).extend(copies)


class _Rewriting:
    """Nodes and tensors that take the place of a graph's float tensors."""

    def __init__(self, graph: Any) -> None:
        self._graph = graph
        self._nodes: list[Any] = []
        self._tensors: dict[str, Any] = {}
        self._replaced: set[str] = set()

    def replace(self, name: str, table: Table) -> None:
        """Make the tensor of this name by nodes, from a table."""
        codes = self._codes(name, table)
        numbers = self._tensor(f"{name}/values", table.numbers.ravel())
        if table.axis is None:
            self._node("Gather", [numbers, codes], name)
        else:
            ranks = np.ones(table.codes.ndim, int)
            ranks[table.axis] = -1
            if table.scale is None:
                channels, length = table.numbers.shape
                first = (np.arange(channels, dtype=np.int32) * length).reshape(ranks)
                first_name = self._tensor(f"{name}/first", first)
                codes = self._node("Add", [codes, first_name], f"{name}/places")
                self._node("Gather", [numbers, codes], name)
            else:
                scale = self._tensor(f"{name}/scale", table.scale.reshape(ranks))
                listed = self._node("Gather", [numbers, codes], f"{name}/listed")
                self._node("Mul", [listed, scale], name)
        self._replaced.add(name)

    def finish(self) -> None:
        """Put the new nodes before all others, and take the floats out."""
        kept = [tensor for tensor in self._graph.initializer if tensor.name not in self._replaced]
        nodes = [*self._nodes, *self._graph.node]
        # Older versions list initializers as inputs, too.
        inputs = [i for i in self._graph.input if i.name not in self._replaced]
        replaced(self._graph, "initializer", [*self._tensors.values(), *kept])
        replaced(self._graph, "node", nodes)
        replaced(self._graph, "input", inputs)

    def _codes(self, name: str, table: Table) -> str:
        """The codes as int32 in the tensor's shape, unpacked from bytes."""
        words = _byte_words(max(table.numbers.shape[-1], 2))
        data = np.frombuffer(encode(table.codes.ravel(), words), np.uint8)
        if words.digits > 1:
            packed = self._tensor(f"{name}/packed", data)
            places = self._node("Cast", [packed], f"{name}/bytes", to=_INT32)
            digits = self._tensor(f"quantal/digits{words.base}", _digits(words))
            codes = self._node("Gather", [digits, places], f"{name}/digits")
            if len(data) * words.digits > table.codes.size:
                flat = self._tensor("quantal/flat", np.array([-1], np.int64))
                codes = self._node("Reshape", [codes, flat], f"{name}/digits_flat")
                end = np.array([table.codes.size], np.int64)
                begin = self._tensor("quantal/begin", np.array([0], np.int64))
                ends = self._tensor(f"{name}/size", end)
                codes = self._node("Slice", [codes, begin, ends], f"{name}/digits_cut")
            shape = self._tensor(f"{name}/shape", np.array(table.codes.shape, np.int64))
            codes = self._node("Reshape", [codes, shape], f"{name}/digits_shaped")
        else:
            codes = self._tensor(f"{name}/packed", data.reshape(table.codes.shape))
        return self._node("Cast", [codes], f"{name}/codes", to=_INT32)

    def _tensor(self, name: str, array: NDArray[Any]) -> str:
        if name not in self._tensors:
            self._tensors[name] = import_onnx().numpy_helper.from_array(array, name)
        return name

    def _node(self, kind: str, inputs: list[str], output: str, **attributes: Any) -> str:
        made = import_onnx().helper.make_node(kind, inputs, [output], name=output, **attributes)
        self._nodes.append(made)
        return output


_INT32 = 6  # onnx.TensorProto.INT32


def _byte_words(base: int) -> Words:
    """As many digits as fit a byte."""
    digits = 1
    while base ** (digits + 1) <= 256:
        digits += 1
    return Words(base, digits, 1)


def _digits(words: Words) -> NDArray[np.uint8]:
    """The digits of each byte that occurs."""
    return digit_table(words)[: words.base**words.digits]


def _alone(model: keras.Model) -> list[Any]:
    """Inputs for one sample, of fixed shape."""
    specs = [keras.InputSpec(i.dtype, (1, *i.shape[1:]), name=i.name) for i in model.inputs]
    return [specs[0] if len(specs) == 1 else specs]


def _repair_pooling(graph: Any) -> None:
    """Pooling over channels-last axes, as jax2onnx writes it, in a form that runs.

    It pads the rank by two and pools over all four axes, which onnxruntime refuses.
    """
    helper = import_onnx().helper
    makers = {output: node for node in graph.node for output in node.output}
    users = {name: node for node in graph.node for name in node.input}
    for node in [node for node in graph.node if node.op_type == "MaxPool"]:
        attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
        kernel = list(attributes.get("kernel_shape", []))
        around = len(kernel)
        if around < 3 or kernel[0] != 1 or kernel[-1] != 1:
            continue
        after = users.get(node.output[0])
        above = makers.get(node.input[0])
        before = above and makers.get(above.input[0])
        if not (after and before and after.op_type == "Squeeze" and before.op_type == "Unsqueeze"):
            continue
        attributes["kernel_shape"] = kernel[1:-1]
        for key in ("strides", "dilations"):
            if key in attributes:
                attributes[key] = list(attributes[key])[1:-1]
        if "pads" in attributes:
            pads = list(attributes["pads"])
            attributes["pads"] = pads[1 : around - 1] + pads[around + 1 : -1]
        order = [0, around - 1, *range(1, around - 1)]
        back = [0, *range(2, around), 1]
        name = node.output[0]
        made = [
            helper.make_node("Transpose", [before.input[0]], [f"{name}/first"], perm=order),
            helper.make_node("MaxPool", [f"{name}/first"], [f"{name}/pooled"], **attributes),
            helper.make_node("Transpose", [f"{name}/pooled"], list(after.output), perm=back),
        ]
        place = list(graph.node).index(node)
        nodes = list(graph.node)
        nodes[place : place + 1] = made
        nodes = [n for n in nodes if n is not after and n is not above and n is not before]
        del graph.node[:]
        graph.node.extend(nodes)


def import_onnx() -> Any:
    """The package onnx, or an ImportError that says how to get it."""
    try:
        import onnx
    except ImportError as error:
        raise ImportError(
            "onnx is not installed. Expected it for a file that ends in '.onnx'. Run "
            "pip install 'quantal[onnx]'."
        ) from error
    return onnx
