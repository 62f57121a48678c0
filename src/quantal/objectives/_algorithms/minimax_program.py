"""A mixed-integer program minimizes the maximum of absolute linear functions."""

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from quantal.objectives.problem import Floats, Integers, Problem

TOLERANCE = 1e-6
"""The solver's tolerance, relative to the maximum of a good vector."""
_GAP = 1e-7
"""The relative gap at which the solver stops: below its tolerance, so that this decides."""


class ProgramResult(NamedTuple):
    """A program result holds the assignment and the bound that the solver reports.

    Attributes:
        codes: The best assignment, (n,); None if there is none, or in a relaxed program.
        bound: No vector has a lower maximum; None if the solver has no bound.
    """

    codes: Integers | None
    bound: float | None


def solve_relaxed(matrix: Floats, constant: Floats, unit: float, problem: Problem) -> ProgramResult:
    """Minimize `max(abs(matrix @ v + constant))` over the box of the lists' ends.

    The arguments are those of `solve`.
    """
    result = _solve(matrix / unit, constant / unit, problem.box(), None, math.inf)
    if result.x is None:
        return ProgramResult(None, None)
    return ProgramResult(None, unit * max(0.0, float(result.fun) - TOLERANCE))


def solve(
    matrix: Floats, constant: Floats, unit: float, problem: Problem, seconds: float
) -> ProgramResult:
    """Minimize `max(abs(matrix @ v + constant))` over the vectors of the lists, by HiGHS.

    Args:
        matrix: Real numbers (m, n).
        constant: Real numbers (m,).
        unit: The maximum of a good vector, above 0: the solver's tolerances are absolute, so
            that the program is stated in this unit.
        problem: The lists of real numbers, and which elements are fixed.
        seconds: When it has to end; may be infinity.
    """
    result = _solve(matrix / unit, constant / unit, problem.box(), problem, seconds)
    bound = result.mip_dual_bound
    bound = None if bound is None else unit * max(0.0, float(bound) - TOLERANCE)
    if result.x is None:
        return ProgramResult(None, bound)
    is_chosen = result.x[len(problem) + 1 :].reshape(problem.lists.shape)
    codes = np.where(problem.fixed, problem.start, is_chosen.argmax(axis=1))
    return ProgramResult(codes, bound)


def _solve(
    matrix: Floats,
    constant: Floats,
    box: tuple[Floats, Floats],
    problem: Problem | None,
    seconds: float,
) -> Any:
    """Solve for the vector, its maximum, and a zero or one for each value of each element.

    Without a problem there are no zeros and ones, and the vector is any of the box.
    """
    # scipy is an extra.
    from scipy.optimize import Bounds, LinearConstraint, milp
    from scipy.sparse import csr_array, hstack

    (m, n), (low, high) = matrix.shape, box
    binaries = 0 if problem is None else problem.lists.size
    minus_maximum, no_binaries = -np.ones((m, 1)), csr_array((m, binaries))
    rows = [
        LinearConstraint(hstack([matrix, minus_maximum, no_binaries]), -np.inf, -constant),
        LinearConstraint(hstack([matrix, -minus_maximum, no_binaries]), -constant, np.inf),
    ]
    allowed = np.ones(binaries)
    if problem is not None:
        rows += _one_value_each(problem)
        is_value = np.arange(problem.lists.shape[1]) < problem.lengths[:, None]
        allowed = is_value.reshape(-1).astype(float)
    limits = {} if math.isinf(seconds) else {"time_limit": seconds}
    return milp(
        np.concatenate([np.zeros(n), [1.0], np.zeros(binaries)]),
        integrality=np.concatenate([np.zeros(n + 1), np.ones(binaries)]),
        bounds=Bounds(
            np.concatenate([low, [0.0], np.zeros(binaries)]),
            np.concatenate([high, [np.inf], allowed]),
        ),
        constraints=rows,
        options={"mip_rel_gap": _GAP, **limits},
    )


def _one_value_each(problem: Problem) -> list[Any]:
    """Return the rows by which each element has one value, and this value is in the vector."""
    from scipy.optimize import LinearConstraint
    from scipy.sparse import coo_array, csr_array, hstack

    n, binaries = len(problem), problem.lists.size
    entries = np.repeat(np.arange(n), problem.lists.shape[1]), np.arange(binaries)
    values: NDArray[Any] = problem.lists.reshape(-1)
    chosen_value = coo_array((values, entries), (n, binaries))
    number_chosen = coo_array((np.ones(binaries), entries), (n, binaries))
    no_maximum = csr_array((n, 1))
    return [
        LinearConstraint(hstack([csr_array(np.eye(n)), no_maximum, -chosen_value]), 0, 0),
        LinearConstraint(hstack([csr_array((n, n)), no_maximum, number_chosen]), 1, 1),
    ]
