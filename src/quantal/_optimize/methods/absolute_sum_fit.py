"""An absolute sum fit recognizes a sum of absolute values of sums, by its edges on a line."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from quantal._optimize.budget import Spendable
from quantal._optimize.methods.stand_in import StandIn
from quantal._optimize.methods.surface import Slopes, Surface
from quantal.objectives.problem import Floats, Problem
from quantal.objectives.sums import Sums

_FARTHEST = 1e5
"""Edges are looked for up to this distance from the middle, in units of the line's direction:
nearly parallel ones are not crossed before."""
_MOST_EDGES = 4096
"""A surface with more edges is not taken apart."""
_ROUNDING = 1e-9
"""A number is on a straight line up to this part of the numbers that are compared."""
_ROUNDING_OF_SLOPES = 1e-11
"""The same, relative to numbers far away: their slopes are off by rounding, and reach far."""
_MOST_HALVINGS = 200
"""The most times that tangents part the edges; more are needed only where rounding hides them."""
_FLATTEST = 1e-9
"""Two slopes are the same up to this part of the steepest one."""
_STEP_ALONG, _NEAR = 1e-5, 0.1
"""The step of differences along the line, relative to the distance from the middle and 0.1."""
_STEPS = (0.1, 0.01, 0.001)
"""The steps of differences between two edges, as parts of half their distance."""
_BEND = 1e-14
"""A second difference above this part of the number crosses an edge."""
_DRAWN = 64
"""How many random vectors have to agree."""


class _Edges(NamedTuple):
    """Edges are where the slope along a line changes.

    Attributes:
        positions: Their positions on the line, ascending, (m,).
        between: A position before, between and after them, (m + 1,).
        widths: How far the next edge is from each of these at least, (m + 1,).
    """

    positions: Floats
    between: Floats
    widths: Floats


def fit_absolute_sum(
    surface: Surface, problem: Problem, budget: Spendable, seconds_each: float
) -> StandIn | None:
    """Return the sum of absolute values, and a sum more, that is a surface; None if none is.

    Formula: along a generic line each `abs(a @ x + b)` has one edge, where it is zero. Between
    two neighbouring edges the surface has one gradient, and from one side of an edge to
    the other it changes by `2 * a`. Without the absolute values, an affine function is left.

    Args:
        surface: The surface, in the form in which it is affine nearby.
        problem: The lists, and which elements are fixed.
        budget: What may be spent.
        seconds_each: The seconds that one loss of a batch takes, approximately.
    """
    if not surface.is_exact:
        return None  # The edges would not be exact.
    random = np.random.default_rng(0)
    middle = surface.drawn(problem, 1, random)[0]
    direction = random.normal(size=surface.size)
    edges = _edges_of_line(surface, middle, direction, budget)
    if edges is None:
        return None
    evaluations = len(edges.between) * 2 * surface.size
    if not budget.affords(evaluations, seconds_each):
        return None
    numbers, gradients = _slopes_between(surface, middle, direction, edges)
    rows = np.diff(gradients, axis=0) / 2
    along = gradients @ direction
    # Where the lines of two neighbours meet: more exactly than when the edge was looked for.
    ends = numbers - along * edges.between
    positions = np.diff(ends) / -np.diff(along)
    crossings = middle + positions[:, None] * direction
    constants = -(rows * crossings).sum(axis=1)
    rest = gradients[0] + rows.sum(axis=0)  # All are negative before their edges.
    whole = np.concatenate([rows, constants[:, None]], axis=1)
    return _confirmed(surface, problem, whole, rest)


def _confirmed(surface: Surface, problem: Problem, rows: Floats, rest: Floats) -> StandIn | None:
    """Return the sum of absolute values of rows (m, d + 1) if it agrees at random vectors."""
    random = np.random.default_rng(1)
    vectors = problem.values(np.stack([problem.draw(random) for _ in range(_DRAWN)]))
    points = surface.points(vectors)
    numbers = surface.at(points)
    sums = np.abs(points @ rows[:, :-1].T + rows[:, -1]).sum(axis=1) + points @ rest
    constant = float(np.median(numbers - sums))
    rows = surface.rows_of_vectors(np.concatenate([rows, np.append(rest, constant)[None]]))
    objective = Sums(rows[:, :-1], _sum_of_absolutes, rows[:, -1].real)
    limit = surface.tolerance * float(np.abs(numbers).max())
    close = np.abs(objective(vectors) - numbers) <= limit
    return StandIn(objective, limit, surface.form) if close.all() else None


def _sum_of_absolutes(sums: NDArray[np.complex128]) -> Floats:
    """Return the sum of the absolute values of all sums but the last, and of the last."""
    return np.asarray(np.abs(sums.real[:, :-1]).sum(axis=1) + sums.real[:, -1])


def _slopes_between(surface: Surface, middle: Floats, direction: Floats, edges: _Edges) -> Slopes:
    """Return numbers (m + 1,) and gradients (m + 1, d) before, between and after edges."""
    points = middle + edges.between[:, None] * direction
    numbers = surface.at(points)
    parts = [
        _gradient(surface, point, number, width)
        for point, number, width in zip(points, numbers, edges.widths, strict=True)
    ]
    return Slopes(numbers, np.stack(parts))


def _gradient(surface: Surface, point: Floats, number: float, width: float) -> Floats:
    """Return the gradient (d,) at a point that is some width from the next edge on a line.

    Across the line an edge may be nearer: where a difference crosses one, a shorter is taken.
    """
    gradient, left = np.zeros(surface.size), np.arange(surface.size)
    for step in _STEPS:
        moves = step * width * np.eye(surface.size)[left]
        upper, lower = np.split(surface.at(np.concatenate([point + moves, point - moves])), 2)
        gradient[left] = (upper - lower) / (2 * step * width)
        bend = np.abs(upper + lower - 2 * number)
        left = left[bend > _BEND * abs(number)]
        if not len(left):
            break
    return gradient


@np.errstate(all="ignore")
def _edges_of_line(
    surface: Surface, middle: Floats, direction: Floats, budget: Spendable
) -> _Edges | None:
    """Return the edges of a convex surface on a line; None if it has too many, or is not convex.

    Two tangents meet at an edge if the surface meets them there, and between more edges if not:
    then a tangent at that position parts these.
    """

    def tangents(positions: Floats) -> Floats:
        """Return the position, the number and the slope of each tangent, (batch, 3)."""
        steps = _STEP_ALONG * (_NEAR + np.abs(positions))
        all_positions = np.concatenate([positions, positions + steps, positions - steps])
        numbers = surface.at(middle + all_positions[:, None] * direction)
        number, upper, lower = np.split(numbers, 3)
        return np.stack([positions, number, (upper - lower) / (2 * steps)], axis=1)

    first, last = tangents(np.array([-_FARTHEST, _FARTHEST]))
    steepest = max(abs(first[2]), abs(last[2]))
    pairs, positions = np.stack([first, last])[None], []
    for _ in range(_MOST_HALVINGS):
        left, right = pairs[:, 0], pairs[:, 1]
        bends = right[:, 2] - left[:, 2]
        pairs = pairs[bends > _FLATTEST * steepest]
        if not (np.isfinite(pairs).all() and (bends >= -_FLATTEST * steepest).all()):
            return None
        left, right = pairs[:, 0], pairs[:, 1]
        bends = right[:, 2] - left[:, 2]
        ends = left[:, 1] - left[:, 2] * left[:, 0], right[:, 1] - right[:, 2] * right[:, 0]
        meeting = np.clip((ends[0] - ends[1]) / bends, left[:, 0], right[:, 0])
        between = tangents(meeting)
        height = between[:, 1] - (ends[0] + left[:, 2] * meeting)
        near = np.abs(between[:, 1]) + np.abs(ends[0])
        far = np.abs(pairs[:, :, 1]).sum(axis=1)
        is_edge = np.abs(height) <= _ROUNDING * near + _ROUNDING_OF_SLOPES * far
        positions.extend(meeting[is_edge].tolist())
        if len(positions) + len(pairs) > _MOST_EDGES or not budget.has_budget():
            return None
        parted, middle_ones = pairs[~is_edge], between[~is_edge, None]
        pairs = np.concatenate([
            np.concatenate([parted[:, :1], middle_ones], axis=1),
            np.concatenate([middle_ones, parted[:, 1:]], axis=1),
        ])  # fmt: skip
        if not len(pairs):
            return _with_neighbours(np.sort(positions))
    return None


def _with_neighbours(positions: Floats) -> _Edges | None:
    if not len(positions):
        return None
    outside = _NEAR + np.abs(positions[[0, -1]])
    ends = np.concatenate([[positions[0] - outside[0]], positions, [positions[-1] + outside[1]]])
    return _Edges(positions, (ends[1:] + ends[:-1]) / 2, np.diff(ends) / 2)
