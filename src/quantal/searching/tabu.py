"""Tabu search over the codes of a quadratic loss, with exact differences.

Each step takes the best change of one element that is not tabu, better or not; the
element may not change again for some steps, unless that gives the best loss so far.

Source: Glover, "Tabu Search", ORSA Journal on Computing 1989.
"""

from typing import Any

import numpy as np
from numba import njit  # Of the extra `search`.
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


@njit(cache=True)  # type: ignore[untyped-decorator]
def steps(
    count: int,
    patience: int,
    tenure: int,
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
        slack = 1e-12 * max(1.0, abs(best))
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
