"""An enumeration evaluates every assignment."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from quantal._optimize.budget import Spendable
from quantal._optimize.methods.method import OnImprovement
from quantal.objectives._algorithms.solution import Solution
from quantal.objectives.problem import Floats, Integers, Problem

_LARGEST_BATCH = 4096
"""The most vectors in one call."""
_MOST_NUMBERS = 2**24
"""The most numbers that the vectors of one call hold: 128 MiB."""
_FIRST_BATCH = 64
"""The first batches are small: nobody knows yet how slow the loss is."""
LONGEST_CALL = 0.05
"""A call takes so many seconds at most, approximately: the budget is asked after each."""


def largest_batch(problem: Problem) -> int:
    """Return how many vectors of a problem fit into one call."""
    return int(np.clip(_MOST_NUMBERS // len(problem), 1, _LARGEST_BATCH))


class Enumeration:
    """An enumeration evaluates every assignment, and proves the best one.

    Args:
        problem: The lists, and which elements are fixed.
        losses: Takes codes (batch, n) to losses (batch,); they are counted here.
        satisfied: Returns which codes (batch, n) satisfy the constraints.
    """

    def __init__(
        self,
        problem: Problem,
        losses: Callable[[Integers], Floats],
        satisfied: Callable[[Integers], NDArray[np.bool_]],
    ) -> None:
        self._problem, self._losses, self._satisfied = problem, losses, satisfied

    def run(self, start: Integers, budget: Spendable, on_improvement: OnImprovement) -> Solution:
        """Evaluate all assignments in order, or as many as the budget allows."""
        count, largest = self._problem.assignments, largest_batch(self._problem)
        best, best_loss = start, np.inf
        begin, batch = 0, min(_FIRST_BATCH, largest)
        while begin < count and (begin == 0 or budget.has_budget()):
            began = budget.seconds
            end = min(begin + budget.capped(batch), count)
            codes = self._assignments(begin, end)
            codes = codes[self._satisfied(codes)]
            if len(codes):
                budget.count(len(codes))
                losses = self._losses(codes)
                losses = np.where(np.isnan(losses), np.inf, losses)
                least = int(losses.argmin())
                if losses[least] < best_loss:
                    best, best_loss = codes[least], float(losses[least])
                    on_improvement(best, best_loss)
            if budget.seconds - began < LONGEST_CALL:
                batch = largest
            begin = end
        return Solution(best, best_loss, proved=begin == count)

    def _assignments(self, begin: int, end: int) -> Integers:
        """Return assignments by their number, (end - begin, n)."""
        free = np.flatnonzero(~self._problem.fixed & (self._problem.lengths > 1))
        codes = np.tile(self._problem.start, (end - begin, 1))
        if len(free):
            digits = np.unravel_index(np.arange(begin, end), self._problem.lengths[free])
            codes[:, free] = np.stack(digits, axis=1)
        return codes
