"""Compiled steps run a compiled loop part by part, until it stalls."""

import numpy as np

from quantal._optimize.budget import Spendable
from quantal._optimize.methods.method import OnImprovement
from quantal.objectives._algorithms.compiled_loop import CompiledLoop, LoopState
from quantal.objectives._algorithms.solution import Solution
from quantal.objectives.problem import Integers, Problem

OPERATIONS_OF_A_PART = 3e7
"""The operations between two looks at the budget: some hundredths of a second."""


class CompiledSteps:
    """Compiled steps improve an assignment by the loop that an objective has compiled.

    The number of steps of a part follows from the problem's size and from the evaluations that
    are left, never from the clock, so that the same seed goes the same way on a slow and
    on a fast machine.

    Args:
        problem: The lists, and which elements are fixed.
        loop: The compiled loop.
        seed: The seed of the random numbers.
    """

    def __init__(self, problem: Problem, loop: CompiledLoop, seed: int) -> None:
        self._problem, self._loop = problem, loop
        self._steps_of_a_part = max(1, int(OPERATIONS_OF_A_PART / loop.operations))
        self._random = np.random.default_rng(seed)
        self._deltas_of_a_step = int((problem.lengths - 1)[~problem.fixed].sum())
        # Trigger compilation here (or load numba's cache) so that it is not counted as search
        # time.
        loop.advance(0, 0, LoopState.of(problem.start, 0.0))

    def run(self, start: Integers, budget: Spendable, on_improvement: OnImprovement) -> Solution:
        """Advance the loop until it stalls or there is no budget."""
        loss = self._loop.loss(self._problem.values(start))
        on_improvement(start.copy(), loss)
        state = LoopState.of(start, loss)
        while state.steps_without_improvement < self._loop.patience and budget.has_budget():
            steps_before = state.steps
            self._loop.advance(
                self._affordable_steps(budget), int(self._random.integers(2**31)), state
            )
            budget.count((state.steps - steps_before) * self._deltas_of_a_step)
            # Rounding errors add up in the loss that the loop keeps.
            exact_loss = self._loop.loss(self._problem.values(state.best_codes))
            if exact_loss < loss:
                loss = exact_loss
                on_improvement(state.best_codes, loss)
        return Solution(state.best_codes, loss)

    def _affordable_steps(self, budget: Spendable) -> int:
        """Return the number of steps of a part, fewer if too few evaluations are left."""
        deltas = self._steps_of_a_part * max(1, self._deltas_of_a_step)
        return max(1, budget.capped(deltas) // max(1, self._deltas_of_a_step))
