"""An exact method runs what an objective has to prove the best assignment."""

from collections.abc import Iterator

from quantal._optimize.budget import Spendable
from quantal._optimize.evaluator import Evaluator
from quantal._optimize.methods.method import Method, OnImprovement
from quantal._optimize.methods.population import Population
from quantal._optimize.methods.restarts import Restarts
from quantal.objectives._algorithms.solution import Solution
from quantal.objectives.objective import Objective
from quantal.objectives.problem import Integers, Problem

_SECONDS_BEFORE, _SECONDS_OF_REST = 0.05, 0.6
"""Fractions of the seconds left: spent on heuristics before an exact method, since it needs a
good start; and given to the exact method of what remains."""


class ExactMethod:
    """An exact method solves an objective that has a structure.

    Args:
        objective: Has the method; it may be one that stands for the true loss.
        problem: The lists, and which elements are fixed.
        evaluator: Evaluates what the method reports by the true loss.
        population: Gets the solution as a start.
    """

    def __init__(
        self,
        objective: Objective,
        problem: Problem,
        evaluator: Evaluator,
        population: Population,
    ) -> None:
        self._objective, self._problem = objective, problem
        self._evaluator, self._population = evaluator, population

    def run(self, start: Integers, budget: Spendable, on_improvement: OnImprovement) -> Solution:
        """Solve the problem in a part of the seconds left, where the method applies."""
        if not budget.has_budget():
            return Solution(None)
        seconds = _SECONDS_OF_REST * budget.seconds_left
        solution = self._objective.exact(self._problem, seconds, start, self._evaluator.consider)
        if solution is None:
            return Solution(None)
        if solution.codes is not None:
            self._evaluator.consider(solution.codes)
            self._population.begin_with([solution.codes])
        return solution


def restarts_with_exact(
    heuristic: Method,
    exact: ExactMethod | None,
    population: Population,
    exact_is_fast: bool = False,
) -> Iterator[Method]:
    """Yield the restarts of a heuristic, with an exact method near the beginning.

    Args:
        heuristic: Improves one assignment.
        exact: The exact method; None where there is none, or no seconds are limited.
        population: The good assignments.
        exact_is_fast: Whether the exact method needs no good start, and comes first.
    """
    if exact is not None:
        if not exact_is_fast:
            yield Restarts(heuristic, population, _SECONDS_BEFORE)
        yield exact
    yield Restarts(heuristic, population)
