"""Vectors to start a search from, by gradients through the choice of values.

Source: straight-through estimators, Bengio et al., arXiv:1308.3432; the rows that come
to their lists by and by as in PARQ, Jin et al., arXiv:2503.15748.
"""

from collections.abc import Callable

import numpy as np

from quantal.objectives.problem import Floats, Integers, Problem

ROWS, STEPS = 16, 150
_RATE = 0.05  # Of the list's range, at first.


def descended(
    problem: Problem,
    slopes: Callable[[Floats], Floats | None],
    random: np.random.Generator,
    goes_on: Callable[[], bool],
) -> Integers:
    """Codes (`ROWS`, n), or none where there is no gradient.

    Half of the rows are taken at the nearest values; the others go from between the values
    onto them. Memory grows with rows, elements and the list's length.

    Args:
        problem: What is searched.
        slopes: From vectors (rows, n) to gradients.
        random: Draws the first rows.
        goes_on: Whether there is time left.
    """
    low, high = problem.lists.min(axis=1), problem.lists.max(axis=1)
    place = random.uniform(low, high, (ROWS, len(problem)))
    place[0] = problem.values(problem.start)
    hard = np.arange(ROWS)[:, None] % 2 == 0
    mean, square = np.zeros_like(place), np.zeros_like(place)
    for step in range(STEPS):
        if not goes_on():
            break
        at = problem.values(_nearest(problem, place))
        share = np.where(hard, 1.0, step / STEPS)
        slope = slopes(share * at + (1 - share) * place)
        if slope is None:
            return np.zeros((0, len(problem)), np.int64)
        mean = 0.9 * mean + 0.1 * slope
        square = 0.99 * square + 0.01 * slope**2
        corrected = np.sqrt(square / (1 - 0.99 ** (step + 1))) + 1e-30
        rate = _RATE * (high - low) * (1 - step / STEPS)
        place = np.clip(place - rate * mean / (1 - 0.9 ** (step + 1)) / corrected, low, high)
    return _nearest(problem, place)


def _nearest(problem: Problem, place: Floats) -> Integers:
    codes = np.abs(problem.lists - place[..., None]).argmin(axis=-1)
    return np.where(problem.fixed, problem.start, codes)
