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

_WORTH_OF_INTEGERS = 2048
"""A kernel becomes integers where that saves more bytes: the nodes around it take as many."""
_WORTH_OF_DIGITS = 8192
"""A tensor becomes digits where that saves more bytes: their nodes take as many of XML."""


def write_openvino(model: keras.Model, path: pathlib.Path) -> Written:
    """Write OpenVINO's two files, `.xml` and `.bin`.

    Kernels of matrix products whose list lies on a grid of at most 15 even steps are
    integers of 2 or 4 bits (u2, u4) with a step, where the integers of an output fill
    whole bytes; OpenVINO's CPU plugin keeps them so in memory and computes with floats.
    Other weights are packed as for ONNX: small in the file, floats once loaded. The file
    says that inputs of products are not rounded to 8 bits. To compute in float32
    on processors that have bfloat16, compile with `{"INFERENCE_PRECISION_HINT": "f32"}`.

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
    products = _products(openvino.Core().read_model(floats.SerializeToString()), lists)
    paths = _save_packed(floats, lists, products, path)
    return Written(
        paths,
        lambda other_path: _save_floats(floats, other_path),
        lambda other_path: _save_packed(floats, lists, {}, other_path),
    )


class _Integers(NamedTuple):
    """A coded tensor that unsigned integers of 2 or 4 bits hold."""

    coded: CodedTensor
    grid: Grid
    bits: int


def _products(model: Any, lists: list[NDArray[np.float32]]) -> dict[str, _Integers]:
    """Return the kernels of matrix products that become integers, by the constants' names."""
    products = {}
    for constant in model.get_ops():
        if _is_float(constant):
            row = _length_of_row(constant)
            coded = None if row is None else encode(np.array(constant.data), lists)
            integers = None if coded is None else _integers_of(coded, row)
            if integers is not None and _saved(integers) > _WORTH_OF_INTEGERS:
                products[constant.get_friendly_name()] = integers
    return products


def _is_float(constant: Any) -> bool:
    return constant.get_type_name() == "Constant" and constant.data.dtype == np.float32


def _length_of_row(constant: Any) -> int | None:
    """Return how many inputs each output of a matrix product has; None of other constants."""
    readers = constant.output(0).get_target_inputs()
    if constant.data.ndim != 2 or not readers:
        return None
    lengths = set()
    for reader in readers:
        node = reader.get_node()
        if node.get_type_name() != "MatMul" or reader.get_index() != 1:
            return None
        lengths.add(constant.data.shape[1 if node.get_attributes()["transpose_b"] else 0])
    return lengths.pop() if len(lengths) == 1 else None


def _integers_of(coded: CodedTensor, row: int | None) -> _Integers | None:
    """Return the integers of a coded tensor; None if its list or its rows do not allow them.

    Args:
        coded: The coded tensor.
        row: How many numbers an output has. They must fill whole bytes: other rows are unpacked
            wrongly by OpenVINO 2026.4, from 7 samples on.
    """
    grid = None if coded.numbers.ndim > 1 else grid_of(coded.numbers, 15)
    if grid is None or row is None:
        return None
    fitting = (bits for bits in (2, 4) if grid.fits(bits) and row * bits % 8 == 0)
    bits = next(fitting, None)
    return None if bits is None else _Integers(coded, grid, bits)


def _saved(integers: _Integers) -> int:
    """Return how many bytes of numbers integers save."""
    return integers.coded.codes.size * (32 - integers.bits) // 8


def _save_packed(
    floats: Any,
    lists: list[NDArray[np.float32]],
    products: dict[str, _Integers],
    path: pathlib.Path,
) -> Paths:
    """Write a conversion with the named constants as integers, and all others packed."""
    shrunk = shrink(floats, lists, lambda name, _: name in products, _WORTH_OF_DIGITS)
    model = _import().Core().read_model(shrunk.SerializeToString())
    # OpenVINO does not copy integers: they must live as long as the model.
    alive = []
    for constant in model.get_ops():
        integers = products.get(constant.get_friendly_name()) if _is_float(constant) else None
        if integers is not None:
            packed = _packed(integers)
            constant.output(0).replace(_decoded(integers, packed).output(0))
            alive.append(packed)
    model.set_rt_info("0", ["runtime_options", "DYNAMIC_QUANTIZATION_GROUP_SIZE"])
    return _save(model, path)


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
