"""The largest error of linear functions of a vector."""

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from quantal.objectives._algorithms.solution import Solution
from quantal.objectives.losses import Sums
from quantal.objectives.problem import Floats, Integers, Problem

_TOLERANCE = 1e-6
"""Of the solver, in units of a good vector's loss."""
_BINARIES = 1000
"""The most values of all elements for which the exact method is tried."""


class Minimax(Sums):
    """The loss `max(weights * abs(matrix @ v - target))` of a vector `v`.

    Use it for filters, whose response shall stay near a wanted one at each frequency:
    `matrix` holds a row for each frequency. `quantal.search` follows the errors of all rows
    at once, and proves the best vector of small problems by a mixed-integer program (HiGHS,
    by scipy): no other has an error that is smaller by more than some millionths.

    Args:
        matrix: Real numbers (m, n).
        target: Numbers (m,).
        weights: Numbers (m,), 0 or more; None for ones.

    Raises:
        ValueError: A shape is another, or a number is complex, not finite or a weight below 0.

    >>> loss = Minimax([[1, 1], [1, -1]], target=[1, 0])
    >>> loss([[1, 0.5], [0.5, 0.5]])
    array([0.5, 0. ])
    """

    def __init__(
        self, matrix: ArrayLike, target: ArrayLike, weights: ArrayLike | None = None
    ) -> None:
        if np.ndim(matrix) != 2 or np.iscomplexobj(matrix) or np.iscomplexobj(target):
            raise ValueError(
                f"matrix has the shape {np.shape(matrix)}, or it or target is complex. Expected "
                "real numbers (errors, elements). Give the real and the imaginary part as rows."
            )
        rows = np.array(matrix, np.float64)
        wanted = np.array(target, np.float64)
        weighed = np.ones(len(rows)) if weights is None else np.array(weights, np.float64)
        for name, numbers in (("target", wanted), ("weights", weighed)):
            if numbers.shape != rows.shape[:1] or not np.isfinite(numbers).all():
                raise ValueError(
                    f"{name} has the shape {numbers.shape}, or a number that is not finite. "
                    f"Expected {rows.shape[:1]}, as the matrix has rows. Give a number for each."
                )
        if (weighed < 0).any():
            raise ValueError(
                f"weights has {weighed.min()}. Expected numbers of 0 or more. Give larger ones "
                "where an error is worse."
            )
        super().__init__(rows * weighed[:, None], _largest, -wanted * weighed)

    def reduced(self, expansion: Any) -> Sums:
        """The same loss of `u` with `v = expansion @ u`; expansion (n, m)."""
        if np.iscomplexobj(expansion):
            return super().reduced(expansion)
        return Minimax(self.matrix @ expansion, -self.constant)

    def lower_bound(self, problem: Problem) -> float | None:
        """The least largest error of all vectors between the ends of the lists."""
        if np.iscomplexobj(problem.lists):
            return None
        (unit,) = self(problem.values(problem.start)[None])
        if unit == 0:
            return 0.0
        low, high = _ends(problem)
        found = self._program(unit, problem.lists[:, :0], low, high, math.inf, np.zeros(0))
        return None if found.x is None else unit * max(0.0, float(found.fun) - _TOLERANCE)

    def solved(
        self, problem: Problem, seconds: float, codes: Integers, found: Any
    ) -> Solution | None:
        """The best of a small problem, or what was found in some seconds, and a bound.

        Args:
            problem: What is searched.
            seconds: When it ends.
            codes: A good vector.
            found: Not needed.
        """
        if problem.lists.size > _BINARIES or np.iscomplexobj(problem.lists):
            return None
        (unit,) = self(problem.values(codes)[None])
        if unit == 0:
            return Solution(codes, 0.0, True)
        low, high = _ends(problem)
        ended = self._program(unit, problem.lists, low, high, seconds, problem.lengths)
        bound = ended.mip_dual_bound
        bound = None if bound is None else unit * max(0.0, float(bound) - _TOLERANCE)
        if ended.x is None:
            return Solution(None, bound)
        chosen = ended.x[len(problem) + 1 :].reshape(problem.lists.shape).argmax(axis=1)
        chosen = np.where(problem.fixed, problem.start, chosen)
        (own,) = self(problem.values(chosen)[None])
        return Solution(chosen, bound, bound is not None and own - bound <= 4 * _TOLERANCE * own)

    def _program(
        self,
        unit: float,
        lists: Floats,
        low: Floats,
        high: Floats,
        seconds: float,
        lengths: NDArray[Any],
    ) -> Any:
        """Of the vector, the largest error, and a zero or one for each value of each element.

        Errors are in a unit, since the solver's tolerances are absolute.
        """
        matrix, constant = self.matrix / unit, self.constant / unit
        from scipy.optimize import Bounds, LinearConstraint, milp
        from scipy.sparse import coo_array, csr_array, hstack

        n, (m, _) = len(low), self.matrix.shape
        binaries = lists.size
        ones, nothing = np.ones((m, 1)), csr_array((m, binaries))
        rules = [
            LinearConstraint(hstack([matrix, -ones, nothing]), -np.inf, -constant),
            LinearConstraint(hstack([matrix, ones, nothing]), -constant, np.inf),
        ]
        upper = np.ones(binaries)
        if binaries:
            element = np.repeat(np.arange(n), lists.shape[1])
            shape, place = (n, binaries), np.arange(binaries)
            chosen = coo_array((lists.reshape(-1), (element, place)), shape)
            once = coo_array((np.ones(binaries), (element, place)), shape)
            none = csr_array((n, 1))
            eye = csr_array(np.eye(n))
            rules.append(LinearConstraint(hstack([eye, none, -chosen]), 0, 0))
            rules.append(LinearConstraint(hstack([csr_array((n, n)), none, once]), 1, 1))
            allowed = np.arange(lists.shape[1]) < lengths[:, None]
            upper = allowed.reshape(-1).astype(float)
        whole = np.concatenate([np.zeros(n + 1), np.ones(binaries)])
        limits = {} if math.isinf(seconds) else {"time_limit": seconds}
        return milp(
            np.concatenate([np.zeros(n), [1.0], np.zeros(binaries)]),
            integrality=whole,
            bounds=Bounds(
                np.concatenate([low, [0.0], np.zeros(binaries)]),
                np.concatenate([high, [np.inf], upper]),
            ),
            constraints=rules,
            options={"mip_rel_gap": 1e-7, **limits},
        )


def _ends(problem: Problem) -> tuple[Floats, Floats]:
    held = problem.values(problem.start)
    low, high = problem.lists.min(axis=1), problem.lists.max(axis=1)
    return np.where(problem.fixed, held, low), np.where(problem.fixed, held, high)


def _largest(sums: NDArray[Any]) -> Floats:
    found: Floats = np.abs(sums).max(axis=1)
    return found
