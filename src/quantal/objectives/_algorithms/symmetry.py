"""Sign symmetry means that a vector and its negative are both in the lists."""

import numpy as np

from quantal.objectives.problem import Integers, Problem

_ROUNDING = 1e-12
"""The relative error of phases: `exp(i pi)` is not quite -1."""
_LONGEST_LIST = 1024
"""Longer lists are not examined: it takes the square of their length."""


def codes_of_negatives(problem: Problem) -> Integers | None:
    """Return the code of each value's negative, (n, K).

    The result is None if a list lacks a negative, a code is fixed, or a list has more than
    1,024 values.
    """
    if problem.fixed.any() or problem.lists.shape[1] > _LONGEST_LIST:
        return None
    distinct_lists, list_of_element = np.unique(problem.lists, axis=0, return_inverse=True)
    negatives = np.zeros(distinct_lists.shape, np.int64)
    for values, codes in zip(distinct_lists, negatives, strict=True):
        distances = np.abs(values[:, None] + values)
        if (distances.min(axis=1) > _ROUNDING * np.abs(values).max()).any():
            return None
        # argmin returns the first match, so padding at the end of a list is never chosen.
        codes[:] = distances.argmin(axis=1)
    return negatives[list_of_element.reshape(-1)]
