"""Follow a loss in compiled loops, part by part, until it stalls."""

from collections.abc import Callable

import numpy as np

from quantal.objectives.problem import Floats, Integers, Problem

PART = 3e7
"""Operations of one compiled part: some hundredths of a second."""

Steps = Callable[[int, int, Integers, Integers, Integers, Floats], None]
"""Goes a number of steps on: count, seed, codes, free_at, best_codes, numbers; in place.

`free_at` is the step from which each element may change again; `numbers` are the loss,
the best loss, the step, and the step of the last better loss.
"""


class Climber:
    """Searches from given codes by compiled steps.

    The number of steps between two looks at the clock is made of the problem's size, so
    that the same seed goes the same way on a slow and on a fast machine.

    Args:
        problem: What is searched.
        loss: Of one vector (n,), exact.
        steps: The compiled loop.
        operations: Of one step, about.
        patience: After how many steps without a better loss it stalls; infinity for never.
        seed: Of the random numbers.

    Attributes:
        evaluations: How many differences of losses were looked at.
    """

    def __init__(
        self,
        problem: Problem,
        loss: Callable[[Floats], float],
        steps: Steps,
        operations: float,
        patience: float,
        seed: int,
    ) -> None:
        self.evaluations = 0
        self._problem, self._loss, self._steps = problem, loss, steps
        self._count = max(1, int(PART / operations))
        self._patience = patience
        self._random = np.random.default_rng(seed)
        self._changes = int((problem.lengths - 1)[~problem.fixed].sum())
        # Compiled now, or read from where numba keeps it: no part of the search.
        codes, none = problem.start, np.zeros(len(problem), np.int64)
        steps(0, 0, codes.copy(), none, codes.copy(), np.zeros(4))

    def improved(
        self,
        codes: Integers,
        goes_on: Callable[[], bool],
        better: Callable[[Integers, float], None],
    ) -> tuple[float, Integers]:
        """The best loss from here and its codes (n,), until it stalls or there is no time.

        Args:
            codes: To start from, (n,); they are not changed.
            goes_on: Whether there is time left.
            better: Called with the best codes and their loss when they got better.
        """
        codes, best_codes = codes.copy(), codes.copy()
        exact = self._loss(self._problem.values(codes))
        better(codes, exact)
        numbers = np.array([exact, exact, 0.0, 0.0])
        free_at = np.zeros(len(codes), np.int64)
        while numbers[2] - numbers[3] < self._patience and goes_on():
            before, seed = numbers[2], int(self._random.integers(2**31))
            self._steps(self._count, seed, codes, free_at, best_codes, numbers)
            self.evaluations += int(numbers[2] - before) * self._changes
            found = self._loss(self._problem.values(best_codes))
            if found < exact:
                exact = found
                better(best_codes, exact)
        return exact, best_codes
