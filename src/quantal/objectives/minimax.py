"""`Minimax` is the largest error of linear functions."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from quantal.objectives._algorithms import minimax_program
from quantal.objectives._algorithms.solution import Solution
from quantal.objectives.groups import Groups
from quantal.objectives.objective import Objective
from quantal.objectives.problem import Floats, Integers, Problem
from quantal.objectives.sums import AffineObjective, Sums

_MOST_BINARIES = 1000
"""The most values of all elements for which the exact method is tried."""
_PROVED_GAP = 4 * minimax_program.TOLERANCE
"""A gap that the solver's tolerance explains: bound and loss are off by it at most twice each."""


class Minimax(AffineObjective):
    """A minimax objective gives `max(weights * abs(matrix @ v - target))` of a vector `v`.

    Use it for filters, whose response has to stay near a target at each frequency:
    `matrix` holds a row for each frequency. `quantal.search` keeps the errors of all rows,
    and proves the best vector of small problems by a mixed-integer program (HiGHS,
    by scipy): no other has an error that is smaller by more than some millionths.

    Args:
        matrix: Real numbers (m, n).
        target: Numbers (m,).
        weights: Numbers (m,), 0 or more; None for ones.

    Raises:
        ValueError: A shape does not fit, or a number is complex, not finite or a weight below 0.

    >>> loss = Minimax([[1, 1], [1, -1]], target=[1, 0])
    >>> loss([[1, 0.5], [0.5, 0.5]])
    array([0.5, 0. ])
    """

    def __init__(
        self, matrix: ArrayLike, target: ArrayLike, weights: ArrayLike | None = None
    ) -> None:
        parts: tuple[Any, ...] = (matrix, target, weights)
        is_complex = any(np.iscomplexobj(part) for part in parts)
        if np.ndim(matrix) != 2 or is_complex:
            raise ValueError(
                f"matrix has the shape {np.shape(matrix)}, or it, target or weights is complex. "
                "Expected real numbers (errors, elements). Give the real and the imaginary part as "
                "rows."
            )
        rows = np.array(matrix, np.float64)
        targets = np.array(target, np.float64)
        factors = np.ones(len(rows)) if weights is None else np.array(weights, np.float64)
        for name, numbers in (("target", targets), ("weights", factors)):
            if numbers.shape != rows.shape[:1] or not np.isfinite(numbers).all():
                raise ValueError(
                    f"{name} has the shape {numbers.shape}, or a number that is not finite. "
                    f"Expected {rows.shape[:1]}, a finite number for each row of the matrix."
                )
        if (factors < 0).any():
            raise ValueError(
                f"weights has {factors.min()}. Expected numbers of 0 or more, larger ones where "
                "an error is worse."
            )
        super().__init__(rows * factors[:, None], -targets * factors)

    def losses_of_sums(self, sums: NDArray[Any]) -> Floats:
        losses: Floats = np.abs(sums).max(axis=1)
        return losses

    def reduced(self, groups: Groups) -> Objective:
        matrix = self.matrix @ groups.expansion()
        if np.iscomplexobj(matrix):
            return Sums(matrix, self.losses_of_sums, self.constant)
        return Minimax(matrix, -self.constant)

    def bound(self, problem: Problem) -> float | None:
        if np.iscomplexobj(problem.lists):
            return None
        unit = self._loss(problem, problem.start)
        if unit == 0:
            return 0.0
        return minimax_program.solve_relaxed(self.matrix, self.constant, unit, problem).bound

    def exact(
        self,
        problem: Problem,
        seconds: float,
        start: Integers,
        on_improvement: Callable[[Integers], None],
    ) -> Solution | None:
        if problem.lists.size > _MOST_BINARIES or np.iscomplexobj(problem.lists):
            return None
        unit = self._loss(problem, start)
        if unit == 0:
            return Solution(start, 0.0, 0.0, True)
        result = minimax_program.solve(self.matrix, self.constant, unit, problem, seconds)
        if result.codes is None:
            return Solution(None, bound=result.bound)
        loss = self._loss(problem, result.codes)
        proved = result.bound is not None and loss - result.bound <= _PROVED_GAP * loss
        return Solution(result.codes, loss, result.bound, proved)

    def _loss(self, problem: Problem, codes: Integers) -> float:
        return float(self(problem.values(codes)[None])[0])
