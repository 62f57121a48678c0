"""Restarts run a method again and again from crossovers of good assignments."""

from quantal._optimize.budget import Spendable
from quantal._optimize.methods.method import Method, OnImprovement
from quantal._optimize.methods.population import Population
from quantal.objectives._algorithms.solution import Solution
from quantal.objectives.problem import Integers


class Restarts:
    """Restarts run a method from crossovers of a population, and offer it what they reach.

    Args:
        method: Improves one assignment.
        population: The good assignments.
        fraction: The fraction of the seconds that are left which may be spent.
    """

    def __init__(self, method: Method, population: Population, fraction: float = 1.0) -> None:
        self._method, self._population, self._fraction = method, population, fraction

    def run(self, start: Integers, budget: Spendable, on_improvement: OnImprovement) -> Solution:
        """Run until there is no budget; the population says where to start."""
        if self._fraction < 1:
            budget = budget.limited((1 - self._fraction) * budget.seconds_left)
        while budget.has_budget():
            solution = self._method.run(self._population.crossover(), budget, on_improvement)
            if solution.codes is not None and solution.loss is not None:
                self._population.offer(solution.loss, solution.codes)
        return Solution(None)
