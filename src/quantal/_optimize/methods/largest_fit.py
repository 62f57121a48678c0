"""A largest fit recognizes the largest of many sums, or of their magnitudes, by its slopes."""

import numpy as np
from numpy.typing import NDArray

from quantal._optimize.budget import Spendable
from quantal._optimize.methods.increasing import Increasing
from quantal._optimize.methods.pieces import DIRECTIONS, Pieces
from quantal._optimize.methods.stand_in import StandIn
from quantal._optimize.methods.surface import Surface
from quantal.objectives.minimax import Minimax
from quantal.objectives.problem import Floats, Integers, Problem
from quantal.objectives.sums import Sums

_FIRST_POINTS, _MOST_AT_ONCE, _MOST_POINTS = 16, 256, 1024
"""So many points are drawn first, then twice as many again and again, up to these numbers."""
_ENOUGH, _FEWEST = 0.9, 0.2
"""The share of points drawn at which no piece is missing: with 0.9 no more are drawn, with less
than 0.2 the loss is something else."""
_FEWEST_REPEATED = 0.01
"""The share of points whose piece is known, once some are, below which no more are drawn."""


def fit_largest(
    surface: Surface, problem: Problem, are_squares: bool, budget: Spendable, seconds_each: float
) -> Pieces | None:
    """Return the pieces whose largest a surface is, as far as random points show it.

    A piece that is the largest at no random point is missing, so that the largest of the
    pieces is a bound from below, and better vectors have to show what is missing.

    Args:
        surface: The surface, in the form in which it is affine or quadratic nearby.
        problem: The lists, and which elements are fixed.
        are_squares: Whether it is quadratic.
        budget: What may be spent.
        seconds_each: The seconds that one loss of a batch takes, approximately.
    """
    random = np.random.default_rng(0)
    pieces = Pieces(surface.size, are_squares)
    count, drawn, share = _FIRST_POINTS, 0, 0.0
    while drawn < _MOST_POINTS and share < _ENOUGH:
        evaluations = count * (1 + evaluations_of_a_piece(surface, are_squares))
        if not (budget.has_budget() and budget.affords(evaluations, seconds_each)):
            return None
        points = surface.drawn(problem, count, random)
        is_missing = missing(pieces, surface, points)
        if is_missing is None:
            return None
        share = 1 - float(is_missing.mean())
        if drawn >= 4 * _FIRST_POINTS and share < _FEWEST_REPEATED:
            return None
        if is_missing.any() and not pieces.add_from(surface, points[is_missing]):
            return None
        drawn, count = drawn + count, min(2 * count, _MOST_AT_ONCE)
    is_missing = missing(pieces, surface, surface.points(_drawn(problem)))
    if is_missing is None or 1 - is_missing.mean() < _FEWEST:
        return None
    return pieces


def evaluations_of_a_piece(surface: Surface, are_squares: bool) -> int:
    """Return how many losses the piece at a point takes."""
    one = 1 + 2 * surface.size if surface.is_exact else 2
    return (1 + DIRECTIONS if are_squares else 1) * one


def missing(pieces: Pieces, surface: Surface, points: Floats) -> NDArray[np.bool_] | None:
    """Return at which points (batch,) a piece is missing; None if pieces are no bound."""
    numbers, largest = surface.at(points), pieces.at(points)
    limit = surface.tolerance * np.abs(numbers).max()
    if not np.isfinite(numbers).all() or (largest > numbers + limit).any():
        return None
    return np.asarray(largest < numbers - limit)


def stand_in_of(pieces: Pieces, surface: Surface, problem: Problem) -> StandIn:
    """Return the objective that is the largest of some pieces."""
    first = surface.rows_of_vectors(pieces.first)
    limit = surface.tolerance * float(np.abs(pieces.at(surface.points(_drawn(problem)))).max())
    if pieces.are_squares:
        if pieces.second.any() or surface.is_complex:
            second = surface.rows_of_vectors(pieces.second)
            rows = np.concatenate([first, second])
            objective = Sums(rows[:, :-1], _largest_square, rows[:, -1])
            return StandIn(objective, limit, surface.form)
        form = Increasing(surface.form.name, lambda losses: np.sqrt(surface.form.function(losses)))
        return StandIn(Minimax(first[:, :-1], -first[:, -1]), np.sqrt(limit), form)
    if not surface.is_complex and _are_absolute(first, surface, problem, limit):
        rows = pieces.without_negatives(first)
        return StandIn(Minimax(rows[:, :-1], -rows[:, -1]), limit, surface.form)
    objective = Sums(first[:, :-1], _largest_real_part, first[:, -1].real)
    return StandIn(objective, limit, surface.form)


def _are_absolute(rows: Floats, surface: Surface, problem: Problem, limit: float) -> bool:
    """Return whether a surface is no lower than the negatives of its pieces, where these are high.

    Args:
        rows: The pieces, as functions of real vectors, (k, n + 1).
        surface: The surface.
        problem: The lists.
        limit: How far numbers may be off.
    """
    corners = _lowest_corners(rows, problem)
    lowest = (problem.values(corners) * rows[:, :-1]).sum(axis=1) + rows[:, -1]
    numbers = surface.at(surface.points(problem.values(corners)))
    return bool((numbers >= -lowest - limit).all())


def _drawn(problem: Problem) -> Floats:
    """Return random vectors of the lists."""
    random = np.random.default_rng(0)
    return problem.values(np.stack([problem.draw(random) for _ in range(4 * _FIRST_POINTS)]))


def _lowest_corners(rows: Floats, problem: Problem) -> Integers:
    """Return the codes (k, n) at which each of some affine functions (k, n + 1) is lowest."""
    codes = [(row[:-1, None] * problem.lists).argmin(axis=1) for row in rows]
    return np.where(problem.fixed, problem.start, np.stack(codes))


def _largest_real_part(sums: NDArray[np.complex128]) -> Floats:
    return np.asarray(sums.real.max(axis=1))


def _largest_square(sums: NDArray[np.complex128]) -> Floats:
    first, second = np.split(sums.real, 2, axis=1)
    return np.asarray((first**2 + second**2).max(axis=1))
