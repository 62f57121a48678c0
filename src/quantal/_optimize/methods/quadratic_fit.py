"""A quadratic fit recognizes a quadratic loss by its values, and minimizes the quadratic."""

import dataclasses
from collections.abc import Callable

import numpy as np

from quantal._optimize.budget import Spendable
from quantal._optimize.evaluator import Evaluator
from quantal._optimize.methods.increasing import Increasing, ThirdDifferences
from quantal._optimize.methods.method import OnImprovement
from quantal._optimize.methods.population import Population
from quantal._optimize.methods.stand_in import StandIn, StandInSearch
from quantal.objectives._algorithms.solution import Solution
from quantal.objectives.problem import Floats, Integers, Problem
from quantal.objectives.quadratic import Quadratic

LARGEST_FITTED = 512
"""The most elements: a fit takes about half of their square in evaluations."""
_FEWEST_FITTED = 3
"""The fewest elements: third differences need three."""
_BATCH = 2048
"""The most pairs of elements in one call."""
_TOLERANCE = 1e-4
"""How far fit and loss may differ, relative to the losses' range: functions give float32."""
_TRIALS, _CHECKED = 4, 64
"""How many third differences and, in the end, how many random vectors have to agree."""


class QuadraticFit:
    """A quadratic fit minimizes a quadratic that stands for a loss; the loss decides.

    It does nothing where the loss is not quadratic on the lists, or where finding that out
    does not pay.

    Args:
        problem: The lists, and which elements are fixed.
        evaluator: Evaluates the true loss.
        population: The good assignments.
        seed: The seed of the random numbers.
        seconds_each: The seconds that one loss of a batch takes, approximately.
    """

    def __init__(
        self,
        problem: Problem,
        evaluator: Evaluator,
        population: Population,
        seed: int,
        seconds_each: float,
    ) -> None:
        self._problem, self._losses = problem, evaluator.losses
        self._search = StandInSearch(problem, evaluator, population, seed)
        self._seconds_each = seconds_each

    def run(self, start: Integers, budget: Spendable, on_improvement: OnImprovement) -> Solution:
        """Fit, and minimize the fit as long as it agrees with the loss.

        The solution is complete if no vector is better by the fit, and fit and loss agree
        there. It is no proof, since the loss may differ from the fit elsewhere.
        """
        stand_in = self._fit(budget)
        if stand_in is None:
            return Solution(None)
        return self._search.run(stand_in, budget, on_improvement)

    def _fit(self, budget: Spendable) -> StandIn | None:
        n = len(self._problem)
        evaluations = n * (n + 5) // 2 + 100
        if n > LARGEST_FITTED or not budget.affords(2 * evaluations, self._seconds_each):
            return None
        stand_in = fit_quadratic(self._losses, self._problem, budget.has_budget)
        if stand_in is not None or not budget.affords(2 * evaluations, self._seconds_each):
            return stand_in
        # A norm, its logarithm or reciprocal.
        differences = ThirdDifferences(self._problem, np.random.default_rng(0))
        forms = differences.quadratic_forms(self._losses(differences.codes))
        for form in forms[:1]:

            def losses(codes: Integers, form: Increasing = form) -> Floats:
                return form.function(self._losses(codes))

            stand_in = fit_quadratic(losses, self._problem, budget.has_budget)
            if stand_in is not None:
                return dataclasses.replace(stand_in, form=form)
        return None


def fit_quadratic(
    losses: Callable[[Integers], Floats], problem: Problem, has_budget: Callable[[], bool]
) -> StandIn | None:
    """Return the quadratic that agrees with a loss on the lists; None if none does.

    Formula: let `d[i]` be the step of element `i` from its first value to a second one, and
    `L[i]`, `L[i, j]` the change of the loss by the step of `i` and by those of `i` and `j`. Of
    `v @ M @ v + b @ v + c` these are, with the gradient `g` at the first values,

        L[i] = g[i] d[i] + M[i, i] d[i]**2
        L[i, j] = L[i] + L[j] + 2 M[i, j] d[i] d[j]

    so that the pairs give `M[i, j]`; a step `e[i]` to a third value, with its change `T[i]`,
    gives `M[i, i] = (T[i] / e[i] - L[i] / d[i]) / (e[i] - d[i])`. Where there is no third
    value, `M[i, i]` may be zero. The third differences of a quadratic vanish: a few vectors
    reject most other functions.

    Args:
        losses: Takes codes (batch, n) to losses (batch,).
        problem: The lists, of real numbers, and which elements are fixed.
        has_budget: Returns whether to go on.
    """
    free = np.flatnonzero(~problem.fixed & (problem.lengths > 1))
    if not _FEWEST_FITTED <= len(free) <= LARGEST_FITTED or np.iscomplexobj(problem.lists):
        return None
    differences = _Differences(losses, problem, free)
    random = np.random.default_rng(0)
    if not differences.third_ones_vanish(random) or (differences.steps[free] == 0).any():
        return None
    base_loss = float(losses(problem.start[None])[0])
    single_changes = differences.single_changes(base_loss)
    diagonal = differences.diagonal(base_loss, single_changes)
    if diagonal is None:
        return None
    matrix = differences.matrix(base_loss, single_changes, diagonal, has_budget)
    if matrix is None or not np.isfinite(matrix).all():
        return None
    steps, point = differences.steps, problem.values(problem.start)
    gradient = np.zeros(len(problem))
    gradient[free] = single_changes / steps[free] - diagonal[free] * steps[free]
    quadratic = Quadratic(
        matrix,
        gradient - 2 * matrix @ point,
        float(base_loss + point @ matrix @ point - gradient @ point),
    )
    drawn = np.stack([problem.draw(random) for _ in range(_CHECKED)])
    drawn_losses = losses(drawn)
    tolerance = _TOLERANCE * float(np.ptp(drawn_losses))
    close = np.abs(quadratic(problem.values(drawn)) - drawn_losses) <= tolerance
    return StandIn(quadratic, tolerance) if tolerance > 0 and close.all() else None


class _Differences:
    """Differences compare a loss at the first codes with it where elements step to other codes.

    Args:
        losses: Takes codes (batch, n) to losses (batch,).
        problem: The lists; its start is where all steps begin.
        free: The elements that step, (free,).

    Attributes:
        steps: The change of each element's value by its step, (n,).
    """

    def __init__(
        self, losses: Callable[[Integers], Floats], problem: Problem, free: Integers
    ) -> None:
        self._losses, self._problem, self._free = losses, problem, free
        self._base = problem.start
        self._second = np.where(problem.fixed, self._base, (self._base + 1) % problem.lengths)
        self.steps = problem.values(self._second) - problem.values(self._base)

    def third_ones_vanish(self, random: np.random.Generator) -> bool:
        """Test third differences on a few random triples of groups of elements."""
        assignments, signs = [], []
        for _ in range(_TRIALS):
            group = random.integers(0, 4, len(self._free))
            for subset in range(8):
                codes = self._base.copy()
                in_subset = sum((group == bit) & bool(subset >> bit & 1) for bit in range(3)) > 0
                stepping = self._free[in_subset]
                codes[stepping] = self._second[stepping]
                assignments.append(codes)
                signs.append((-1) ** subset.bit_count())
        losses = self._losses(np.stack(assignments)).reshape(_TRIALS, 8)
        if not np.isfinite(losses).all():
            return False
        differences = np.abs((losses * np.reshape(signs, (_TRIALS, 8))).sum(axis=1))
        return bool((differences <= _TOLERANCE * np.ptp(losses)).all())

    def single_changes(self, base_loss: float) -> Floats:
        """Return the change of the loss by the step of each free element, (free,)."""
        return self._losses(self._stepped(self._free, self._second)) - base_loss

    def diagonal(self, base_loss: float, single_changes: Floats) -> Floats | None:
        """Return the matrix's diagonal, (n,), by third values; None where two are equal."""
        diagonal = np.zeros(len(self._problem))
        has_third = np.flatnonzero(self._problem.lengths[self._free] > 2)
        if not len(has_third):
            return diagonal
        elements = self._free[has_third]
        third = (self._base + 2) % self._problem.lengths
        values, base_values = self._problem.values(third), self._problem.values(self._base)
        far_steps, steps = values[elements] - base_values[elements], self.steps[elements]
        far_changes = self._losses(self._stepped(elements, third)) - base_loss
        if (far_steps == 0).any() or (far_steps == steps).any():
            return None
        far_slopes, slopes = far_changes / far_steps, single_changes[has_third] / steps
        diagonal[elements] = (far_slopes - slopes) / (far_steps - steps)
        return diagonal

    def matrix(
        self,
        base_loss: float,
        single_changes: Floats,
        diagonal: Floats,
        has_budget: Callable[[], bool],
    ) -> Floats | None:
        """Return the matrix, (n, n), by the steps of all pairs; None if the budget ends."""
        matrix = np.diag(diagonal)
        firsts, seconds = np.triu_indices(len(self._free), 1)
        for begin in range(0, len(firsts), _BATCH):
            if not has_budget():
                return None
            first, second = firsts[begin : begin + _BATCH], seconds[begin : begin + _BATCH]
            i, j = self._free[first], self._free[second]
            codes = np.tile(self._base, (len(first), 1))
            rows = np.arange(len(first))
            codes[rows, i], codes[rows, j] = self._second[i], self._second[j]
            mixed = self._losses(codes) - base_loss - single_changes[first] - single_changes[second]
            matrix[i, j] = matrix[j, i] = mixed / (2 * self.steps[i] * self.steps[j])
        return matrix

    def _stepped(self, elements: Integers, codes: Integers) -> Integers:
        """Return one assignment for each element, in which only that element has its new code."""
        assignments = np.tile(self._base, (len(elements), 1))
        assignments[np.arange(len(elements)), elements] = codes[elements]
        return assignments
