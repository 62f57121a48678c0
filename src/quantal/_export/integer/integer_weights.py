"""Write the weights of a product as integers times a step for each output."""

from typing import NamedTuple

import numpy as np

from quantal._export.graph.steps import Floats, Listed, Lookup, Product
from quantal._export.integer.multiples import LARGEST, multiples_of
from quantal._export.integer.steps import Integers


class IntegerWeights(NamedTuple):
    """Integer weights.

    Attributes:
        integers: Shape (outputs, inputs).
        steps: What an integer 1 stands for, shape (outputs,), without the scale.
    """

    integers: Integers
    steps: Floats


class IntegerTable(NamedTuple):
    """A table of integers with one scale.

    Attributes:
        integers: Shape (rows, width).
        scale: What an integer 1 stands for.
    """

    integers: Integers
    scale: float


def integer_table(lookup: Lookup) -> IntegerTable:
    """Return the table of a lookup as integers; small ratios of its rows' scales are in them.

    Raises:
        ValueError: As `integer_weights`; or the scales of rows are no multiples of one.
    """
    weights = integer_weights(lookup)
    ratios = multiples_of(lookup.scale * weights.steps)
    integers = None if ratios is None else weights.integers * ratios.integers[:, None]
    if ratios is None or integers is None or np.abs(integers).max() > LARGEST:
        raise ValueError(
            "has rows of several scales. Expected one scale for all rows, or scales that are small "
            "integers times one"
        )
    return IntegerTable(integers, ratios.step)


def integer_weights(product: Product | Lookup) -> IntegerWeights:
    """Return the weights of a product or of a table as integers.

    Raises:
        ValueError: They are on no list, or a list is no grid; the message ends a sentence that
            begins with the layer's name.
    """
    weights = product.weights
    if not isinstance(weights, Listed):
        raise ValueError(
            "has weights on no list, or on one with several scales within an output. "
            "Expected weights on a list, with one scale for each output at most. Put them on one "
            "with quantal.Discrete, or with quantal.discretize and {'kernel': values}: a list "
            "without an expression leaves kernels of small fan-in free"
        )
    rows, index = np.unique(weights.lists, axis=0, return_inverse=True)
    grids = [multiples_of(row) for row in rows]
    for row, grid in zip(rows, grids, strict=True):
        if grid is None:
            raise ValueError(
                f"has the list {shown(row)}. Expected numbers that are integers times one step, "
                f"none beyond {LARGEST} of it, such as [1, -1, 0.5, -0.5], 'ternary', 'signed:4' "
                "or 'powers_of_two:4'"
            )
    index = np.broadcast_to(index.ravel(), len(weights.codes))
    lists = np.stack([grid.integers for grid in grids if grid is not None])[index]
    steps = np.array([grid.step for grid in grids if grid is not None])[index]
    integers = np.take_along_axis(lists, weights.codes.astype(np.intp), axis=1)
    return IntegerWeights(integers, steps)


def shown(numbers: Floats) -> str:
    """Return the first numbers of a list as text."""
    texts = [f"{number:.6g}" for number in numbers[:6].tolist()]
    return f"[{', '.join(texts)}{', ...' if len(numbers) > 6 else ''}]"
