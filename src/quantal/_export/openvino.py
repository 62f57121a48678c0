"""OpenVINO: weights as integers of 2 or 4 bits where their list allows, else as digits."""

import os
import pathlib
import tempfile
from typing import Any

import keras
import numpy as np

from quantal._core.parameter import parameters_of
from quantal._export.onnx import converted, shrink
from quantal._export.tables import Table, grid_of, table_of
from quantal._storage.atomic import replace_file


def write_openvino(model: keras.Model, path: str | os.PathLike[str]) -> list[pathlib.Path]:
    """OpenVINO's two files, `.xml` and `.bin`.

    Weights whose list lies on a grid of at most 16 even steps are integers of 2 or 4
    bits (u2, u4) with a step; OpenVINO's CPU plugin keeps them so in memory and computes
    with floats. Other lists are packed as in `quantal._export.onnx`: small in the file,
    floats once loaded. To compute in float32 on processors that have bfloat16, compile
    with `{"INFERENCE_PRECISION_HINT": "f32"}`.

    Args:
        model: A built model.
        path: The `.xml` file; the other stands beside it.

    Returns:
        The files written.

    Raises:
        ImportError: `openvino` or `onnx` is not installed, or what Keras's ONNX
            exporter needs.
        ValueError: As `quantal.bake`.
    """
    openvino = import_openvino()
    lists = [p.values.numbers for p in parameters_of(model) if p.values.numbers.ndim == 1]
    floats = converted(model)
    shrunk = shrink(floats, lists, keep=lambda table: _bits(table) is not None)
    made = openvino.Core().read_model(shrunk.SerializeToString())
    alive = []  # OpenVINO does not copy what its constants are made of.
    for constant in made.get_ops():
        is_float = constant.get_type_name() == "Constant" and constant.data.dtype == np.float32
        table = table_of(np.array(constant.data), lists) if is_float else None
        if table is not None and (bits := _bits(table)) is not None:
            packed, node = _integers(table, bits)
            alive.append(packed)
            constant.output(0).replace(node.output(0))
    return _write(made, path)


def write_openvino_floats(model: keras.Model, path: str | os.PathLike[str]) -> list[pathlib.Path]:
    """The same files with floats; as `write_openvino` otherwise."""
    return _write(import_openvino().Core().read_model(converted(model).SerializeToString()), path)


def _write(made: Any, path: str | os.PathLike[str]) -> list[pathlib.Path]:
    place = pathlib.Path(path)
    with tempfile.TemporaryDirectory() as folder:
        beside = pathlib.Path(folder) / "model.xml"
        import_openvino().save_model(made, beside, compress_to_fp16=False)
        # The weights first: the .xml is what is opened.
        for ending in (".bin", ".xml"):
            with replace_file(place.with_suffix(ending)) as file:
                file.write(beside.with_suffix(ending).read_bytes())
    return [place.with_suffix(".xml"), place.with_suffix(".bin")]


def _bits(table: Table) -> int | None:
    """2 or 4, if such integers hold the table; None otherwise."""
    if table.numbers.ndim > 1 or table.codes.size < 64:
        return None
    grid = grid_of(table.numbers, 15)
    return None if grid is None else next((bits for bits in (2, 4) if grid.fits(bits)), None)


def _integers(table: Table, bits: int) -> tuple[Any, Any]:
    """A node that gives a table's floats from packed integers, and their bytes."""
    openvino, operators = import_openvino(), _operators()
    grid = grid_of(table.numbers, 15)
    if grid is None:
        raise AssertionError("_bits told otherwise")
    zero, count = grid.zero(bits), 8 // bits
    codes = (grid.integers + zero)[table.codes].astype(np.uint8).ravel()
    rows = np.concatenate([codes, np.zeros(-len(codes) % count, np.uint8)]).reshape(-1, count)
    shifts = (bits * np.arange(count)).astype(np.uint8)
    packed = np.bitwise_or.reduce(rows << shifts, axis=1).astype(np.uint8)
    kind = openvino.Type.u2 if bits == 2 else openvino.Type.u4
    shape = openvino.Shape(list(table.codes.shape))
    node = operators.convert(openvino.op.Constant(openvino.Tensor(packed, shape, kind)), "f32")
    if zero:
        node = operators.subtract(node, operators.constant(np.float32(zero)))
    step = np.full((1,) * table.codes.ndim, grid.step, np.float32)
    if table.scale is not None and table.axis is not None:
        ranks = np.ones(table.codes.ndim, int)
        ranks[table.axis] = -1
        step = grid.step * table.scale.reshape(ranks)
    return packed, operators.multiply(node, operators.constant(step))


def _operators() -> Any:
    from openvino import opset13

    return opset13


def import_openvino() -> Any:
    """The package openvino, or an ImportError that says how to get it."""
    try:
        import openvino
    except ImportError as error:
        raise ImportError(
            "openvino is not installed. Expected it for a file that ends in '.xml'. Run "
            "pip install 'quantal[openvino]'."
        ) from error
    return openvino
