"""Turn a rounding after a function that falls and rises into stairs, by bisection."""

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from quantal._export.graph.steps import Floats, Function, Slopes
from quantal._export.integer.functions import turns_of
from quantal._export.integer.meaning import Meaning
from quantal._export.integer.rounding import codes_of
from quantal._export.integer.steps import Integers, Range, Staircase

_Condition = Callable[[Integers], NDArray[np.bool_]]
"""A condition on integers of shape (..., period), for each channel."""


def staircase_of(
    meaning: Meaning, bounds: Range, levels: Floats, scale: Floats, integers: Integers
) -> Staircase:
    """Return the stairs of integers whose meaning rises, falls and jumps at known arguments.

    Between these arguments the meaning is monotone, so each limit of a level is bisected there.

    Args:
        meaning: What the integers stand for, number by number.
        bounds: The integers that can occur.
        levels: The levels of the list, shape (K,), rising.
        scale: The scale of the list, shape (period,).
        integers: The integers that stand for the levels, shape (K,).
    """
    period = math.lcm(meaning.period, len(scale))

    def codes(candidates: Integers) -> Integers:
        return codes_of(meaning.numbers(candidates.astype(np.float64)), levels, scale)

    starts = _monotone_pieces(meaning, bounds, period)
    ends = np.concatenate([starts[1:], np.full((1, period), bounds.high + 1)])
    limits = [starts]
    for step in range(1, len(levels)):

        def is_reached(candidates: Integers, step: int = step) -> NDArray[np.bool_]:
            return codes(candidates) >= step

        limits.append(_crossings(is_reached, starts, ends))
    candidates = np.sort(np.concatenate(limits), axis=0)
    # What lies beyond the end of the last piece is never reached.
    reached = codes(np.minimum(candidates, bounds.high))
    changes = np.diff(reached, axis=0) != 0
    stairs = changes.sum(axis=0)
    # Channels of fewer stairs than others have limits that are never reached.
    kept = np.full((period, int(stairs.max())), bounds.high + 1, np.int64)
    indices = np.repeat(reached[-1][:, None], kept.shape[1] + 1, axis=1)
    indices[:, 0] = reached[0]
    for channel in range(period):
        rows = 1 + np.flatnonzero(changes[:, channel])
        kept[channel, : len(rows)] = candidates[rows, channel]
        indices[channel, 1 : len(rows) + 1] = reached[rows, channel]
    return Staircase(kept, integers[indices])


def _monotone_pieces(meaning: Meaning, bounds: Range, period: int) -> Integers:
    """Return the first integers of pieces on which a meaning is monotone, shape (pieces, period).

    Pieces may be empty: they begin where the next one does.
    """
    starts = np.full((1, period), bounds.low, np.int64)
    for index, each in enumerate(meaning.maps):
        if not isinstance(each, Function | Slopes):
            continue
        before = Meaning(meaning.maps[:index])
        for turn in turns_of(each):
            ends = np.concatenate([starts[1:], np.full((1, period), bounds.high + 1)])

            def is_beyond(
                x: Integers, before: Meaning = before, turn: float = turn
            ) -> NDArray[np.bool_]:
                return before.numbers(x.astype(np.float64)) >= turn

            starts = np.stack([starts, _crossings(is_beyond, starts, ends)], axis=1)
            starts = starts.reshape(-1, period)
    return starts


def _crossings(condition: _Condition, starts: Integers, ends: Integers) -> Integers:
    """Return the first integers of pieces at which a condition is another than at their start.

    Args:
        condition: It changes once in a piece at most.
        starts: The first integers of the pieces, shape (pieces, period).
        ends: The integers behind the pieces, which are returned where nothing changes.
    """
    below, above = starts.copy(), ends.copy()
    first = condition(starts)
    while (is_open := above - below > 1).any():
        middle = (below + above) // 2
        is_same = condition(middle) == first
        below = np.where(is_open & is_same, middle, below)
        above = np.where(is_open & ~is_same, middle, above)
    return above
