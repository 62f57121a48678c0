"""Convert a graph of float steps into an integer network."""

from collections.abc import Callable

import numpy as np

from quantal._export.graph.steps import (
    Concatenate,
    Elementwise,
    Function,
    Graph,
    Lookup,
    Nearest,
    Node,
    Normalize,
    Pad,
    Pool,
    Product,
    Rearrange,
    Recurrent,
    Slopes,
    Softmax,
    Step,
)
from quantal._export.integer.convert_activations import convert_nearest
from quantal._export.integer.convert_combined import convert_concatenate, convert_elementwise
from quantal._export.integer.convert_numbers import (
    convert_function,
    convert_lookup,
    convert_normalize,
    convert_pad,
    convert_rearrange,
)
from quantal._export.integer.convert_sums import convert_pool, convert_product, convert_recurrent
from quantal._export.integer.grids import input_of
from quantal._export.integer.meaning import Meaning, is_one_scale, uniform
from quantal._export.integer.nodes import IntegerNodes, Quantity
from quantal._export.integer.program import IntegerOutput, IntegerProgram
from quantal._export.integer.refusal import EXPECTED, refusal
from quantal._export.integer.rounding import fixed_point
from quantal._export.integer.steps import Range


def converted(graph: Graph) -> IntegerProgram:
    """Return the integer network that a graph of float steps stands for.

    Raises:
        ValueError: A step has no integer form; the message names its layer.
    """
    inputs = [input_of(graph, index) for index in range(len(graph.inputs))]
    nodes = IntegerNodes(inputs)
    quantities = list(nodes.of_inputs)
    for node in graph.nodes:
        convert = _CONVERSIONS.get(type(node.step))
        if convert is None:
            raise refusal(node, f"has no integer form ({type(node.step).__name__}). {EXPECTED}")
        quantities.append(convert(nodes, node, *(quantities[source] for source in node.sources)))
    last = graph.nodes[-1] if graph.nodes else Node(None, (), (), "output")  # type: ignore[arg-type]
    outputs = [_output(nodes, quantities[value], last, shape) for value, shape in graph.outputs]
    return IntegerProgram(inputs, nodes.nodes, outputs, nodes.activations)


def _output(
    nodes: IntegerNodes, quantity: Quantity, node: Node, shape: tuple[int, ...]
) -> IntegerOutput:
    """Return an output: integers with one scale, and the functions that are left to floats."""
    quantity = nodes.pooled(quantity, node)
    affine, rest = quantity.meaning.split()
    if is_one_scale(affine):
        meaning = Meaning((uniform(float(affine.factor[0])), *rest))
        return IntegerOutput(quantity.value, shape, meaning)
    bounds = nodes.bounds_of(quantity.value)
    ends = [affine.factor * end + affine.offset for end in bounds]
    largest = float(np.max(np.abs(ends))) or 1.0
    step = 2.0 ** (np.ceil(np.log2(largest)) - _OUTPUT_BITS)
    results = Range(int(np.min(ends) / step) - 1, int(np.max(ends) / step) + 1)
    rounding = fixed_point(affine.factor / step, affine.offset / step, bounds, results)
    rescaled = nodes.emit(rounding, node, results, quantity.value)
    return IntegerOutput(rescaled, shape, Meaning((uniform(float(step)), *rest)))


_OUTPUT_BITS = 29
"""Rescaled outputs take so many bits and a sign, so that they are finer than a float32."""
_CONVERSIONS: dict[type[Step], Callable[..., Quantity]] = {
    Product: convert_product,
    Pool: convert_pool,
    Function: convert_function,
    Slopes: convert_function,
    Softmax: convert_function,
    Nearest: convert_nearest,
    Elementwise: convert_elementwise,
    Concatenate: convert_concatenate,
    Lookup: convert_lookup,
    Normalize: convert_normalize,
    Recurrent: convert_recurrent,
    Pad: convert_pad,
    Rearrange: convert_rearrange,
}
