"""The negatives of the values in their lists."""

import numpy as np

from quantal.objectives.problem import Integers, Problem

_ROUNDING = 1e-12  # Of phases: exp(i pi) is not quite -1.
_LONGEST = 1024
"""The longest list that is looked at: it takes the square of its length."""


def negatives(problem: Problem) -> Integers | None:
    """The code of each value's negative, (n, K); None if a list lacks one or a code is fixed.

    None for lists of more than 1,024 values, too.
    """
    if problem.fixed.any() or problem.lists.shape[1] > _LONGEST:
        return None
    rows, which = np.unique(problem.lists, axis=0, return_inverse=True)
    found = np.zeros(rows.shape, np.int64)
    for row, codes in zip(rows, found, strict=True):
        apart = np.abs(row[:, None] + row)
        if (apart.min(axis=1) > _ROUNDING * np.abs(row).max()).any():
            return None
        # The first of equal ones: what a shorter list is filled up with comes last.
        codes[:] = apart.argmin(axis=1)
    return found[which.reshape(-1)]
