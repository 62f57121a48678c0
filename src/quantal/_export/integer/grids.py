"""Read the grids of activations, and what an input holds."""

import numpy as np

from quantal._export.graph.steps import Graph, Lookup, Nearest, Node
from quantal._export.integer.integer_weights import shown
from quantal._export.integer.meaning import Affine, Meaning
from quantal._export.integer.multiples import LARGEST, multiples_of
from quantal._export.integer.program import PIXELS, Grid, IntegerInput
from quantal._export.integer.refusal import refusal
from quantal._export.integer.steps import Range


def grid_of(node: Node, step: Nearest) -> Grid:
    """Return the grid of an activation, or refuse a list without a common step."""
    multiples = multiples_of(step.levels)
    if multiples is None:
        raise refusal(
            node,
            f"has the list {shown(step.levels)}. Expected values that are integers times one step, "
            f"none beyond {LARGEST} of it.",
        )
    scale = np.asarray(step.scale, np.float64)
    return Grid(step.levels, scale[:1] if (scale == scale[0]).all() else scale, *multiples)


def input_of(graph: Graph, index: int) -> IntegerInput:
    """Return an input: integers of the list that its only readers put it on, rows, or pixels."""
    shape = graph.inputs[index]
    readers = [node for node in graph.nodes if index in node.sources]
    lookups = [node.step for node in readers if isinstance(node.step, Lookup)]
    if lookups:
        return IntegerInput(shape, Range(0, min(s.rows for s in lookups) - 1), None, "rows")
    steps = [node.step for node in readers if isinstance(node.step, Nearest)]
    if not readers or len(steps) < len(readers):
        return IntegerInput(shape, PIXELS, None, "pixels")
    grids = [grid_of(node, node.step) for node in readers]  # type: ignore[arg-type]
    first = grids[0]
    if not all(map(first.is_like, grids[1:])):
        return IntegerInput(shape, PIXELS, None, "pixels")
    return IntegerInput(shape, first.bounds, first)


def meaning_of(grid: Grid) -> Meaning:
    """Return what the integers of a grid stand for."""
    return Meaning((affine_of(grid),))


def affine_of(grid: Grid) -> Affine:
    """Return by what the integers of a grid are multiplied."""
    return Affine(grid.step * grid.scale, np.zeros(len(grid.scale)))
