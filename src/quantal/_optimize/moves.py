"""The moves of a local search change one element, or two that keep the constraints."""

from typing import NamedTuple

import numpy as np

from quantal._optimize.linear_constraints import SMALLEST, LinearConstraints
from quantal.objectives.problem import Floats, Integers, Problem

_FEWEST_OF_A_KIND = 8
"""The least number of single changes of a kind that are paired."""
_SLACKS_A_UNIT = 4
"""Effects are compared in units of so many rounding errors."""


class CandidateMoves(NamedTuple):
    """Candidate moves are changes of one or two elements each.

    Attributes:
        positions: The elements that change, (batch, 1 or 2); one twice counts once.
        codes: Their new codes, (batch, 1 or 2).
    """

    positions: Integers
    codes: Integers


class Moves:
    """Moves change one element, or two where one alone would break a constraint.

    Args:
        problem: The lists, and which elements are fixed.
        constraints: What has to stay satisfied.

    Attributes:
        most: The most moves that an assignment can have.
    """

    def __init__(self, problem: Problem, constraints: LinearConstraints) -> None:
        free = problem.free
        self._positions = np.repeat(free, problem.lengths[free] - 1)
        # For each element 1, 2, ..., length - 1.
        others = problem.lengths[free] - 1
        first_of_element = np.repeat(np.cumsum(others) - others, others)
        self._code_offsets = np.arange(len(first_of_element)) - first_of_element + 1
        self._lengths, self._constraints = problem.lengths, constraints
        singles = len(self._positions)
        self.most = singles * singles if constraints else singles

    def is_allowed(self, codes: Integers) -> bool:
        """Return whether an assignment (n,) satisfies all constraints."""
        return bool(self._constraints.satisfied(codes))

    def candidates(
        self, codes: Integers, count: int, random: np.random.Generator, estimates: Floats | None
    ) -> CandidateMoves:
        """Return the most promising moves of an assignment.

        Args:
            codes: The current assignment, (n,).
            count: The most moves.
            random: Draws moves where nothing is known.
            estimates: The change of the loss with each code, (n, K), approximately; None where
                nothing is known.
        """
        # New codes count from the current one, so that each is a change.
        new_codes = (codes[self._positions] + self._code_offsets) % self._lengths[self._positions]
        drawn = random.random(len(new_codes))
        ranking = drawn if estimates is None else estimates[self._positions, new_codes]
        if not self._constraints:
            chosen = _lowest(ranking, count)
            return CandidateMoves(self._positions[chosen, None], new_codes[chosen, None])
        first, second = self._balanced_pairs(codes, new_codes, ranking, count)
        both = ranking[first] + np.where(first == second, 0, ranking[second])
        chosen = _lowest(both, count)
        pairs = np.stack([first[chosen], second[chosen]], axis=1)
        return CandidateMoves(self._positions[pairs], new_codes[pairs])

    def _balanced_pairs(
        self, codes: Integers, new_codes: Integers, ranking: Floats, count: int
    ) -> tuple[Integers, Integers]:
        """Return pairs of single changes whose effects on the constraints cancel.

        A change that has no effect is paired with itself.
        """
        effects = self._constraints.effects(codes)[self._positions, new_codes]
        unit = np.maximum(self._constraints.slack, SMALLEST)
        # Quantize the effects so that equal effects compare equal despite rounding.
        effects = np.round(effects / unit / _SLACKS_A_UNIT).astype(np.int64)
        kinds, kind_of_change = np.unique(effects, axis=0, return_inverse=True)
        kind_of_change = kind_of_change.reshape(-1)
        kind_of_effect = {tuple(effect): kind for kind, effect in enumerate(kinds.tolist())}
        most_of_a_kind = max(_FEWEST_OF_A_KIND, int(np.sqrt(count)) + 1)

        def best_of(kind: int, most: int) -> Integers:
            changes = np.flatnonzero(kind_of_change == kind)
            return changes[_lowest(ranking[changes], most)]

        firsts, seconds = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
        for effect, kind in kind_of_effect.items():
            opposite = kind_of_effect.get(tuple(-number for number in effect))
            if opposite is None or opposite < kind:
                continue
            if opposite == kind:  # It changes no sum.
                alone = best_of(kind, count)
                firsts.append(alone)
                seconds.append(alone)
                continue
            first, second = (
                grid.reshape(-1)
                for grid in np.meshgrid(
                    best_of(kind, most_of_a_kind), best_of(opposite, most_of_a_kind)
                )
            )
            distinct = self._positions[first] != self._positions[second]
            firsts.append(first[distinct])
            seconds.append(second[distinct])
        return np.concatenate(firsts), np.concatenate(seconds)


def _lowest(numbers: Floats, count: int) -> Integers:
    """Return the positions of the lowest numbers, in no order."""
    if len(numbers) <= count:
        return np.arange(len(numbers))
    return np.argpartition(numbers, count - 1)[:count]
