"""Gradient starts are the assignments at which descents along the gradient end.

Source: straight-through estimators, Bengio et al., arXiv:1308.3432; the points that are drawn
to their lists step by step as in PARQ, Jin et al., arXiv:2503.15748. The steps are those of
Adam, Kingma and Ba, arXiv:1412.6980.
"""

from collections.abc import Callable

import numpy as np

from quantal._optimize.budget import Spendable
from quantal._optimize.evaluator import Evaluator
from quantal._optimize.methods.method import OnImprovement
from quantal._optimize.methods.population import Population
from quantal.objectives._algorithms.solution import Solution
from quantal.objectives.problem import Floats, Integers, Problem

_POINTS, _STEPS = 16, 150
"""How many points descend at once, and for how many steps."""
_LEARNING_RATE = 0.05
"""The first learning rate, as a fraction of the range of the lists; it falls to zero."""
_MEAN_DECAY, _MEAN_WEIGHT = 0.9, 0.1
_SQUARE_DECAY, _SQUARE_WEIGHT = 0.99, 0.01
"""Adam's averages of gradients and of their squares, and the weight of a new one; that of squares
is shorter than usual, since there are few steps."""
_SMALLEST = 1e-30
"""This number is added to a divisor, which is zero where all gradients are."""

Gradients = Callable[[Floats], Floats | None]
"""Such a function takes vectors (batch, n) to their gradients, or returns None for none."""


class GradientStarts:
    """Gradient starts descend from several points, and give the better half to a population.

    Args:
        problem: The lists, and which elements are fixed.
        gradients: Takes vectors to the gradients of their losses.
        evaluator: Evaluates where the descents end.
        population: Gets the better half.
        random: Draws the first points.

    Attributes:
        available: Whether the last run had gradients.
    """

    def __init__(
        self,
        problem: Problem,
        gradients: Gradients,
        evaluator: Evaluator,
        population: Population,
        random: np.random.Generator,
    ) -> None:
        self._problem, self._gradients, self._random = problem, gradients, random
        self._evaluator, self._population = evaluator, population
        self.available = False

    def run(self, start: Integers, budget: Spendable, on_improvement: OnImprovement) -> Solution:
        """Descend, and evaluate where the descents end; do nothing without a budget."""
        if not budget.has_budget():
            return Solution(None)
        ends = descend(self._problem, self._gradients, self._random, budget)
        if ends is None:
            return Solution(None)
        self.available = True
        codes = np.stack([self._population.repaired(end) for end in ends])
        losses = self._evaluator.losses(codes)
        order = np.argsort(losses)
        self._population.begin_with(codes[order[: len(order) // 2]])
        best = order[0]
        on_improvement(codes[best], float(losses[best]))
        return Solution(codes[best], float(losses[best]))


def descend(
    problem: Problem, gradients: Gradients, random: np.random.Generator, budget: Spendable
) -> Integers | None:
    """Return the assignments where descents end, (points, n); None without gradients.

    Half of the points have their gradient taken at the nearest values of the lists (straight
    through); for the others, it moves from the points themselves to these values.
    Memory grows with points, elements and the lists' length.

    Args:
        problem: The lists, and which elements are fixed.
        gradients: Takes vectors to the gradients of their losses.
        random: Draws the first points.
        budget: Ends the descents early.
    """
    low, high = problem.lists.min(axis=1), problem.lists.max(axis=1)
    points = random.uniform(low, high, (_POINTS, len(problem)))
    points[0] = problem.values(problem.start)
    straight_through = np.arange(_POINTS)[:, None] % 2 == 0
    mean, square = np.zeros_like(points), np.zeros_like(points)
    for step in range(_STEPS):
        if not budget.has_budget():
            break
        progress = step / _STEPS
        nearest = problem.values(_nearest_codes(problem, points))
        share = np.where(straight_through, 1.0, progress)
        gradient = gradients(share * nearest + (1 - share) * points)
        if gradient is None:
            return None
        mean = _MEAN_DECAY * mean + _MEAN_WEIGHT * gradient
        square = _SQUARE_DECAY * square + _SQUARE_WEIGHT * gradient**2
        scale = np.sqrt(square / (1 - _SQUARE_DECAY ** (step + 1))) + _SMALLEST
        rate = _LEARNING_RATE * (high - low) * (1 - progress)
        points = np.clip(points - rate * mean / (1 - _MEAN_DECAY ** (step + 1)) / scale, low, high)
    return _nearest_codes(problem, points)


def _nearest_codes(problem: Problem, points: Floats) -> Integers:
    codes = np.abs(problem.lists - points[..., None]).argmin(axis=-1)
    return np.where(problem.fixed, problem.start, codes)
