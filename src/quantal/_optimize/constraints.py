"""What a vector has to keep to: its sum, and how often it has a value."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from quantal.objectives.problem import Floats, Groups, Integers, Problem

_ROUNDING = 1e-14
_TRIES = 20


class Constraints:
    """Numbers that each element adds to, and what they have to come to.

    Args:
        groups: The elements, and which of them move together.
        lists: The lists of all elements, (n, K).
        total: The sum of the vector, or None for any.
        counts: How many elements have each of these values.
    """

    def __init__(
        self,
        groups: Groups,
        lists: NDArray[np.float64],
        total: complex | None,
        counts: Mapping[float, int] | None,
    ) -> None:
        self._problem = groups.problem
        parts = [] if total is None else [lists]
        parts += [lists == value for value in counts or {}]
        wanted = ([] if total is None else [total]) + list((counts or {}).values())
        if np.iscomplexobj(lists):  # A complex sum is two real ones.
            parts = [half for part in parts for half in (np.real(part), np.imag(part))]
            wanted = [half for number in wanted for half in (np.real(number), np.imag(number))]
        for value in counts or {}:
            if not (lists == value).any():
                raise ValueError(
                    f"counts has {value!r}, which is in no list. Expected values of the lists. "
                    f"Give them as they are there: {lists[0].tolist()}."
                )
        if np.iscomplexobj(wanted) or not np.isfinite(wanted).all():
            raise ValueError(
                f"total or counts come to {wanted}. Expected finite numbers, and real ones for "
                "lists of real numbers. Give what the values of the lists can sum to."
            )
        self.targets = np.array(wanted, np.float64)
        count = len(groups.problem)
        self.adds = np.zeros((len(parts), count, lists.shape[1]))
        for place, part in enumerate(parts):
            np.add.at(self.adds[place], groups.members, np.asarray(part, np.float64))
        scale = np.abs(self.adds).max(axis=(1, 2), initial=1.0) if parts else np.ones(0)
        self._slack = _ROUNDING * np.maximum(scale, np.abs(self.targets)) * count

    def __bool__(self) -> bool:
        return len(self.targets) > 0

    def missing(self, codes: Integers) -> Floats:
        """How far the sums of codes (..., n) are above what they have to be, (..., parts)."""
        places = np.arange(len(self._problem))
        sums = [part[places, codes].sum(axis=-1) for part in self.adds]
        return np.stack([*sums], axis=-1) - self.targets

    def met(self, codes: Integers) -> NDArray[np.bool_]:
        """Whether codes (..., n) keep to all."""
        if not self:
            return np.ones(codes.shape[:-1], bool)
        return np.asarray((np.abs(self.missing(codes)) <= self._slack).all(axis=-1))

    def effects(self, codes: Integers) -> Floats:
        """By how much each sum changes with each other code of an element, (n, K, parts)."""
        now = self.adds[:, np.arange(len(codes)), codes]
        return np.moveaxis(self.adds - now[:, :, None], 0, -1)

    def repaired(self, codes: Integers, random: np.random.Generator) -> Integers:
        """Codes near to these that keep to all; the same if they do.

        Raises:
            ValueError: None was found.
        """
        if not self or self.met(codes):
            return codes
        free = np.flatnonzero(~self._problem.fixed)
        scale = np.maximum(self._slack, 1e-300)
        for _ in range(_TRIES if len(free) else 0):
            codes = codes.copy()
            for _ in range(2 * len(codes) + 20):
                missing = self.missing(codes)
                if (np.abs(missing) <= self._slack).all():
                    return codes
                after = np.abs((missing + self.effects(codes)[free]) / scale).sum(axis=-1)
                valid = np.arange(after.shape[1]) < self._problem.lengths[free, None]
                valid &= np.arange(after.shape[1]) != codes[free, None]
                after = np.where(valid, after, np.inf)
                best = np.argwhere(after <= after.min() * (1 + 1e-12))
                best = best[random.permutation(len(best))]
                at, code = best[0]
                if after[at, code] >= np.abs(missing / scale).sum():
                    # No change helps: some at random, and on from there.
                    shaken = random.choice(free, min(3, len(free)), replace=False)
                    codes[shaken] = random.integers(0, self._problem.lengths[shaken])
                    continue
                # As many of one kind as do not go too far, each of another element.
                effects = self.effects(codes)[free[best[:, 0]], best[:, 1]]
                alike = best[(effects == effects[0]).all(axis=1)]
                alike = alike[np.unique(alike[:, 0], return_index=True)[1]]
                steps = effects[0] != 0
                many = max(1, int(np.min(-missing[steps] / effects[0][steps] + _ROUNDING)))
                some = random.permutation(len(alike))[:many]
                codes[free[alike[some, 0]]] = alike[some, 1]
            codes = self._problem.drawn(random)
        raise ValueError(
            f"No vector was found whose total and counts are {self.targets.tolist()}. Expected "
            "numbers that the lists can come to. Look whether they can, or give such a start."
        )


class Moves:
    """What may change in one step: an element, or two where one alone breaks a constraint."""

    def __init__(self, problem: Problem, constraints: Constraints) -> None:
        free = np.flatnonzero(~problem.fixed)
        self._places = np.repeat(free, problem.lengths[free] - 1)
        self._others = np.concatenate(
            [np.arange(1, k) for k in problem.lengths[free]] or [np.zeros(0, np.int64)]
        )
        self._lengths, self._constraints = problem.lengths, constraints
        singles = len(self._places)
        self.most = singles * singles if constraints else singles
        """No step has more to choose from."""
        self.keep = constraints.met
        """Whether codes (..., n) keep to all constraints."""

    def drawn(
        self, codes: Integers, count: int, random: np.random.Generator, ranks: Floats | None
    ) -> tuple[Integers, Integers]:
        """Some changes: places and codes, (at most count, 1 or 2); one twice counts once.

        Args:
            codes: Where it stands, (n,).
            count: How many to give at most.
            random: Draws, where nothing is known.
            ranks: (n, K), low for a change that looks good; None where nothing is known.
        """
        # A code counts from the element's own, so that none stays as it is.
        others = (codes[self._places] + self._others) % self._lengths[self._places]
        drawn = random.random(len(others))
        ranking = drawn if ranks is None else ranks[self._places, others]
        if not self._constraints:
            chosen = _lowest(ranking, count)
            return self._places[chosen, None], others[chosen, None]
        return self._pairs(codes, others, ranking, count)

    def _pairs(
        self, codes: Integers, others: Integers, ranking: Floats, count: int
    ) -> tuple[Integers, Integers]:
        effects = self._constraints.effects(codes)[self._places, others]
        # Whole numbers, so that sums of roundings are equal.
        keys = np.round(effects / np.maximum(self._constraints._slack, 1e-300) / 4).astype(np.int64)
        names, kinds = np.unique(keys, axis=0, return_inverse=True)
        kinds = kinds.reshape(-1)
        of_name = {tuple(name): place for place, name in enumerate(names.tolist())}
        firsts, seconds = [], []
        most = max(8, int(np.sqrt(count)) + 1)
        for place, name in enumerate(names.tolist()):
            opposite = of_name.get(tuple(-number for number in name))
            if opposite is None or opposite < place:
                continue
            own = np.flatnonzero(kinds == place)
            if opposite == place:  # It changes no sum.
                own = own[_lowest(ranking[own], count)]
                firsts.append(own)
                seconds.append(own)
                continue
            other = np.flatnonzero(kinds == opposite)
            own, other = (group[_lowest(ranking[group], most)] for group in (own, other))
            first, second = (grid.reshape(-1) for grid in np.meshgrid(own, other))
            apart = self._places[first] != self._places[second]
            firsts.append(first[apart])
            seconds.append(second[apart])
        first = np.concatenate(firsts or [np.zeros(0, np.int64)])
        second = np.concatenate(seconds or [np.zeros(0, np.int64)])
        both = ranking[first] + np.where(first == second, 0, ranking[second])
        chosen = _lowest(both, count)
        pairs = np.stack([first[chosen], second[chosen]], axis=1)
        return self._places[pairs], others[pairs]


def _lowest(numbers: Floats, count: int) -> Integers:
    """The places of the lowest numbers, in no order."""
    if len(numbers) <= count:
        return np.arange(len(numbers))
    return np.argpartition(numbers, count - 1)[:count]
