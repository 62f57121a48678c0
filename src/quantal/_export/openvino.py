"""Write OpenVINO's files: integers of 2 or 4 bits where a list allows them, else digits."""

import pathlib
from typing import Any, NamedTuple

import keras
import numpy as np
from numpy.typing import NDArray

from quantal._export.coded_tensor import CodedTensor, encode
from quantal._export.grid import Grid, grid_of, pack_integers
from quantal._export.lists import lists_of
from quantal._export.onnx.convert import convert
from quantal._export.onnx.shrink import shrink
from quantal._export.packages import import_package
from quantal._export.target import Paths, Written

_FEWEST = 64
"""Smaller tensors stay floats: the nodes around integers would take more."""


def write_openvino(model: keras.Model, path: pathlib.Path) -> Written:
    """Write OpenVINO's two files, `.xml` and `.bin`.

    Weights whose list lies on a grid of at most 15 even steps are integers of 2 or 4
    bits (u2, u4) with a step; OpenVINO's CPU plugin keeps them so in memory and computes
    with floats. Other lists are packed as for ONNX: small in the file,
    floats once loaded. To compute in float32 on processors that have bfloat16, compile
    with `{"INFERENCE_PRECISION_HINT": "f32"}`.

    Args:
        model: A built model.
        path: The `.xml` file; the other is written next to it.

    Raises:
        ImportError: `openvino` or `onnx` is not installed, or what Keras's ONNX
            exporter needs.
        ValueError: As `quantal.bake`.
    """
    openvino = _import()
    floats, lists = convert(model), lists_of(model)
    shrunk = shrink(floats, lists, keep=lambda coded: _integers_of(coded) is not None)
    packed = openvino.Core().read_model(shrunk.SerializeToString())
    alive = _replace_constants(packed, lists)
    paths = _save(packed, path)
    del alive
    return Written(paths, lambda other_path: _save_floats(floats, other_path))


class _Integers(NamedTuple):
    """A coded tensor that unsigned integers of 2 or 4 bits hold."""

    coded: CodedTensor
    grid: Grid
    bits: int


def _integers_of(coded: CodedTensor) -> _Integers | None:
    if coded.numbers.ndim > 1 or coded.codes.size < _FEWEST:
        return None
    grid = grid_of(coded.numbers, 15)
    bits = None if grid is None else next((bits for bits in (2, 4) if grid.fits(bits)), None)
    return None if grid is None or bits is None else _Integers(coded, grid, bits)


def _replace_constants(model: Any, lists: list[NDArray[np.float32]]) -> list[NDArray[np.uint8]]:
    """Replace float constants of a model by integers, where these hold them.

    Returns:
        The integers. They must live as long as the model: OpenVINO does not copy them.
    """
    alive = []
    for constant in model.get_ops():
        is_float = constant.get_type_name() == "Constant" and constant.data.dtype == np.float32
        coded = encode(np.array(constant.data), lists) if is_float else None
        integers = None if coded is None else _integers_of(coded)
        if integers is not None:
            packed = _packed(integers)
            constant.output(0).replace(_decoded(integers, packed).output(0))
            alive.append(packed)
    return alive


def _packed(integers: _Integers) -> NDArray[np.uint8]:
    coded, grid, bits = integers
    unsigned = (grid.integers + grid.zero_point(bits))[coded.codes].astype(np.uint8).ravel()
    padding = np.zeros(-len(unsigned) % (8 // bits), np.uint8)
    return pack_integers(np.concatenate([unsigned, padding]), bits)


def _decoded(integers: _Integers, packed: NDArray[np.uint8]) -> Any:
    """Return a node that computes a coded tensor's floats from packed integers."""
    openvino, operators = _import(), import_package("openvino.opset13", ".xml", "openvino")
    coded, grid, bits = integers
    kind = openvino.Type.u2 if bits == 2 else openvino.Type.u4
    shape = openvino.Shape(list(coded.codes.shape))
    node = operators.convert(openvino.op.Constant(openvino.Tensor(packed, shape, kind)), "f32")
    zero = grid.zero_point(bits)
    if zero:
        node = operators.subtract(node, operators.constant(np.float32(zero)))
    if coded.scale is None:
        step = np.full((1,) * coded.codes.ndim, grid.step, np.float32)
    else:
        step = np.multiply(grid.step, coded.along_axis(coded.scale))
    return operators.multiply(node, operators.constant(step))


def _save_floats(floats: Any, path: pathlib.Path) -> Paths:
    return _save(_import().Core().read_model(floats.SerializeToString()), path)


def _save(model: Any, path: pathlib.Path) -> Paths:
    _import().save_model(model, path, compress_to_fp16=False)
    return [path, path.with_suffix(".bin")]


def _import() -> Any:
    return import_package("openvino", ".xml", "openvino")
