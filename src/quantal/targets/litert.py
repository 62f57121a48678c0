"""LiteRT (TensorFlow Lite): weights as integers of 2, 4 or 8 bits, 8-bit activations."""

import contextlib
import io
import os
import pathlib
import re
import tempfile
import warnings
from typing import Any

import keras
import numpy as np
from keras import ops

from quantal.container import moved_into_place
from quantal.parameters import parameters_of
from quantal.targets.folding import folded
from quantal.targets.inputs import like_inputs
from quantal.targets.tables import grid_of, table_of

_FEWEST_BITS = {"Dense": 2, "EinsumDense": 2, "Conv2D": 4}
_OPERATIONS = {"Dense": "FULLY_CONNECTED", "EinsumDense": "FULLY_CONNECTED", "Conv2D": "CONV_2D"}


def write_litert(model: keras.Model, path: str | os.PathLike[str]) -> list[pathlib.Path]:
    """A `.tflite` file whose discrete weights are integers, on the TensorFlow backend.

    Taken are kernels of Dense, EinsumDense and Conv2D whose list lies on a grid of even
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
    algorithms, quantizer, kinds = _quantizer()
    plain = folded(model)
    lists = [p.values.numbers for p in parameters_of(model) if p.values.numbers.ndim == 1]
    chosen = list(_kernels(plain, lists))
    if not chosen:
        raise ValueError(
            f"The model {model.name!r} has no kernel on a list with even steps. Expected one in "
            "a Dense or Conv2D, such as ±1, ternary or [1, -1, 0.5, -0.5]. Export to '.onnx', "
            "which holds any list."
        )
    made = quantizer(_converted(plain))
    for name, kind, bits in chosen:
        made.add_dynamic_config(
            regex=rf"(^|.*[/;]){re.escape(name)}(_\d+)?/.*",
            operation_name=kinds(_OPERATIONS[kind]),
            num_bits=bits,
            algorithm_key=algorithms.DEQUANTIZED_WEIGHT_RECOVERY,
        )
    with contextlib.redirect_stdout(io.StringIO()):
        data = bytes(made.quantize().quantized_model)
    with moved_into_place(path) as file:
        file.write(data)
    return [pathlib.Path(path)]


def write_litert_floats(model: keras.Model, path: str | os.PathLike[str]) -> list[pathlib.Path]:
    """The same file with floats, as Keras's exporter writes it; as `write_litert` otherwise."""
    with moved_into_place(path) as file:
        file.write(_converted(folded(model)))
    return [pathlib.Path(path)]


def _converted(plain: keras.Model) -> bytes:
    """A plain model as Keras's exporter gives it."""
    plain(like_inputs(plain, lambda shape, dtype: np.zeros(shape, dtype)))
    with (
        tempfile.TemporaryDirectory() as folder,
        warnings.catch_warnings(),
        contextlib.redirect_stdout(io.StringIO()),
    ):
        warnings.simplefilter("ignore")
        beside = pathlib.Path(folder) / "model.tflite"
        plain.export(beside, format="litert", verbose=False)
        return beside.read_bytes()


def _kernels(model: keras.Model, lists: Any) -> Any:
    """Layer, kind and bits of each kernel on a grid."""
    for layer in model._flatten_layers():
        kind = type(layer).__name__
        if kind not in _OPERATIONS or not hasattr(layer, "kernel"):
            continue
        table = table_of(ops.convert_to_numpy(layer.kernel), lists)
        if table is None or table.numbers.ndim > 1:
            continue
        if table.axis not in (None, table.codes.ndim - 1):
            continue
        grid = grid_of(table.numbers, 127)
        if grid is None:
            continue
        low, high = int(grid.integers.min()), int(grid.integers.max())
        for bits in (2, 4, 8):
            fits = -(2 ** (bits - 1)) <= low and high < 2 ** (bits - 1)
            if fits and bits >= _FEWEST_BITS[kind]:
                yield layer.name, kind, bits
                break


def _quantizer() -> tuple[Any, Any, Any]:
    try:
        from ai_edge_quantizer import algorithm_manager, qtyping, quantizer
    except ImportError as error:
        raise ImportError(
            "ai_edge_quantizer is not installed. Expected it for a file that ends in "
            "'.tflite'. Run pip install 'quantal[litert]'."
        ) from error
    return (
        algorithm_manager.AlgorithmName,
        quantizer.Quantizer,
        lambda name: getattr(qtyping.TFLOperationName, name),
    )
