"""Good vectors, and new ones to start from that have what two of them agree in.

Source: Lü, Glover and Hao, "A hybrid metaheuristic approach to solving the UBQP problem",
European Journal of Operational Research 2010.
"""

from collections.abc import Callable, Iterable

import numpy as np
from numpy.typing import NDArray

from quantal.objectives.problem import Integers, Problem

SIZE = 10
"""How many vectors are kept."""
PATIENCE = 40
"""So many vectors one after the other that are not kept, and all but the best are given up."""


class Population:
    """The best vectors so far, each different from the others.

    Args:
        problem: What is searched.
        mirrors: The code of each value's negative, where a vector and its negative are
            the same for the loss; None elsewhere.
        random: Draws.
        repaired: Changes codes so that they keep to all constraints.
    """

    def __init__(
        self,
        problem: Problem,
        mirrors: NDArray[np.int64] | None,
        random: np.random.Generator,
        repaired: Callable[[Integers], Integers] = lambda codes: codes,
    ) -> None:
        self._problem, self._mirrors, self._random = problem, mirrors, random
        self.repaired = repaired
        self.members: list[tuple[float, Integers]] = []
        self._refused = 0
        self._starts: list[Integers] = []

    def begin_with(self, starts: Iterable[Integers]) -> None:
        """Vectors to start from before any is drawn."""
        self._starts.extend(starts)

    def child(self) -> Integers:
        """Codes to start from: at first drawn, later of two members."""
        if self._starts:
            return self._starts.pop(0).copy()
        if len(self.members) < SIZE:
            return self._drawn()
        places = self._random.choice(len(self.members), 2, replace=False)
        first, second = (self.members[place][1] for place in places)
        second = self._turned(first, second)
        codes = first.copy()
        apart = first != second
        if apart.sum() <= len(codes) // 100 + 1:
            # They are alike: begin again, but for the best.
            self.members = self.members[:1]
            return self._drawn()
        codes[apart] = np.where(self._random.random(apart.sum()) < 0.5, first[apart], second[apart])
        return self.repaired(codes)

    def take(self, loss: float, codes: Integers) -> None:
        """Keep a vector if it is among the best, and none like it is there."""
        self._refused = 0 if self._kept(loss, codes) else self._refused + 1
        if self._refused == PATIENCE:
            self.members, self._refused = self.members[:1], 0

    def _kept(self, loss: float, codes: Integers) -> bool:
        for place, (other_loss, other) in enumerate(self.members):
            if (self._turned(other, codes) != other).sum() <= len(codes) // 100:
                if loss < other_loss:
                    self.members[place] = loss, codes.copy()
                    self.members.sort(key=lambda member: member[0])
                return loss < other_loss
        self.members.append((loss, codes.copy()))
        self.members.sort(key=lambda member: member[0])
        kept = len(self.members) <= SIZE or loss < self.members[-1][0]
        del self.members[SIZE:]
        return kept

    def _drawn(self) -> Integers:
        return self.repaired(self._problem.drawn(self._random))

    def _turned(self, first: Integers, second: Integers) -> Integers:
        """The second vector, or its negative if that is nearer to the first."""
        if self._mirrors is None:
            return second
        other = self._mirrors[np.arange(len(second)), second]
        return other if (other != first).sum() < (second != first).sum() else second
