"""Whether a loss is quadratic, and which."""

from collections.abc import Callable

import numpy as np

from quantal.objectives.losses import Quadratic
from quantal.objectives.problem import Floats, Integers, Problem

LARGEST = 512
"""The most elements: it takes their square in evaluations."""
_BATCH = 2048
_TOLERANCE = 1e-4  # Of the losses' spread: functions give float32.


def detected(
    losses: Callable[[Integers], Floats], problem: Problem, goes_on: Callable[[], bool]
) -> tuple[Quadratic, float] | None:
    """The quadratic loss that agrees with a function on the lists; None if none does.

    With it comes by how much the two may differ.

    A few vectors tell most functions apart: third differences of a quadratic one vanish.

    Args:
        losses: From codes (batch, n) to losses (batch,).
        problem: What is searched; lists of real numbers.
        goes_on: Whether there is time left.
    """
    free = np.flatnonzero(~problem.fixed & (problem.lengths > 1))
    if not 3 <= len(free) <= LARGEST or np.iscomplexobj(problem.lists):
        return None
    random = np.random.default_rng(0)
    base = problem.start
    other = np.where(problem.fixed, base, (base + 1) % problem.lengths)
    if not _third_differences_vanish(losses, base, other, free, random):
        return None
    here = problem.values(base)
    apart = problem.values(other) - here
    if (apart[free] == 0).any():
        return None
    (start,) = losses(base[None])
    rows = np.tile(base, (len(free), 1))
    rows[np.arange(len(free)), free] = other[free]
    ones = losses(rows) - start
    curved = np.zeros(len(problem))  # The matrix's diagonal.
    more = np.flatnonzero(problem.lengths[free] > 2)
    if len(more):
        rows = np.tile(base, (len(more), 1))
        third = (base + 2) % problem.lengths
        at = free[more]
        rows[np.arange(len(more)), at] = third[at]
        far = problem.values(third)[at] - here[at]
        twos = losses(rows) - start
        if (far == 0).any() or (far == apart[at]).any():
            return None
        curved[at] = (twos / far - ones[more] / apart[at]) / (far - apart[at])
    slope = np.zeros(len(problem))
    slope[free] = ones / apart[free] - curved[free] * apart[free]
    matrix = np.diag(curved)
    first, second = np.triu_indices(len(free), 1)
    for begin in range(0, len(first), _BATCH):
        if not goes_on():
            return None
        a, b = first[begin : begin + _BATCH], second[begin : begin + _BATCH]
        rows = np.tile(base, (len(a), 1))
        rows[np.arange(len(a)), free[a]] = other[free[a]]
        rows[np.arange(len(b)), free[b]] = other[free[b]]
        both = losses(rows) - start - ones[a] - ones[b]
        i, j = free[a], free[b]
        matrix[i, j] = matrix[j, i] = both / (2 * apart[i] * apart[j])
    if not np.isfinite(matrix).all():
        return None
    found = Quadratic(
        matrix, slope - 2 * matrix @ here, start + here @ matrix @ here - slope @ here
    )
    rows = np.stack([problem.drawn(random) for _ in range(64)])
    true = losses(rows)
    tolerance = _TOLERANCE * float(np.ptp(true))
    close = np.abs(found(problem.values(rows)) - true) <= tolerance
    return (found, tolerance) if tolerance > 0 and close.all() else None


def _third_differences_vanish(
    losses: Callable[[Integers], Floats],
    base: Integers,
    other: Integers,
    free: Integers,
    random: np.random.Generator,
) -> bool:
    """Whether they do at a few triples of groups of elements."""
    rows, signs = [], []
    for _ in range(4):
        group = random.integers(0, 4, len(free))
        for which in range(8):
            codes = base.copy()
            moved = sum((group == bit) & bool(which >> bit & 1) for bit in range(3)) > 0
            codes[free[moved]] = other[free[moved]]
            rows.append(codes)
            signs.append((-1) ** bin(which).count("1"))
    found = losses(np.stack(rows)).reshape(4, 8)
    if not np.isfinite(found).all():
        return False
    differences = np.abs((found * np.reshape(signs, (4, 8))).sum(axis=1))
    return bool((differences <= _TOLERANCE * np.ptp(found)).all())
