"""LiteRT (TensorFlow Lite): weights as integers of 2, 4 or 8 bits, 8-bit activations."""

import contextlib
import io
import os
import pathlib
import re
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from quantal._core.parameter import parameters_of
from quantal._export.folding import folded
from quantal._export.inputs import inputs_of
from quantal._export.tables import Table, grid_of, table_of
from quantal._models.inputs import zero_inputs
from quantal._storage.atomic import replace_file


def write_litert(model: keras.Model, path: str | os.PathLike[str]) -> list[pathlib.Path]:
    """A `.tflite` file whose discrete weights are integers, on the TensorFlow backend.

    Taken are kernels of fully connected and Conv2D operations whose list lies on a grid of even
    steps: 2 bits for ±1 and ternary, 4 for `[1, -1, 0.5, -0.5]`, 8 up to 127 steps a
    side (convolutions at least 4). The step of each
    output channel is recovered exactly. LiteRT rounds what goes into these layers to 8
    bits, so outputs are off by some hundredths of their spread. Other weights stay
    floats.

    Args:
        model: A built model.
        path: The file.

    Returns:
        The files written.

    Raises:
        ImportError: `ai_edge_quantizer` is not installed.
        ValueError: The backend is another; or no weight lies on a grid.

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
    floats = _converted(folded(model))
    lists = [p.values.numbers for p in parameters_of(model) if p.values.numbers.ndim == 1]
    made = quantizer.quantizer.Quantizer(floats)
    chosen = list(_chosen(floats, lists))
    if not chosen:
        raise ValueError(
            f"The model {model.name!r} has no kernel on a list with even steps. Expected one in "
            "a Dense or Conv2D, such as ±1, ternary or [1, -1, 0.5, -0.5]. Export to '.onnx', "
            "which holds any list."
        )
    for scope, operation, bits in chosen:
        made.add_dynamic_config(
            regex=f"^{re.escape(scope)}$",
            operation_name=operation,
            num_bits=bits,
            algorithm_key=quantizer.algorithm_manager.AlgorithmName.DEQUANTIZED_WEIGHT_RECOVERY,
        )
    with contextlib.redirect_stdout(io.StringIO()):
        data = bytes(made.quantize().quantized_model)
    with replace_file(path) as file:
        file.write(data)
    return [pathlib.Path(path)]


def write_litert_floats(model: keras.Model, path: str | os.PathLike[str]) -> list[pathlib.Path]:
    """The same file with floats, as Keras's exporter writes it; as `write_litert` otherwise."""
    with replace_file(path) as file:
        file.write(_converted(folded(model)))
    return [pathlib.Path(path)]


def _converted(plain: keras.Model) -> bytes:
    """A plain model as Keras's exporter gives it."""
    plain(zero_inputs(inputs_of(plain)))
    with (
        tempfile.TemporaryDirectory() as folder,
        warnings.catch_warnings(),
        contextlib.redirect_stdout(io.StringIO()),
    ):
        warnings.simplefilter("ignore")
        beside = pathlib.Path(folder) / "model.tflite"
        plain.export(beside, format="litert", verbose=False)
        return beside.read_bytes()


def _chosen(file: bytes, lists: Sequence[NDArray[np.float32]]) -> Iterator[tuple[str, Any, int]]:
    """Scope, operation and bits of each product with a kernel on a grid."""
    quantizer = _import()
    reader, names = quantizer.utils.tfl_flatbuffer_utils, quantizer.qtyping.TFLOperationName
    fewest = {names.FULLY_CONNECTED: 2, names.CONV_2D: 4}
    model = reader.read_model(file)
    for graph in model.subgraphs:
        for operator in graph.operators:
            code = model.operatorCodes[operator.opcodeIndex].builtinCode
            operation = reader.TFL_OP_CODE_TO_NAME.get(code)
            if operation not in fewest:
                continue
            kernel = reader.get_tensor_data(graph.tensors[operator.inputs[1]], model.buffers)
            if kernel is None or kernel.dtype != np.float32:
                continue
            bits = _bits(table_of(kernel, lists), fewest[operation])
            if bits is not None:
                yield reader.get_op_scope(operator, graph.tensors), operation, bits


def _bits(table: Table | None, fewest: int) -> int | None:
    """The bits of signed integers that hold a kernel, whose outputs are its first axis."""
    if table is None or table.numbers.ndim > 1 or table.axis not in (None, 0):
        return None
    grid = grid_of(table.numbers, 127)
    if grid is None:
        return None
    low, high = int(grid.integers.min()), int(grid.integers.max())
    fitting = [bits for bits in (2, 4, 8) if -(2 ** (bits - 1)) <= low and high < 2 ** (bits - 1)]
    return max(fitting[0], fewest) if fitting else None


def _import() -> Any:
    try:
        import ai_edge_quantizer
        from ai_edge_quantizer.utils import tfl_flatbuffer_utils  # noqa: F401 (its attribute)
    except ImportError as error:
        raise ImportError(
            "ai_edge_quantizer is not installed. Expected it for a file that ends in "
            "'.tflite'. Run pip install 'quantal[litert]'."
        ) from error
    return ai_edge_quantizer
