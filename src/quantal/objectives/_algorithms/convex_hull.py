"""A convex hull of complex numbers has the values that reach farthest in some direction."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from quantal.objectives.problem import Floats, Integers


class HullEdges(NamedTuple):
    """Hull edges are the edges of a convex hull, counterclockwise.

    Attributes:
        from_codes: The code of the value where each edge begins.
        to_codes: The code of the value where it ends.
        normals: The angle of its outward normal.
    """

    from_codes: Integers
    to_codes: Integers
    normals: Floats


def hull_edges(values: NDArray[Any]) -> HullEdges:
    """Return the edges of the hull of values (K,), by Andrew's monotone chain.

    Points inside an edge are left out.
    """
    x, y = values.real.astype(np.float64), values.imag.astype(np.float64)
    _, first = np.unique(np.stack([x, y], axis=1), axis=0, return_index=True)
    lower = _left_turns(x, y, first)
    upper = _left_turns(x, y, first[::-1])
    from_codes = np.array(lower[:-1] + upper[:-1], np.int64)
    to_codes = np.array(lower[1:] + upper[1:], np.int64)
    directions = np.arctan2(y[to_codes] - y[from_codes], x[to_codes] - x[from_codes])
    # Edges of the lower chain go to the right, (-pi/2, pi/2], those of the upper to the left.
    of_upper = np.arange(len(directions)) >= len(lower) - 1
    wrapped = of_upper & (directions <= -np.pi / 2)
    normals = np.where(wrapped, directions + 2 * np.pi, directions) - np.pi / 2
    return HullEdges(
        from_codes, to_codes, np.maximum.accumulate(normals) if len(normals) else normals
    )


def _left_turns(x: Floats, y: Floats, order: Integers) -> list[int]:
    """Return the points, of those in an order, whose path turns left all the way."""
    chain: list[int] = []
    for point in order.tolist():
        while len(chain) > 1:
            first, second = chain[-2:]
            cross = (x[second] - x[first]) * (y[point] - y[first]) - (y[second] - y[first]) * (
                x[point] - x[first]
            )
            if cross > 0:
                break
            chain.pop()
        chain.append(point)
    return chain
