"""Many changes drawn at once, at a temperature that falls."""

from collections.abc import Callable

import numpy as np

from quantal._models.model_loss import Objective
from quantal.objectives.problem import Integers

_TRIED = 0.4
"""The share of elements whose change is tried in a step."""
_ACCEPTED = 0.03
"""The share of tried changes that a cycle begins with, about."""
_FALL = 8.0
"""How much the temperature falls in a cycle."""


class Tempering:
    """Cycles of drawn changes, each from hot to cold.

    A change by `step` is predicted to cost `gradient * step + curvature * step**2 / 2`; it is
    taken with the probability `exp(-cost / temperature)`, all that are drawn at once. The
    curvature is that along the last step, for each parameter, averaged.

    Args:
        objective: The loss.
        random: Draws.
    """

    def __init__(self, objective: Objective, random: np.random.Generator) -> None:
        self._objective, self._random = objective, random

    def cycle(
        self,
        ranks: Integers,
        gone: Callable[[], float],
        goes_on: Callable[[], bool],
        better: Callable[[Integers, float], None],
    ) -> Integers:
        """Where a cycle ends.

        Args:
            ranks: Where it begins.
            gone: The share of the cycle that is over; it ends at 1.
            goes_on: Whether there is something left to spend.
            better: Is told each choice, and what the monitor says of it.
        """
        objective, random = self._objective, self._random
        _, slope = objective.slopes(ranks)
        objective.probe(ranks, slope, random)
        hot = self._temperature(ranks, slope) * 10 ** random.uniform(-0.3, 0.3)
        while (share := gone()) < 1 and goes_on():
            temperature = hot * _FALL**-share
            moved = objective.neighbours(ranks, random)
            cost = objective.costs(ranks, moved, slope)
            chance = _TRIED * np.exp(-np.maximum(cost, 0) / temperature)
            taken = (random.random(len(ranks)) < chance) & (moved != ranks)
            after = np.where(taken, moved, ranks)
            _, after_slope = objective.slopes(after)
            objective.bend(ranks, after, slope, after_slope)
            ranks, slope = after, after_slope
            better(ranks, objective.monitored)
        return ranks

    def _temperature(self, ranks: Integers, slope: np.ndarray) -> float:
        """At which about `_ACCEPTED` of the changes that cost something are taken."""
        objective = self._objective
        moved = objective.neighbours(ranks, self._random)
        cost = objective.costs(ranks, moved, slope)
        cost = cost[(moved != ranks) & (cost > 0)]
        if not len(cost):
            return 1e-12
        low, high = 1e-6 * float(cost.max()), 10 * float(cost.max())
        for _ in range(40):
            middle = float(np.sqrt(low * high))
            if np.exp(-cost / middle).mean() > _ACCEPTED:
                high = middle
            else:
                low = middle
        return high
