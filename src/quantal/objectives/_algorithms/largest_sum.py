"""A walk around the circle meets the assignment with the largest magnitude of a sum.

The magnitude is the largest component of the sum over all directions. In a given direction,
each element does best with the value whose product reaches farthest, a vertex of the convex
hull of its products; another vertex takes over where the direction crosses the normal of an
edge. So the best assignment changes at the normals alone, and one walk around the circle meets
the best of all.

Source: Ren et al., arXiv:2211.04704; for other phases and gains arXiv:2406.16210.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from quantal.objectives._algorithms.convex_hull import HullEdges, hull_edges
from quantal.objectives.problem import Floats, Integers, Problem


class Crossings(NamedTuple):
    """The crossings are the directions where the best value of an element changes, in order.

    Attributes:
        elements: The element whose value changes.
        from_codes: The code before.
        to_codes: The code after.
    """

    elements: Integers
    from_codes: Integers
    to_codes: Integers


def largest_sum(vector: NDArray[Any], constant: complex, problem: Problem) -> list[Integers]:
    """Return two assignments; the better one has the largest `abs(constant + v @ vector)`.

    They differ only where rounding changed the order of two crossings.

    Args:
        vector: The factors of the elements, (n,).
        constant: A number.
        problem: The lists, and which elements are fixed.
    """
    products = problem.lists * vector[:, None]

    def sum_of(codes: Integers) -> complex:
        return complex(constant + problem.values(codes) @ vector)

    crossings = _crossings(vector, problem)
    elements, from_codes, to_codes = crossings
    codes = problem.start.copy()
    # The order is cyclic: start from the state after the last crossing.
    codes[elements] = to_codes
    steps = products[elements, to_codes] - products[elements, from_codes]
    sums = sum_of(codes) + np.concatenate([[0], np.cumsum(steps)])
    best = int(np.argmax(np.abs(sums)))
    codes[elements[:best]] = to_codes[:best]
    return [codes, _farthest(products, sum_of(codes), problem, codes)]


def _crossings(vector: NDArray[Any], problem: Problem) -> Crossings:
    """Return all crossings in the order of their angle in [0, 2 pi)."""
    edges_of_list: dict[bytes, HullEdges] = {}
    elements, from_codes, to_codes, angles = [], [], [], []
    for i in np.flatnonzero(~problem.fixed & (vector != 0)):
        values = problem.lists[i, : problem.lengths[i]]
        key = values.tobytes()
        if key not in edges_of_list:
            edges_of_list[key] = hull_edges(values)
        # A factor turns and scales the hull; it does not change which points are on it.
        edges = edges_of_list[key]
        elements.append(np.full(len(edges.normals), i))
        from_codes.append(edges.from_codes)
        to_codes.append(edges.to_codes)
        angles.append(edges.normals + np.angle(vector[i]))
    if not elements:
        return Crossings(*(np.zeros(0, np.int64) for _ in range(3)))
    order = np.argsort(np.mod(np.concatenate(angles), 2 * np.pi), kind="stable")
    return Crossings(*(np.concatenate(part)[order] for part in (elements, from_codes, to_codes)))


def _farthest(
    products: NDArray[Any], direction: complex, problem: Problem, codes: Integers
) -> Integers:
    """Return the codes whose products reach farthest in a direction; fixed ones stay."""
    components: Floats = np.real(products * np.conj(direction))
    is_value = np.arange(products.shape[1]) < problem.lengths[:, None]
    farthest = np.where(is_value, components, -np.inf).argmax(axis=1)
    return np.where(problem.fixed, codes, farthest)
