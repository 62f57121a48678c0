"""Tabu search over the codes of a quadratic loss, with exact differences.

Each step takes the best change of one element that is not tabu, better or not; the
element may not change again for some steps, unless that gives the best loss so far.

Source: Glover, "Tabu Search", ORSA Journal on Computing 1989.
"""

from typing import Any

import numpy as np
from numba import njit  # Of the extra `search`.
from scipy.sparse import csr_array

from quantal._optimize.methods.compiled_steps import Climber
from quantal.objectives.losses import Quadratic
from quantal.objectives.problem import Floats, Integers, Problem

_PATIENCE = 2  # Steps without a better loss, in elements.


def climber_of(loss: Quadratic, problem: Problem, seed: int) -> Climber:
    """Follows a quadratic loss, of the problem's length, by exact differences."""
    n, diagonal = len(problem), loss.diagonal
    matrix = csr_array(loss.matrix)
    # Without the diagonal: it belongs to the element's own change.
    own = csr_array((diagonal, (range(n), range(n))), shape=(n, n))
    matrix = csr_array(2 * (matrix - own))
    matrix.eliminate_zeros()
    arrays = (
        matrix.indptr.astype(np.int64), matrix.indices.astype(np.int64), matrix.data,
        diagonal, problem.lists, problem.lengths, problem.fixed,
    )  # fmt: skip
    patience, slack = _PATIENCE * n, loss.rounding(problem)

    def exact(values: Floats) -> float:
        return float(loss(values[None])[0])

    def go(
        count: int, seed: int, codes: Integers, free_at: Integers, best_codes: Integers,
        numbers: Floats,
    ) -> None:  # fmt: skip
        # The loss and its gradient anew, so that roundings do not add up.
        values = problem.values(codes)
        numbers[0] = exact(values)
        steps(
            count, patience, n // 25 + 3, slack, seed,
            *arrays, codes, loss.gradient(values), free_at, best_codes, numbers,
        )  # fmt: skip

    operations = float((problem.lengths - 1).sum()) + matrix.nnz / n + 10
    return Climber(problem, exact, go, operations, patience, seed)


@njit(cache=True)  # type: ignore[untyped-decorator]
def steps(
    count: int,
    patience: int,
    tenure: int,
    slack: float,
    seed: int,
    starts: Any, columns: Any, entries: Any,
    diagonal: Any, lists: Any, lengths: Any, fixed: Any,
    codes: Any, gradient: Any, free_at: Any, best_codes: Any, numbers: Any,
) -> None:  # fmt: skip
    """Go some steps on, or until it stalls; everything is changed in place.

    Args:
        count: How many steps.
        patience: After how many without a better loss it ends.
        tenure: For how many steps a changed element stays, at least; at most 10 more.
        slack: What is better by less is not better: roundings.
        seed: Of the random numbers.
        starts: The matrix's rows: where each begins among `columns` and `entries`, (n + 1,).
        columns: Of its entries.
        entries: Twice the symmetric matrix, but for its diagonal.
        diagonal: Of the matrix.
        lists: The values, (n, K).
        lengths: How many of them each element has.
        fixed: Whether an element keeps its code.
        codes: Of each element.
        gradient: Of the loss, at the values.
        free_at: The step from which each element may change again.
        best_codes: The best so far.
        numbers: The loss, the best loss, the step, and the step of the last better loss.
    """
    np.random.seed(seed)
    n = len(codes)
    for _ in range(count):
        loss, best, step = numbers[0], numbers[1], numbers[2]
        chosen, code, change, ties = -1, -1, np.inf, 0
        for i in range(n):
            if fixed[i]:
                continue
            here = lists[i, codes[i]]
            for k in range(lengths[i]):
                if k == codes[i]:
                    continue
                apart = lists[i, k] - here
                other = apart * (gradient[i] + apart * diagonal[i])
                if other > change:
                    continue
                if free_at[i] > step and loss + other >= best - slack:
                    continue
                if other < change:
                    chosen, code, change, ties = i, k, other, 1
                else:
                    ties += 1
                    if np.random.randint(ties) == 0:
                        chosen, code = i, k
        numbers[2] += 1
        if chosen < 0:  # All are tabu.
            continue
        numbers[0] += _change(
            chosen, code, starts, columns, entries, diagonal, lists, codes, gradient
        )
        free_at[chosen] = step + tenure + np.random.randint(10)
        if numbers[0] < best - slack:
            numbers[1], numbers[3] = numbers[0], numbers[2]
            best_codes[:] = codes
        elif numbers[2] - numbers[3] >= patience:
            return


@njit(cache=True)  # type: ignore[untyped-decorator]
def _change(
    i: int, code: int,
    starts: Any, columns: Any, entries: Any, diagonal: Any, lists: Any, codes: Any, gradient: Any,
) -> float:  # fmt: skip
    """Give an element another code; by how much the loss changes."""
    apart = lists[i, code] - lists[i, codes[i]]
    change = apart * (gradient[i] + apart * diagonal[i])
    codes[i] = code
    gradient[i] += 2.0 * apart * diagonal[i]
    for at in range(starts[i], starts[i + 1]):
        gradient[columns[at]] += apart * entries[at]
    return change
