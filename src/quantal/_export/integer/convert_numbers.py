"""Convert steps of one tensor that sum nothing: functions, tables, normalizations, moves."""

from quantal._export.graph.steps import (
    Function,
    Lookup,
    Node,
    Normalize,
    Pad,
    Rearrange,
    Slopes,
    Softmax,
)
from quantal._export.integer.combining import keeps_rows, moved_meaning
from quantal._export.integer.functions import turns_of
from quantal._export.integer.integer_weights import integer_table
from quantal._export.integer.layer_steps import LookedUp
from quantal._export.integer.meaning import Meaning, is_one_scale, uniform
from quantal._export.integer.nodes import IntegerNodes, Quantity
from quantal._export.integer.normalizing import (
    bounds_of_normalized,
    fine_scales,
    fraction_of,
    normalized,
)
from quantal._export.integer.refusal import refusal
from quantal._export.integer.steps import Copied, Padded, Range
from quantal._export.integer.sums import zero_point


def convert_function(nodes: IntegerNodes, node: Node, source: Quantity) -> Quantity:
    """Append a function to what the integers stand for."""
    step: Function | Slopes | Softmax = node.step  # type: ignore[assignment]
    # The largest of numbers is the largest of a function that rises with them, too.
    falls = isinstance(step, Softmax) or bool(turns_of(step))
    return (nodes.pooled(source, node) if falls else source).then(step)


def convert_lookup(nodes: IntegerNodes, node: Node, source: Quantity) -> Quantity:
    """Convert rows of a table, which integers number."""
    step: Lookup = node.step  # type: ignore[assignment]
    source = nodes.pooled(source, node)
    affine, bounds = nodes.affine_of(source, node), nodes.bounds_of(source.value)
    numbers = (affine.factor == 1).all() and not affine.offset.any()
    if not numbers or bounds.low < 0 or bounds.high >= step.rows:
        raise refusal(
            node,
            f"looks up rows by numbers that are no integers from 0 to {step.rows - 1}. "
            "Expected it as the first layer, or behind a DiscreteActivation on these integers.",
        )
    try:
        table = integer_table(step)
    except ValueError as error:
        raise refusal(node, f"{error}.") from None
    bounds = Range(int(table.integers.min()), int(table.integers.max()))
    value = nodes.emit(LookedUp(table.integers, step.size), node, bounds, source.value)
    return Quantity(value, Meaning((uniform(table.scale),)))


def convert_normalize(nodes: IntegerNodes, node: Node, source: Quantity) -> Quantity:
    """Convert a normalization of each sample by itself: fixed point, close to a float32."""
    step: Normalize = node.step  # type: ignore[assignment]
    source = nodes.pooled(source, node)
    affine, bounds = nodes.affine_of(source, node), nodes.bounds_of(source.value)
    value = source.value
    if is_one_scale(affine):
        result = normalized(step, float(affine.factor[0]), bounds)
    else:
        for fine in fine_scales(affine, bounds, step.positions * step.width):
            result = normalized(step, fine.scale, fine.bounds)
            if result is not None:
                value = nodes.emit(fine.rounding, node, fine.bounds, value)
                break
    if result is None:
        raise refusal(
            node,
            f"normalizes {step.positions * step.width:,} numbers of too wide a range for an "
            "int64. Expected a DiscreteActivation before it.",
        )
    value = nodes.emit(result, node, bounds_of_normalized(result), value)
    return Quantity(value, Meaning((uniform(2.0 ** -fraction_of(result)),)))


def convert_pad(nodes: IntegerNodes, node: Node, source: Quantity) -> Quantity:
    """Convert a border of zeros: it holds the integer that stands for 0."""
    step: Pad = node.step  # type: ignore[assignment]
    source = nodes.pooled(source, node)
    affine = nodes.affine_of(source, node)
    zero = zero_point(affine)
    if zero is None or zero[1] != 1:
        raise refusal(node, "pads with 0, which no integer stands for. Expected a list with 0.")
    low, high = nodes.bounds_of(source.value)
    bounds = Range(min(low, zero[0]), max(high, zero[0]))
    value = nodes.emit(Padded(step, zero[0]), node, bounds, source.value)
    return Quantity(value, Meaning((affine,)))


def convert_rearrange(nodes: IntegerNodes, node: Node, source: Quantity) -> Quantity:
    """Convert copies; what the integers stand for is moved, too."""
    step: Rearrange = node.step  # type: ignore[assignment]
    source = nodes.pooled(source, node)
    copied = Copied(step)
    if not keeps_rows(source.meaning, copied.indices):
        raise refusal(
            node, "moves the results of a softmax. Expected the softmax behind it, at an output."
        )
    meaning = moved_meaning(source.meaning, copied.indices, step.lengths)
    value = nodes.emit(copied, node, nodes.bounds_of(source.value), source.value)
    return Quantity(value, meaning)
