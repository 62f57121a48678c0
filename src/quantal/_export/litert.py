"""Write LiteRT (TensorFlow Lite) files: weights of 2, 4 or 8 bits, 8-bit activations."""

import contextlib
import io
import pathlib
import re
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
from numpy.typing import NDArray

from quantal._core.keras_internals.layers import flatten_layers
from quantal._export.coded_tensor import CodedTensor, encode
from quantal._export.conversion import refused_by_name
from quantal._export.folding import folded
from quantal._export.grid import grid_of
from quantal._export.inputs import inputs_of
from quantal._export.lists import lists_of
from quantal._export.packages import import_package
from quantal._export.target import Paths, Written
from quantal._models.inputs import zero_inputs

_MOST_CHARACTERS = 200
"""A message names so much of the operators that are missing."""


def write_litert(model: keras.Model, path: pathlib.Path) -> Written:
    """Write a `.tflite` file whose discrete weights are integers, on the TensorFlow backend.

    Kernels of fully connected and Conv2D operations become integers where their list lies
    on a grid of even steps: 2 bits for ±1 and ternary, 4 for `[1, -1, 0.5, -0.5]`, 8 up to
    127 steps a side (convolutions at least 4). The step of each output channel is
    recovered exactly. LiteRT rounds what goes into these layers to 8 bits, so outputs are
    off by some hundredths of their spread. Other weights stay floats.

    Args:
        model: A built model.
        path: The file.

    Raises:
        ImportError: `ai_edge_quantizer` is not installed.
        ValueError: The backend is another; no weight lies on a grid; or a layer needs operators
            that LiteRT does not have.

    Source: the quantizer's algorithm `dequantized_weight_recovery`,
    https://github.com/google-ai-edge/ai-edge-quantizer.
    """
    if keras.config.backend() != "tensorflow":
        raise ValueError(
            f"The backend is {keras.config.backend()!r}. Keras writes LiteRT files on "
            "TensorFlow. Save with quantal.save, load with KERAS_BACKEND=tensorflow and export "
            "there, or export to '.onnx'."
        )
    quantizer = _import()
    floats = convert_to_litert(folded(model))
    _check_operators(model, floats)
    products = list(_products_on_grids(floats, lists_of(model)))
    if not products:
        raise ValueError(
            f"The model {model.name!r} has no kernel on a list with even steps. Expected one in "
            "a Dense or Conv2D, such as ±1, ternary or [1, -1, 0.5, -0.5]. Export to '.onnx', "
            "which holds any list."
        )
    recipe = quantizer.quantizer.Quantizer(floats)
    for product in products:
        recipe.add_dynamic_config(
            regex=f"^{re.escape(product.scope)}$",
            operation_name=product.operation,
            num_bits=product.bits,
            algorithm_key=quantizer.algorithm_manager.AlgorithmName.DEQUANTIZED_WEIGHT_RECOVERY,
        )
    with contextlib.redirect_stdout(io.StringIO()):
        packed = bytes(recipe.quantize().quantized_model)
    return Written(_write(packed, path), lambda other_path: _write(floats, other_path))


def _write(file: bytes, path: pathlib.Path) -> Paths:
    path.write_bytes(file)
    return [path]


def convert_to_litert(plain: keras.Model, **settings: Any) -> bytes:
    """Return a plain model as a file, by Keras's exporter.

    Args:
        plain: A plain model.
        settings: The exporter's settings; without them the file's weights are floats.

    Raises:
        ValueError: Keras's exporter cannot convert the model.
    """
    with (
        tempfile.TemporaryDirectory() as folder,
        warnings.catch_warnings(),
        contextlib.redirect_stdout(io.StringIO()),
        refused_by_name(plain, "LiteRT", "Export to '.onnx'"),
    ):
        plain(zero_inputs(inputs_of(plain)))
        warnings.simplefilter("ignore")
        path = pathlib.Path(folder) / "model.tflite"
        plain.export(path, format="litert", verbose=False, **settings)
        return path.read_bytes()


def _check_operators(model: keras.Model, file: bytes) -> None:
    """Refuse operators of TensorFlow, which are none of LiteRT's."""
    codes = _import().utils.tfl_flatbuffer_utils.read_model(file).operatorCodes
    custom = sorted({bytes(code.customCode).decode() for code in codes if code.customCode})
    if custom:
        recurrent = [
            f"{layer.name!r} ({type(layer).__name__})"
            for layer in flatten_layers(model)
            if isinstance(layer, (keras.layers.RNN, keras.layers.Bidirectional))
        ]
        layers = f"its recurrent layers {', '.join(recurrent)}" if recurrent else "its layers"
        raise ValueError(
            f"The model {model.name!r} needs operators that LiteRT does not have, for {layers}: "
            f"{', '.join(custom)[:_MOST_CHARACTERS]}. Expected layers of LiteRT's own operators. "
            "Create recurrent layers with unroll=True and a fixed length, or export to '.onnx'."
        )


class _Product(NamedTuple):
    """An operation of a file whose kernel becomes integers of so many bits."""

    scope: str
    operation: Any
    bits: int


def _products_on_grids(file: bytes, lists: Sequence[NDArray[np.float32]]) -> Iterator[_Product]:
    """Yield the products of a file with a kernel on a grid."""
    quantizer = _import()
    reader, names = quantizer.utils.tfl_flatbuffer_utils, quantizer.qtyping.TFLOperationName
    fewest_bits = {names.FULLY_CONNECTED: 2, names.CONV_2D: 4}
    model = reader.read_model(file)
    for graph in model.subgraphs:
        for operator in graph.operators:
            code = model.operatorCodes[operator.opcodeIndex].builtinCode
            operation = reader.TFL_OP_CODE_TO_NAME.get(code)
            if operation not in fewest_bits:
                continue
            kernel = reader.get_tensor_data(graph.tensors[operator.inputs[1]], model.buffers)
            if kernel is None or kernel.dtype != np.float32:
                continue
            bits = _signed_bits(encode(kernel, lists))
            if bits is not None:
                scope = reader.get_op_scope(operator, graph.tensors)
                yield _Product(scope, operation, max(bits, fewest_bits[operation]))


def _signed_bits(coded: CodedTensor | None) -> int | None:
    """Return the bits of signed integers that hold a kernel whose first axis is its outputs."""
    if coded is None or coded.numbers.ndim > 1 or coded.axis not in (None, 0):
        return None
    grid = grid_of(coded.numbers, 127)
    if grid is None:
        return None
    low, high = int(grid.integers.min()), int(grid.integers.max())
    fitting = (bits for bits in (2, 4, 8) if -(2 ** (bits - 1)) <= low and high < 2 ** (bits - 1))
    return next(fitting, None)


def _import() -> Any:
    # The reader of files is no attribute of the package before it is imported.
    import_package("ai_edge_quantizer.utils.tfl_flatbuffer_utils", ".tflite", "litert")
    return import_package("ai_edge_quantizer", ".tflite", "litert")
