"""Convert steps that combine several tensors: sums, products, concatenations."""

from collections.abc import Callable

import numpy as np

from quantal._export.graph.steps import Concatenate, Elementwise, Floats, Node, Rearrange
from quantal._export.integer.combining import common_sum, joined_meaning, repeated_affine, total_of
from quantal._export.integer.meaning import Affine, Meaning
from quantal._export.integer.nodes import IntegerNodes, Quantity
from quantal._export.integer.refusal import EXPECTED, refusal
from quantal._export.integer.steps import (
    BroadcastProduct,
    Copied,
    Joined,
    Multiplied,
    Range,
    WeightedSum,
)


def convert_elementwise(nodes: IntegerNodes, node: Node, *sources: Quantity) -> Quantity:
    """Convert sums and products of several sources."""
    step: Elementwise = node.step  # type: ignore[assignment]
    if step.operation not in (*_SIGNS, "multiply"):
        raise refusal(node, f"computes {step.operation!r}. {EXPECTED}")
    sources = tuple(nodes.pooled(source, node) for source in sources)
    affines = [
        repeated_affine(nodes.affine_of(source, node), repetition)
        for source, repetition in zip(sources, step.repetitions, strict=True)
    ]
    values = [source.value for source in sources]
    if step.operation == "multiply":
        return _multiplied(nodes, node, values, affines)
    values = _repeated(nodes, node, values)
    signs = _SIGNS[step.operation](len(sources))
    bounds = [nodes.bounds_of(value) for value in values]
    factors, meaning = common_sum(affines, signs, bounds)
    total = total_of(factors, bounds)
    return Quantity(nodes.emit(WeightedSum(factors), node, total, *values), meaning)


def convert_concatenate(nodes: IntegerNodes, node: Node, *sources: Quantity) -> Quantity:
    """Convert a concatenation; what the integers stand for is joined, too."""
    step: Concatenate = node.step  # type: ignore[assignment]
    sources = tuple(nodes.pooled(source, node) for source in sources)
    meaning = joined_meaning([nodes.affine_of(s, node) for s in sources], step)
    if meaning is None:
        raise refusal(
            node,
            "joins numbers of different scales along another axis than the channels. Expected "
            "one scale: a DiscreteActivation after it in place of those before it.",
        )
    bounds = [nodes.bounds_of(source.value) for source in sources]
    joint = Range(min(b.low for b in bounds), max(b.high for b in bounds))
    values = [source.value for source in sources]
    return Quantity(nodes.emit(Joined(*step), node, joint, *values), meaning)


def _multiplied(
    nodes: IntegerNodes, node: Node, values: list[int], affines: list[Affine]
) -> Quantity:
    if any(affine.offset.any() for affine in affines):
        raise refusal(
            node,
            "multiplies numbers with a bias or another offset, whose integer 0 does not stand "
            "for 0. Expected a quantal.DiscreteActivation on each of its inputs.",
        )
    step: Elementwise = node.step  # type: ignore[assignment]
    period = int(np.lcm.reduce([len(affine.factor) for affine in affines]))
    factor = np.prod([np.resize(affine.factor, period) for affine in affines], axis=0)
    bounds = Range(1, 1)
    for each in map(nodes.bounds_of, values):
        ends = [one * other for one in bounds for other in each]
        bounds = Range(min(*ends, bounds.low), max(*ends, bounds.high))
    is_plain = len(values) == 2 and not _is_broadcast(step)
    product = Multiplied() if is_plain else BroadcastProduct(step.size, step.repetitions)
    value = nodes.emit(product, node, bounds, *values)
    return Quantity(value, Meaning((Affine(factor, np.zeros(period)),)))


def _repeated(nodes: IntegerNodes, node: Node, values: list[int]) -> list[int]:
    """Return values of one shape: copies of those that are broadcast."""
    step: Elementwise = node.step  # type: ignore[assignment]
    if not _is_broadcast(step):
        return values
    copies = [
        Rearrange((step.size // (r.repeat * r.period), r.period, r.repeat), (0, 1, 0))
        for r in step.repetitions
    ]
    return [
        value
        if copy.lengths == (1, step.size, 1)
        else nodes.emit(Copied(copy), node, nodes.bounds_of(value), value)
        for value, copy in zip(values, copies, strict=True)
    ]


def _is_broadcast(step: Elementwise) -> bool:
    return any((r.repeat, r.period) != (1, step.size) for r in step.repetitions)


_SIGNS: dict[str, Callable[[int], Floats]] = {
    "add": np.ones,
    "subtract": lambda count: np.array([1.0, -1.0]),
    "average": lambda count: np.full(count, 1 / count),
}
