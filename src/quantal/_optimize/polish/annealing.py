"""Annealing draws many changes at once, at a temperature that falls.

Source: Zhang, Liu and Liu, "A Langevin-like sampler for discrete distributions", ICML 2022, here
with the curvature along the last step.
"""

from collections.abc import Callable

import numpy as np

from quantal._optimize.polish.curvature import Curvature
from quantal._optimize.polish.ranked_loss import RankedLoss
from quantal.objectives.problem import Floats, Integers

_PROPOSED = 0.4
"""The fraction of elements whose change is proposed in a step: fewer than half, so that neighbours
in a layer seldom move together by chance."""
_ACCEPTED = 0.03
"""The fraction of proposed changes that a cycle begins with, about."""
_FALL = 8.0
"""By which factor the temperature falls in a cycle."""
_SPREAD = 0.3
"""Cycles begin up to this power of ten hotter or colder: no one temperature is right for all."""
_LOWEST, _HIGHEST = 1e-6, 10.0
"""The first temperature lies between these multiples of the largest predicted cost."""
_HALVINGS = 40
"""That range is halved so often: float64 has no finer steps then."""
_COLD = 1e-12
"""The temperature where no change costs anything, so that all proposals are taken."""


class Annealing:
    """Annealing leads out of local optima by cycles of drawn changes, each from hot to cold.

    A change by `step` has a predicted cost; it is taken with the probability
    `exp(-cost / temperature)`, all that are drawn at once. The curvature in the cost is that along
    the last step, for each parameter, averaged.

    Args:
        objective: The loss.
        curvature: Predicts costs, and is updated at each step.
        random: Draws the changes.
    """

    def __init__(
        self, objective: RankedLoss, curvature: Curvature, random: np.random.Generator
    ) -> None:
        self._objective, self._curvature, self._random = objective, curvature, random

    def cycle(
        self,
        ranks: Integers,
        fraction_done: Callable[[], float],
        has_budget: Callable[[], bool],
        on_improvement: Callable[[Integers, float], object],
    ) -> Integers:
        """Return the assignment at which a cycle ends.

        Args:
            ranks: The assignment at which it begins.
            fraction_done: Returns the fraction of the cycle that is over; it ends at 1.
            has_budget: Returns whether another loss may be evaluated.
            on_improvement: Is called with each assignment and its monitored number, so
                that the caller can keep the best.
        """
        objective, curvature, random = self._objective, self._curvature, self._random
        _, _, gradient = objective.loss_and_gradient(ranks)
        curvature.probe(ranks, gradient, random)
        hot = self._first_temperature(ranks, gradient) * 10 ** random.uniform(-_SPREAD, _SPREAD)
        while (done := fraction_done()) < 1 and has_budget():
            temperature = hot * _FALL**-done
            moved = objective.lists.neighbours(ranks, random)
            cost = curvature.costs(ranks, moved, gradient)
            probability = _PROPOSED * np.exp(-np.maximum(cost, 0) / temperature)
            taken = (random.random(len(ranks)) < probability) & (moved != ranks)
            after = np.where(taken, moved, ranks)
            _, monitored, gradient_after = objective.loss_and_gradient(after)
            curvature.secant_update(ranks, after, gradient, gradient_after)
            ranks, gradient = after, gradient_after
            on_improvement(ranks, monitored)
        return ranks

    def _first_temperature(self, ranks: Integers, gradient: Floats) -> float:
        """Return the temperature at which about `_ACCEPTED` of the costly changes are taken."""
        moved = self._objective.lists.neighbours(ranks, self._random)
        cost = self._curvature.costs(ranks, moved, gradient)
        cost = cost[(moved != ranks) & (cost > 0)]
        if not len(cost):
            return _COLD
        low, high = _LOWEST * float(cost.max()), _HIGHEST * float(cost.max())
        for _ in range(_HALVINGS):
            middle = float(np.sqrt(low * high))
            if np.exp(-cost / middle).mean() > _ACCEPTED:
                high = middle
            else:
                low = middle
        return high
