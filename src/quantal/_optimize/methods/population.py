"""A population keeps good assignments, and makes crossovers of them.

Source: Lü, Glover and Hao, "A hybrid metaheuristic approach to solving the UBQP problem",
European Journal of Operational Research 2010.
"""

from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from quantal.objectives.problem import Integers, Problem

SIZE = 10
"""The most members: as in the source."""
PATIENCE = 40
"""After this many consecutive rejections the population is reset to its best member."""
_ALIKE = 100
"""Assignments that differ in one of so many elements, or in fewer, are alike."""


class Member(NamedTuple):
    """A member is a good assignment and its loss.

    Attributes:
        loss: The loss.
        codes: The assignment, (n,).
    """

    loss: float
    codes: Integers


class Population:
    """A population keeps the best assignments so far, each different from the others.

    Args:
        problem: The lists, and which elements are fixed.
        negatives: The code of each value's negative, (n, K), where a vector and its negative
            have the same loss; None elsewhere.
        random: Draws.
        repaired: Changes an assignment so that it satisfies all constraints.

    Attributes:
        members: The members, the best first. The list is replaced and never changed, so that
            another thread may read it.
    """

    def __init__(
        self,
        problem: Problem,
        negatives: NDArray[np.int64] | None,
        random: np.random.Generator,
        repaired: Callable[[Integers], Integers] = lambda codes: codes,
    ) -> None:
        self._problem, self._negatives, self._random = problem, negatives, random
        self.repaired = repaired
        self.members: list[Member] = []
        self._rejections = 0
        self._starts: list[Integers] = []

    def begin_with(self, starts: Iterable[Integers]) -> None:
        """Add assignments that `crossover` returns before it draws any."""
        self._starts = [*self._starts, *starts]

    @property
    def starts(self) -> list[Integers]:
        """Return the assignments that `crossover` has still to return before it draws any."""
        return list(self._starts)

    def forget_members(self) -> None:
        """Remove all members, for example because their losses turned out to be wrong."""
        self.members = []

    def crossover(self) -> Integers:
        """Return an assignment to start from: the first ones drawn, then crossovers of two.

        A crossover has the codes in which two members agree, and draws the others from one of
        the two.
        """
        if self._starts:
            first_start, self._starts = self._starts[0], self._starts[1:]
            return first_start.copy()
        if len(self.members) < SIZE:
            return self._draw()
        pair = self._random.choice(len(self.members), 2, replace=False)
        first, second = (self.members[i].codes for i in pair)
        second = self._nearer_sign(first, second)
        codes = first.copy()
        differs = first != second
        if differs.sum() <= len(codes) // _ALIKE + 1:
            # The population has converged: restart from its best member.
            self.members = self.members[:1]
            return self._draw()
        take_first = self._random.random(differs.sum()) < 0.5
        codes[differs] = np.where(take_first, first[differs], second[differs])
        return self.repaired(codes)

    def offer(self, loss: float, codes: Integers) -> None:
        """Take an assignment if it is among the best, and no member is like it."""
        self._rejections = 0 if self._take(Member(loss, codes.copy())) else self._rejections + 1
        if self._rejections == PATIENCE:
            self.members, self._rejections = self.members[:1], 0

    def _take(self, new: Member) -> bool:
        for i, member in enumerate(self.members):
            codes = self._nearer_sign(member.codes, new.codes)
            if (codes != member.codes).sum() <= len(codes) // _ALIKE:
                if new.loss < member.loss:
                    self.members = _sorted([*self.members[:i], new, *self.members[i + 1 :]])
                return new.loss < member.loss
        members = _sorted([*self.members, new])
        kept = len(members) <= SIZE or new.loss < members[-1].loss
        self.members = members[:SIZE]
        return kept

    def _draw(self) -> Integers:
        return self.repaired(self._problem.draw(self._random))

    def _nearer_sign(self, first: Integers, second: Integers) -> Integers:
        """Return the second assignment, or that of its negative if it is nearer to the first."""
        if self._negatives is None:
            return second
        negative = self._negatives[np.arange(len(second)), second]
        return negative if (negative != first).sum() < (second != first).sum() else second


def _sorted(members: Iterable[Member]) -> list[Member]:
    return sorted(members, key=lambda member: member.loss)
