"""The sum of a vector and the counts of its values are linear functions of its codes."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from quantal.objectives.groups import Groups
from quantal.objectives.problem import Floats, Integers, Problem

_ROUNDING = 1e-14
"""The relative error of a sum in float64, for each of its terms."""
_ATTEMPTS = 20
"""A repair starts from so many random assignments before it gives up."""
_STEPS, _STEPS_AN_ELEMENT = 20, 2
"""An attempt has 20 steps, and two more for each element."""
_PERTURBED = 3
"""So many elements change at random where no single change helps."""
_TIE = 1e-12
"""Changes whose distances differ by a smaller part are alike."""
SMALLEST = 1e-300
"""A divisor of zero is replaced by this number."""


class LinearConstraints:
    """Linear constraints say which targets sums of one term for each element have to meet.

    Args:
        groups: The elements, and which of them move together.
        lists: The lists of all elements, (n, K).
        total: The sum of the vector; None for any.
        counts: How many elements have each of these values.

    Attributes:
        terms: What each code of each group adds to each sum, (sums, groups, K).
        targets: What each sum has to be, (sums,).
        slack: The rounding error of each sum, (sums,): it may be off by so much.

    Raises:
        ValueError: A value is in no list, or a target is complex or not finite.
    """

    def __init__(
        self,
        groups: Groups,
        lists: NDArray[np.float64],
        total: complex | None,
        counts: Mapping[float, int] | None,
    ) -> None:
        self._problem: Problem = groups.problem
        counts = counts or {}
        _check_counts(counts, lists)
        parts = [lists] if total is not None else []
        parts += [lists == value for value in counts]
        targets = [total] if total is not None else []
        targets += list(counts.values())
        if np.iscomplexobj(lists):  # A complex sum is two real ones.
            parts = [half for part in parts for half in (np.real(part), np.imag(part))]
            targets = [half for target in targets for half in (np.real(target), np.imag(target))]
        if np.iscomplexobj(targets) or not np.isfinite(targets).all():
            raise ValueError(
                f"total or counts come to {targets}. Expected finite numbers, and real ones for "
                "lists of real numbers. Give what the values of the lists can sum to."
            )
        self.targets = np.array(targets, np.float64)
        count = len(groups.problem)
        self.terms = np.zeros((len(parts), count, lists.shape[1]))
        for terms, part in zip(self.terms, parts, strict=True):
            np.add.at(terms, groups.members, np.asarray(part, np.float64))
        scale = np.abs(self.terms).max(axis=(1, 2), initial=1.0) if parts else np.ones(0)
        self.slack = _ROUNDING * np.maximum(scale, np.abs(self.targets)) * count

    def __bool__(self) -> bool:
        return len(self.targets) > 0

    def excess(self, codes: Integers) -> Floats:
        """Return how far the sums of codes (..., n) are above their targets, (..., sums)."""
        elements = np.arange(len(self._problem))
        sums = [terms[elements, codes].sum(axis=-1) for terms in self.terms]
        return np.stack([*sums], axis=-1) - self.targets

    def satisfied(self, codes: Integers) -> NDArray[np.bool_]:
        """Return whether codes (..., n) satisfy all constraints."""
        if not self:
            return np.ones(codes.shape[:-1], bool)
        return np.asarray((np.abs(self.excess(codes)) <= self.slack).all(axis=-1))

    def effects(self, codes: Integers) -> Floats:
        """Return the change of every sum for every change of a single element, (n, K, sums)."""
        current = self.terms[:, np.arange(len(codes)), codes]
        return np.moveaxis(self.terms - current[:, :, None], 0, -1)

    def repaired(self, codes: Integers, random: np.random.Generator) -> Integers:
        """Return codes near to the given ones (n,) that satisfy all constraints.

        Codes that satisfy them already are returned as they are.

        Each attempt descends on the distance from the targets, by the same change of as many
        elements as fit; a local minimum is left by random changes.

        Raises:
            ValueError: No attempt succeeded.
        """
        if not self or self.satisfied(codes):
            return codes
        attempts = _ATTEMPTS if len(self._problem.free) else 0
        for _ in range(attempts):
            codes = codes.copy()
            for _ in range(_STEPS_AN_ELEMENT * len(codes) + _STEPS):
                if self.satisfied(codes):
                    return codes
                self._repair_step(codes, random)
            codes = self._problem.draw(random)
        raise ValueError(
            f"No vector was found whose total and counts are {self.targets.tolist()}. Expected "
            "numbers that the lists can come to. Look whether they can, or give such a start."
        )

    def _repair_step(self, codes: Integers, random: np.random.Generator) -> None:
        """Make the best change, of one element or of several alike; `codes` changes in place."""
        free = self._problem.free
        excess = self.excess(codes)
        effects = self.effects(codes)[free]
        scale = np.maximum(self.slack, SMALLEST)
        distances = np.abs((excess + effects) / scale).sum(axis=-1)
        distances = np.where(self._is_change(codes), distances, np.inf)
        best = np.argwhere(distances <= distances.min() * (1 + _TIE))
        best = best[random.permutation(len(best))]
        if distances[tuple(best[0])] >= np.abs(excess / scale).sum():
            # Stuck in a local minimum: perturb a few elements and continue.
            perturbed = random.choice(free, min(_PERTURBED, len(free)), replace=False)
            codes[perturbed] = random.integers(0, self._problem.lengths[perturbed])
            return
        # Apply the same change to as many distinct elements as fit without overshooting.
        best_effects = effects[best[:, 0], best[:, 1]]
        effect = best_effects[0]
        alike = best[(best_effects == effect).all(axis=1)]
        alike = alike[np.unique(alike[:, 0], return_index=True)[1]]
        changed_sums = effect != 0
        fitting = np.min(-excess[changed_sums] / effect[changed_sums] + _ROUNDING)
        chosen = alike[random.permutation(len(alike))[: max(1, int(fitting))]]
        codes[free[chosen[:, 0]]] = chosen[:, 1]

    def _is_change(self, codes: Integers) -> NDArray[np.bool_]:
        """Return which codes of the free elements exist and are new, (free, K)."""
        free = self._problem.free
        all_codes = np.arange(self.terms.shape[2])
        exists = all_codes < self._problem.lengths[free, None]
        return np.asarray(exists & (all_codes != codes[free, None]))


def _check_counts(counts: Mapping[float, int], lists: NDArray[np.float64]) -> None:
    for value in counts:
        if not (lists == value).any():
            raise ValueError(
                f"counts has {value!r}, which is in no list. Expected values of the lists, as "
                f"they are there: {lists[0].tolist()}."
            )
