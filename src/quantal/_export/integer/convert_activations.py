"""Convert activations on a list: they round what the integers stand for."""

import numpy as np

from quantal._export.graph.steps import Nearest, Node
from quantal._export.integer.grids import grid_of, meaning_of
from quantal._export.integer.meaning import Meaning
from quantal._export.integer.nodes import IntegerNodes, Quantity
from quantal._export.integer.program import Activation, Grid
from quantal._export.integer.refusal import refusal
from quantal._export.integer.rounding import FEW_LEVELS, requantization_of, thresholds_of
from quantal._export.integer.staircase import staircase_of
from quantal._export.integer.steps import Range, Requantization, Rounding


def convert_nearest(nodes: IntegerNodes, node: Node, source: Quantity) -> Quantity:
    """Convert an activation on a list: thresholds, or a multiplier and a shift."""
    step: Nearest = node.step  # type: ignore[assignment]
    grid = grid_of(node, step)
    if source in nodes.of_inputs:
        given = nodes.inputs[source.value].grid
        if given is not None and given.is_like(grid):
            nodes.activations.append(Activation(node.name, source.value, grid, "the input"))
            return source
    meaning = source.meaning
    if not meaning.is_by_number:
        raise refusal(
            node,
            "stands after a softmax, which integers do not compute. Expected a softmax at an "
            "output alone, which is left off; or a function of single numbers, such as "
            "sigmoid or hard_sigmoid, in its place.",
        )
    rounding = rounding_for(meaning, nodes.bounds_of(source.value), grid)
    bounds = grid.bounds
    if isinstance(rounding, Requantization):
        bounds = Range(rounding.low, rounding.high)
    value = nodes.emit(rounding, node, bounds, source.value)
    quantity = Quantity(value, meaning_of(grid), source.pools)
    quantity = nodes.pooled(quantity, node)
    nodes.activations.append(Activation(node.name, quantity.value, grid, way_of(rounding)))
    return quantity


def rounding_for(meaning: Meaning, bounds: Range, grid: Grid) -> Rounding:
    """Return how integers in a range are rounded to a grid: by stairs, limits, or a multiplier."""
    arguments = meaning, bounds, grid.levels, grid.scale, grid.integers
    if not meaning.is_monotone:
        return staircase_of(*arguments)
    rounding = None if len(grid.levels) <= FEW_LEVELS else requantization_of(*arguments)
    return rounding or thresholds_of(*arguments)


def way_of(rounding: Rounding) -> str:
    """Return how a rounding is named in reports."""
    if not isinstance(rounding, Requantization):
        return "thresholds"
    is_shift = (np.abs(rounding.multiplier) <= 1).all()
    return "shift" if is_shift else "multiplier and shift"
