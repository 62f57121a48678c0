"""Good vectors, and new ones to start from that have what two of them agree in.

Source: Lü, Glover and Hao, "A hybrid metaheuristic approach to solving the UBQP problem",
European Journal of Operational Research 2010.
"""

import numpy as np
from numpy.typing import NDArray

from quantal.searching.problem import Integers, Problem

SIZE = 10
"""How many vectors are kept."""


class Population:
    """The best vectors so far, each different from the others.

    Args:
        problem: What is searched.
        mirrors: The code of each value's negative, where a vector and its negative are
            the same for the loss; None elsewhere.
        random: Draws.
    """

    def __init__(
        self, problem: Problem, mirrors: NDArray[np.int64] | None, random: np.random.Generator
    ) -> None:
        self._problem, self._mirrors, self._random = problem, mirrors, random
        self._members: list[tuple[float, Integers]] = []
        self._born = 0

    def child(self) -> Integers:
        """Codes to start from: at first drawn, later of two members."""
        self._born += 1
        if self._born == 1:
            return self._problem.start.copy()
        if len(self._members) < SIZE:
            return self._drawn()
        places = self._random.choice(len(self._members), 2, replace=False)
        first, second = (self._members[place][1] for place in places)
        second = self._turned(first, second)
        codes = first.copy()
        apart = first != second
        if apart.sum() <= len(codes) // 100 + 1:
            # They are alike: begin again, but for the best.
            self._members = self._members[:1]
            return self._drawn()
        codes[apart] = np.where(self._random.random(apart.sum()) < 0.5, first[apart], second[apart])
        return codes

    def take(self, loss: float, codes: Integers) -> None:
        """Keep a vector if it is among the best, and none like it is there."""
        for place, (other_loss, other) in enumerate(self._members):
            if (self._turned(other, codes) != other).sum() <= len(codes) // 100:
                if loss < other_loss:
                    self._members[place] = loss, codes.copy()
                    self._members.sort(key=lambda member: member[0])
                return
        self._members.append((loss, codes.copy()))
        self._members.sort(key=lambda member: member[0])
        del self._members[SIZE:]

    def _drawn(self) -> Integers:
        drawn = self._random.integers(0, self._problem.lengths)
        return np.where(self._problem.fixed, self._problem.start, drawn)

    def _turned(self, first: Integers, second: Integers) -> Integers:
        """The second vector, or its negative if that is nearer to the first."""
        if self._mirrors is None:
            return second
        other = self._mirrors[np.arange(len(second)), second]
        return other if (other != first).sum() < (second != first).sum() else second
