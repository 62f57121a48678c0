"""The negatives of the values in their lists."""

import numpy as np

from quantal.searching.problem import Integers, Problem

_ROUNDING = 1e-12  # Of phases: exp(i pi) is not quite -1.


def negatives(problem: Problem) -> Integers | None:
    """The code of each value's negative, (n, K); None if a list lacks one or a code is fixed."""
    apart = np.abs(problem.lists[:, :, None] + problem.lists[:, None, :])
    largest = np.abs(problem.lists).max()
    if problem.fixed.any() or (apart.min(axis=2) > _ROUNDING * largest).any():
        return None
    # The first of equal ones: what a shorter list is filled up with comes last.
    return apart.argmin(axis=2)
