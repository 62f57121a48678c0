"""ONNX for speed: matrix products over packed integers, with 8-bit activations."""

import os
import pathlib
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from quantal._core.parameter import parameters_of
from quantal._export.onnx import converted, import_onnx, replaced, shrink
from quantal._export.tables import Grid, Table, grid_of, table_of
from quantal._storage.atomic import replace_file

BLOCK = 128
"""Rows of a kernel that share a scale in the file; onnxruntime's kernels take up to 256."""
_ACCURACY = 4  # 8-bit activations, onnxruntime's fast kernels.


def write_onnx_fast(model: keras.Model, path: str | os.PathLike[str]) -> list[pathlib.Path]:
    """An ONNX file whose matrix products run on packed integers of 2, 4 or 8 bits.

    For onnxruntime alone: the operator `MatMulNBits` is its own. It rounds what goes
    into a product to 8 bits (`accuracy_level` 4, stated in each node), so outputs are
    off by some hundredths of their spread; files and memory are small. Taken are the
    products with a weight whose list lies on a uniform grid: ±1, ternary and 0 to 3 in 2
    bits, `[1, -1, 0.5, -0.5]` in 4, powers of two from 1/8 to 1 in 8. What is left, such as
    convolutions, is as `write_onnx` has it.

    Args:
        model: A built model.
        path: The file.

    Returns:
        The files written.

    Raises:
        ImportError: As `write_onnx`.
        ValueError: No matrix product has a weight on a uniform grid: the message says
            why, weight by weight.

    Source: https://github.com/microsoft/onnxruntime, docs/ContribOperators.md.
    """
    onnx = import_onnx()
    made = converted(model)
    lists = [p.values.numbers for p in parameters_of(model) if p.values.numbers.ndim == 1]
    tensors = {tensor.name: tensor for tensor in made.graph.initializer}
    reasons, nodes, added = [], [], []
    for node in made.graph.node:
        tensor = tensors.get(node.input[1]) if node.op_type == "MatMul" else None
        if tensor is None or len(tensor.dims) != 2:
            nodes.append(node)
            continue
        kernel = onnx.numpy_helper.to_array(tensor)
        found = _packable(kernel, lists)
        if isinstance(found, str):
            reasons.append(f"{tensor.name}: {found}")
            nodes.append(node)
            continue
        fast, parts = _product(node, tensor.name, kernel.shape, *found)
        nodes.append(fast)
        added += parts
    if not added:
        why = "; ".join(reasons) or "it has no matrix product with a constant"
        raise ValueError(
            f"The model {model.name!r} has no product for MatMulNBits ({why}). Expected a Dense "
            "kernel on a list with even steps, such as ±1 or [1, -1, 0.5, -0.5]. Export to "
            "'.onnx' without target, which holds any list exactly."
        )
    replaced(made.graph, "node", nodes)
    used = {name for node in nodes for name in node.input}
    left = [tensor for tensor in made.graph.initializer if tensor.name in used]
    replaced(made.graph, "initializer", left)
    made = shrink(made, lists)
    # After that: the operator wants its numbers as they are.
    made.graph.initializer.extend(added)
    if not any(opset.domain == "com.microsoft" for opset in made.opset_import):
        made.opset_import.append(onnx.helper.make_opsetid("com.microsoft", 1))
    with replace_file(path) as file:
        file.write(made.SerializeToString(deterministic=True))
    return [pathlib.Path(path)]


def _packable(kernel: NDArray[np.float32], lists: Any) -> tuple[Table, Grid] | str:
    """The table and the grid of a kernel, or why it has none."""
    table = table_of(kernel, lists)
    if table is None:
        return "its numbers are on no list"
    if table.numbers.ndim > 1 or table.axis == 0:
        return "it has a list or a scale for each input"
    grid = grid_of(table.numbers)
    if grid is None:
        return f"its list {np.round(table.numbers, 4).tolist()[:9]} has no even steps of 8 bits"
    return table, grid


def _product(
    node: Any, name: str, shape: tuple[int, ...], table: Table, grid: Grid
) -> tuple[Any, list[Any]]:
    """A node that takes the place of a MatMul, and its tensors."""
    onnx = import_onnx()
    rows, columns = shape
    bits = next(bits for bits in (2, 4, 8) if grid.fits(bits))
    zero = grid.zero(bits)
    blocks = -(-rows // BLOCK)
    # Columns first, in blocks of rows, the last one filled up with zeros.
    codes = np.full((columns, blocks * BLOCK), zero, np.uint8)
    codes[:, :rows] = (grid.integers + zero)[table.codes].T
    per_byte = 8 // bits
    parts = codes.reshape(columns, blocks, BLOCK // per_byte, per_byte)
    shifts = (bits * np.arange(per_byte)).astype(np.uint8)
    packed = np.bitwise_or.reduce(parts << shifts, axis=-1)
    scale = np.ones(columns, np.float32) if table.scale is None else table.scale
    scales = np.repeat(scale * grid.step, blocks).astype(np.float32)
    tensors = [
        onnx.numpy_helper.from_array(packed.astype(np.uint8), f"{name}/packed{bits}"),
        onnx.numpy_helper.from_array(scales, f"{name}/scales{bits}"),
    ]
    if zero != 2 ** (bits - 1):
        zeros = np.full((columns, -(-blocks * bits // 8)), 0, np.uint8)
        for block in range(blocks):
            zeros[:, block * bits // 8] |= zero << (block * bits % 8)
        tensors.append(onnx.numpy_helper.from_array(zeros.ravel(), f"{name}/zeros{bits}"))
    made = onnx.helper.make_node(
        "MatMulNBits",
        [node.input[0], *(tensor.name for tensor in tensors)],
        list(node.output),
        name=node.name or node.output[0],
        domain="com.microsoft",
        K=rows, N=columns, bits=bits, block_size=BLOCK, accuracy_level=_ACCURACY,
    )  # fmt: skip
    return made, tensors
