"""Write ONNX for speed: matrix products over packed integers, with 8-bit activations."""

import pathlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
from numpy.typing import NDArray

from quantal._export.coded_tensor import CodedTensor, encode
from quantal._export.grid import Grid, grid_of, pack_integers
from quantal._export.lists import lists_of
from quantal._export.onnx.convert import convert
from quantal._export.onnx.graphs import set_entries
from quantal._export.onnx.shrink import shrink
from quantal._export.onnx.standard import written
from quantal._export.packages import import_onnx
from quantal._export.target import Written

BLOCK = 128
"""This many rows of a kernel share a scale in the file; onnxruntime's kernels take up to 256."""
_ACCURACY = 4  # 8-bit activations, onnxruntime's fast kernels.


def write_onnx_fast(model: keras.Model, path: pathlib.Path) -> Written:
    """Write an ONNX file whose matrix products run on packed integers of 2, 4 or 8 bits.

    It is for onnxruntime alone: the operator `MatMulNBits` is its own. It rounds what goes
    into a product to 8 bits (`accuracy_level` 4, stated in each node), so outputs are
    off by some hundredths of their spread; files and memory are small. Products are
    replaced whose weight's list lies on an even grid: ±1, ternary and 0 to 3 in 2
    bits, `[1, -1, 0.5, -0.5]` in 4, powers of two from 1/8 to 1 in 8. Everything else,
    such as a convolution, is as `write_onnx` has it.

    Args:
        model: A built model.
        path: The file.

    Raises:
        ImportError: As `convert`.
        ValueError: No matrix product has a weight on an even grid: the message says
            why, weight by weight.

    Source: https://github.com/microsoft/onnxruntime, docs/ContribOperators.md.
    """
    onnx = import_onnx()
    floats = convert(model)
    fast = onnx.ModelProto()
    fast.CopyFrom(floats)
    lists = lists_of(model)
    tensors = _replace_products(model, fast.graph, lists)
    fast = shrink(fast, lists)
    # After shrinking, since the operator wants its numbers as they are.
    fast.graph.initializer.extend(tensors)
    if not any(opset.domain == "com.microsoft" for opset in fast.opset_import):
        fast.opset_import.append(onnx.helper.make_opsetid("com.microsoft", 1))
    return written(fast, floats, path)


class _Packable(NamedTuple):
    """A packable kernel fits the operator `MatMulNBits`."""

    coded: CodedTensor
    grid: Grid


def _replace_products(
    model: keras.Model, graph: Any, lists: Sequence[NDArray[np.float32]]
) -> list[Any]:
    """Replace products of a graph by `MatMulNBits`, and return the tensors of these."""
    kernels = {tensor.name: tensor for tensor in graph.initializer}
    reasons: list[str] = []
    nodes: list[Any] = []
    tensors: list[Any] = []
    for node in graph.node:
        kernel = kernels.get(node.input[1]) if node.op_type == "MatMul" else None
        if kernel is None or len(kernel.dims) != 2:
            nodes.append(node)
            continue
        packable = _packable(import_onnx().numpy_helper.to_array(kernel), lists)
        if isinstance(packable, str):
            reasons.append(f"{kernel.name}: {packable}")
            nodes.append(node)
            continue
        tensors_of_product = _tensors(kernel.name, packable)
        nodes.append(_product(node, packable, [tensor.name for tensor in tensors_of_product]))
        tensors += tensors_of_product
    if not tensors:
        why = "; ".join(reasons) or "it has no matrix product with a constant"
        raise ValueError(
            f"The model {model.name!r} has no product for MatMulNBits ({why}). Expected a Dense "
            "kernel on a list with even steps, such as ±1 or [1, -1, 0.5, -0.5]. Export to "
            "'.onnx' without target, which holds any list exactly."
        )
    set_entries(graph, "node", nodes)
    used = {name for node in nodes for name in node.input}
    set_entries(graph, "initializer", [t for t in graph.initializer if t.name in used])
    return tensors


def _packable(kernel: NDArray[np.float32], lists: Sequence[NDArray[np.float32]]) -> _Packable | str:
    """Return a kernel on its grid, or why it has none."""
    coded = encode(kernel, lists)
    if coded is None:
        return "its numbers are on no list"
    if coded.numbers.ndim > 1 or coded.axis == 0:
        return "it has a list or a scale for each input"
    grid = grid_of(coded.numbers)
    if grid is None:
        return f"its list {np.round(coded.numbers, 4).tolist()[:9]} has no even steps of 8 bits"
    return _Packable(coded, grid)


def _bits_of(grid: Grid) -> int:
    return next(bits for bits in (2, 4, 8) if grid.fits(bits))


def _tensors(name: str, packable: _Packable) -> list[Any]:
    """Return the tensors of a `MatMulNBits`: integers, scales and, if needed, zero points."""
    from_array = import_onnx().numpy_helper.from_array
    coded, grid = packable
    rows, columns = coded.codes.shape
    bits = _bits_of(grid)
    zero = grid.zero_point(bits)
    blocks = -(-rows // BLOCK)
    # Columns first, in blocks of rows, the last one filled up with zeros.
    integers = np.full((columns, blocks * BLOCK), zero, np.uint8)
    integers[:, :rows] = (grid.integers + zero)[coded.codes].T
    packed = pack_integers(integers.reshape(columns, blocks, BLOCK), bits)
    scale = np.ones(columns, np.float32) if coded.scale is None else coded.scale
    scales = np.repeat(scale * grid.step, blocks).astype(np.float32)
    tensors = [
        from_array(packed, f"{name}/packed{bits}"),
        from_array(scales, f"{name}/scales{bits}"),
    ]
    if zero != 2 ** (bits - 1):  # The operator's default.
        zeros = np.full((columns, -(-blocks * bits // 8)), 0, np.uint8)
        for block in range(blocks):
            zeros[:, block * bits // 8] |= zero << (block * bits % 8)
        tensors.append(from_array(zeros.ravel(), f"{name}/zeros{bits}"))
    return tensors


def _product(node: Any, packable: _Packable, tensors: list[str]) -> Any:
    """Return the node that replaces a MatMul, from the names of its tensors."""
    rows, columns = packable.coded.codes.shape
    return import_onnx().helper.make_node(
        "MatMulNBits",
        [node.input[0], *tensors],
        list(node.output),
        name=node.name or node.output[0],
        domain="com.microsoft",
        K=rows,
        N=columns,
        bits=_bits_of(packable.grid),
        block_size=BLOCK,
        accuracy_level=_ACCURACY,
    )
