"""A piecewise fit recognizes the largest of many sums, or the sum of their absolute values."""

from collections.abc import Callable
from typing import cast

import numpy as np

from quantal._optimize.budget import Spendable
from quantal._optimize.evaluator import Evaluator
from quantal._optimize.methods.absolute_sum_fit import fit_absolute_sum
from quantal._optimize.methods.increasing import is_single
from quantal._optimize.methods.largest_fit import fit_largest, missing, stand_in_of
from quantal._optimize.methods.method import OnImprovement
from quantal._optimize.methods.pieces import Pieces
from quantal._optimize.methods.population import Population
from quantal._optimize.methods.stand_in import StandIn, StandInSearch
from quantal._optimize.methods.surface import LONG_LINE, SHORT_LINE, Surface
from quantal.objectives._algorithms.solution import Solution
from quantal.objectives.minimax import Minimax
from quantal.objectives.problem import Floats, Integers, Problem
from quantal.objectives.sums import Sums

_FEWEST = 2
"""The fewest coordinates of a surface."""
_NEIGHBOURS, _CHANGED = 32, 3
"""Where a piece is missing, pieces are looked for at so many points: half of them near the vector,
half near vectors in which up to so many elements have other values."""
_NEAREST = 1e-3
"""The nearest points are nearer to the vector than others by this factor."""
_ROUNDS = 500
"""Pieces are completed at most so many times."""

_FIRST_EVALUATIONS = 2000
"""Finding out whether a loss is piecewise affine takes 96 evaluations; it has to be a small part
of those that are left."""
_OF_AFFINE_PARTS = (
    "The function looks affine in parts. It is searched faster as quantal.objectives.Minimax if it "
    "is a largest absolute value of sums, and as quantal.objectives.Sums else."
)


class PiecewiseFit:
    """A piecewise fit minimizes sums that stand for a loss; the loss decides.

    It does nothing where the loss is neither a largest of sums, or of magnitudes of sums, nor a
    sum of absolute values of sums, up to an increasing function; or where finding that out
    does not pay. The loss is called between the values of the lists, too.

    Args:
        problem: The lists, and which elements are fixed.
        losses: Takes vectors (batch, n), of any numbers, to losses (batch,).
        gradients: Takes vectors (batch, n) to gradients (batch, n); or to None for none.
        evaluator: Evaluates the true loss.
        population: The good assignments.
        seed: The seed of the random numbers.
        seconds_each: The seconds that one loss of a batch takes, approximately.
        notes: Gets a sentence about what the loss was recognized as.
    """

    def __init__(
        self,
        problem: Problem,
        losses: Callable[[Floats], Floats],
        gradients: Callable[[Floats], Floats | None],
        evaluator: Evaluator,
        population: Population,
        seed: int,
        seconds_each: float,
        notes: list[str],
    ) -> None:
        self._problem, self._losses, self._gradients = problem, losses, gradients
        self._evaluator, self._seconds_each, self._notes = evaluator, seconds_each, notes
        self._search = StandInSearch(problem, evaluator, population, seed)
        self._random = np.random.default_rng([seed, 2])

    def run(self, start: Integers, budget: Spendable, on_improvement: OnImprovement) -> Solution:
        """Fit, and minimize the fit as long as it agrees with the loss or can be completed.

        The solution is complete if no vector is better by the fit, and fit and loss agree
        there. It is no proof, since the loss may differ from the fit elsewhere.
        """
        surface = Surface(self._problem, self._losses, self._gradients, budget)
        try:
            fitted = self._fit(surface, budget)
        except Exception:
            # A function need not be defined between the values of the lists, and may raise
            # anything there; it is searched as any other.
            return Solution(None)
        if fitted is None:
            return Solution(None)
        if isinstance(fitted, Pieces):
            return self._complete(fitted, surface, budget, on_improvement)
        sums = cast(Sums, fitted.objective)
        self._notes.append(
            "The function is a sum of absolute values of sums, and is searched as "
            f"quantal.objectives.Sums with {len(sums.matrix)} sums."
        )
        return self._search.run(fitted, budget, on_improvement)

    def _fit(self, surface: Surface, budget: Spendable) -> Pieces | StandIn | None:
        """Return what a surface is made of; None if nothing was recognized."""
        problem, random = self._problem, np.random.default_rng(0)
        if surface.size < _FEWEST or not budget.affords(_FIRST_EVALUATIONS, self._seconds_each):
            return None
        lines = [surface.probes(problem, random, step) for step in (SHORT_LINE, LONG_LINE)]
        losses = surface.at(np.concatenate(lines))
        surface.is_exact = not is_single(losses)
        short, long = np.split(losses, 2)
        form = surface.looks_affine(lines[0], short)
        are_squares = form is None
        form = form or surface.looks_quadratic(long)
        if form is None:
            return None
        surface.form = form
        pieces = fit_largest(surface, problem, are_squares, budget, self._seconds_each)
        if pieces is not None or are_squares:
            return pieces
        absolute_sum = fit_absolute_sum(surface, problem, budget, self._seconds_each)
        if absolute_sum is None:
            self._notes.append(_OF_AFFINE_PARTS)
        return absolute_sum

    def _complete(
        self, pieces: Pieces, surface: Surface, budget: Spendable, on_improvement: OnImprovement
    ) -> Solution:
        """Minimize the largest of pieces; where it is below the loss, add what is missing."""
        for _ in range(_ROUNDS):
            stand_in = stand_in_of(pieces, surface, self._problem)
            improvements: list[Integers] = []

            def collect(codes: Integers, loss: float, into: list[Integers] = improvements) -> None:
                into.append(codes.copy())
                on_improvement(codes, loss)

            solution = self._search.run(stand_in, budget, collect)
            is_complete = solution.codes is not None or not improvements
            if is_complete or not budget.has_budget():
                self._name(stand_in)
                return solution
            if not self._add_missing(pieces, surface, improvements[-1]):
                break
        return Solution(None)

    def _add_missing(self, pieces: Pieces, surface: Surface, codes: Integers) -> bool:
        """Add the pieces around an assignment; return whether there are new ones."""
        around = np.tile(codes, (_NEIGHBOURS, 1))
        for row in around[_NEIGHBOURS // 2 :]:
            drawn, elements = self._problem.draw(self._random), self._problem.free
            changed = self._random.choice(elements, min(_CHANGED, len(elements)), replace=False)
            row[changed] = drawn[changed]
        values = surface.points(self._problem.values(around))
        points = surface.jittered(values, self._random)
        # The nearer to the assignment, the surer the piece is the one that is missing there.
        nearness = np.geomspace(_NEAREST, 1, _NEIGHBOURS // 2)[:, None]
        points[: len(nearness)] = values[0] + nearness * (points[: len(nearness)] - values[0])
        try:
            is_missing = missing(pieces, surface, points)
            return is_missing is not None and bool(pieces.add_from(surface, points[is_missing]))
        except Exception:
            return False  # As above, the function need not be defined there.

    def _name(self, stand_in: StandIn) -> None:
        objective = cast(Minimax | Sums, stand_in.objective)
        kind = type(objective).__name__
        proof = " A search of that loss may prove its result." if kind == "Minimax" else ""
        self._notes.append(
            "The function is a largest of sums, and is searched as "
            f"quantal.objectives.{kind} with {len(objective.matrix)} rows.{proof}"
        )
