"""The loss of each single change of an assignment is evaluated, many in one call."""

import time
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from quantal._models.model_loss import ModelLoss
from quantal._optimize.budget import Clock, Spending
from quantal._optimize.polish.ascending_lists import AscendingLists
from quantal.objectives.problem import Floats, Integers

_MOST_EVALUATIONS = 4096
"""All other values are tried of a parameter that needs no more evaluations for that; of others,
neighbouring ones."""


class Changes(NamedTuple):
    """Changes of some elements, each with its other value that has the lowest loss.

    Attributes:
        elements: The elements, (m,).
        best_ranks: The rank of that value, (m,).
        best: The change of the loss with it, (m,).
        below: The change with the next smaller value, NaN where there is none, (m,).
        above: The change with the next larger value, (m,).
    """

    elements: Integers
    best_ranks: Integers
    best: Floats
    below: Floats
    above: Floats


class SingleChanges:
    """Single changes are evaluated element by element, in an order that is a fair sample.

    The order draws from all parameters in turn, so that of each the same number is assessed as
    long as it has more.

    Args:
        loss: The loss of values.
        lists: The lists of the elements.
        random: Draws the order.

    Attributes:
        order: The elements in the order in which they are assessed.
        count: How many have been assessed.
        evaluations: The number of losses so far.
    """

    def __init__(self, loss: ModelLoss, lists: AscendingLists, random: np.random.Generator) -> None:
        self._loss, self._lists, self._ranks = loss, lists, lists.ranks()
        turns = np.concatenate([random.permutation(size) for size in lists.sizes])
        self.order: Integers = np.argsort(turns, kind="stable")
        self._tries_all = np.concatenate(
            [
                np.full(len(part), len(part) * (part.max(initial=1) - 1) <= _MOST_EVALUATIONS)
                for part in lists.split(lists.lengths)
            ]
        )
        self._base: NDArray[np.float32] = lists.values(self._ranks)
        self._base_loss: float | None = None
        self._parts: list[Changes] = []
        self.count = self.evaluations = 0

    def warm_up(self, clock: Clock = time.perf_counter) -> None:
        """Evaluate a full block that does not count, so that what is slow compiles.

        Without another block after the first there is nothing to do. Of computing losses at once
        or one by one it takes the faster way.

        Args:
            clock: Returns seconds.
        """
        elements = self._next_block()
        if len(elements) < len(self.order):
            self._loss.prefer_faster(np.tile(self._base, (self._loss.candidates, 1)), clock)
            self._assess(elements)

    def run(self, spending: Spending) -> None:
        """Assess elements until all are, or the budget is used up."""
        while self.count < len(self.order) and spending.has_budget():
            elements = self._next_block()
            before = self.evaluations
            self._parts.append(self._assess(elements))
            spending.count(self.evaluations - before)
            self.count += len(elements)

    def changes(self) -> Changes:
        """Return the changes of all assessed elements, in ascending order of elements."""
        if not self._parts:
            none = np.zeros(0)
            return Changes(none.astype(np.int64), none.astype(np.int64), none, none, none)
        joined = [np.concatenate(arrays) for arrays in zip(*self._parts, strict=True)]
        ascending = np.argsort(joined[0])
        return Changes(*(array[ascending] for array in joined))

    def _next_block(self) -> Integers:
        """Return the next elements, as many as one call evaluates; one at least."""
        candidates = self.order[self.count : self.count + self._loss.candidates]
        tries = np.where(self._tries_all[candidates], self._lists.lengths[candidates] - 1, 2)
        fitting = int((np.cumsum(tries) < self._loss.candidates).sum())
        return candidates[: max(1, fitting)]

    def _assess(self, elements: Integers) -> Changes:
        """Return the changes of a block of elements."""
        who, ranks = self._tries_of(elements)
        rows = np.tile(self._base, (len(who) + 1, 1))
        rows[np.arange(len(who)), elements[who]] = self._lists.values_at(elements[who], ranks)
        if self._base_loss is None:
            # With the others in one call it has their roundings.
            *losses, self._base_loss = self._loss(rows).tolist()
        else:
            losses = self._loss(rows[:-1]).tolist()
        self.evaluations += len(losses)
        change = np.array(losses) - self._base_loss
        change = np.where(np.isnan(change), np.inf, change)
        count = len(elements)
        best, below, above = (np.full(count, fill) for fill in (np.inf, np.nan, np.nan))
        best_ranks = self._ranks[elements].copy()
        np.minimum.at(best, who, change)
        is_best = change == best[who]
        best_ranks[who[is_best]] = ranks[is_best]
        offset = ranks - self._ranks[elements[who]]
        below[who[offset == -1]] = change[offset == -1]
        above[who[offset == 1]] = change[offset == 1]
        return Changes(elements, best_ranks, np.where(np.isinf(best), np.nan, best), below, above)

    def _tries_of(self, elements: Integers) -> tuple[Integers, Integers]:
        """Return the index of an element in the block and the rank to try, for each try."""
        who, ranks = [], []
        for index, element in enumerate(elements.tolist()):
            rank, length = int(self._ranks[element]), int(self._lists.lengths[element])
            others = range(length) if self._tries_all[element] else (rank - 1, rank + 1)
            tried = [other for other in others if other != rank and 0 <= other < length]
            who += [index] * len(tried)
            ranks += tried
        return np.array(who, np.int64), np.array(ranks, np.int64)
