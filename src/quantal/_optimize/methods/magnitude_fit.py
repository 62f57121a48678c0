"""A magnitude fit recognizes the largest magnitude of a sum by its losses, and solves it."""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quantal._optimize.budget import Spendable
from quantal._optimize.evaluator import Evaluator
from quantal._optimize.methods.increasing import Increasing, ThirdDifferences, tolerance_of
from quantal._optimize.methods.method import OnImprovement
from quantal._optimize.methods.population import Population
from quantal.objectives._algorithms.solution import Solution
from quantal.objectives.magnitude import Magnitude
from quantal.objectives.problem import Floats, Integers, Problem

_FEWEST_FITTED = 8
"""The fewest elements that are not fixed: each half needs some that change."""
_NUMBERS_AT_ONCE = 2**21
"""The most numbers of the vectors in one call."""
_STATES = 3
"""Each change of an element is tried in so many states of other elements."""
_DRAWN = 192
"""How many random assignments the sum is fitted to; a third of them only test it."""
_FEATURES = 4
"""Two numbers say what a change does to the sum, for each half of the elements."""


@dataclasses.dataclass(frozen=True)
class FittedMagnitude:
    """A fitted magnitude agrees with a loss: `form(loss)` is `constant - abs(sum)**2`.

    Attributes:
        form: An increasing function of the loss.
        constant: The constant.
        objective: The magnitude of the sum of the elements' terms.
        problem: The terms, as lists of complex numbers.
        tolerance: How far the two may differ, relative to their range.
        spread: The range of `form(loss)` over random assignments.
    """

    form: Increasing
    constant: float
    objective: Magnitude
    problem: Problem
    tolerance: float
    spread: float

    def agrees(self, codes: Integers, losses: Floats) -> bool:
        """Return whether losses (batch,) are those of the sums of codes (batch, n)."""
        squares = self.objective(self.problem.values(codes)) ** 2
        with np.errstate(all="ignore"):
            differences = np.abs(self.form.function(losses) - (self.constant - squares))
        return bool((differences <= self.tolerance * np.maximum(squares, self.spread)).all())


class MagnitudeFit:
    """A magnitude fit solves the sum that stands for a loss; the loss decides.

    It does nothing where the loss is no increasing function of `-abs(sum)`, with a term of the
    sum for each element, or where finding that out does not pay.

    Args:
        problem: The lists, and which elements are fixed.
        evaluator: Evaluates the true loss.
        population: Gets the solution as a start.
        seconds_each: The seconds that one loss of a batch takes, approximately.
    """

    def __init__(
        self, problem: Problem, evaluator: Evaluator, population: Population, seconds_each: float
    ) -> None:
        self._problem, self._evaluator, self._population = problem, evaluator, population
        self._seconds_each = seconds_each

    def run(self, start: Integers, budget: Spendable, on_improvement: OnImprovement) -> Solution:
        """Fit, solve the fit, and compare it with the loss at the solution.

        The solution is complete if they agree there. It is no proof, since the loss may
        differ from the fit elsewhere.
        """

        def affords(evaluations: int) -> bool:
            return budget.has_budget() and budget.affords(evaluations, self._seconds_each)

        fitted = fit_magnitude(self._evaluator.losses, self._problem, affords)
        if fitted is None:
            return Solution(None)
        solution = fitted.objective.exact(fitted.problem, np.inf, start, lambda codes: None)
        if solution.codes is None:
            return Solution(None)
        losses = self._evaluator.losses(solution.codes[None])
        on_improvement(solution.codes, float(losses[0]))
        if not fitted.agrees(solution.codes[None], losses):
            self._population.begin_with([solution.codes])
            return Solution(None)
        return Solution(solution.codes, complete=True)


def fit_magnitude(
    losses: Callable[[Integers], Floats], problem: Problem, affords: Callable[[int], bool]
) -> FittedMagnitude | None:
    """Return the magnitude that agrees with a loss on the lists; None if none does.

    Formula: let `h` be an increasing function of the loss that is `c - abs(S)**2`, with
    `S = s + sum(t[i])` and a term `t[i]` for each element's code. A change of the term of
    one element by `d` changes `h` by `-2 Re(conj(S) d) - abs(d)**2`. Between two states of
    other elements, which differ by `r` in `S`, that change differs by `-2 Re(conj(r) d)`: two
    such differences are linear in `d`. With one half of the elements at rest while the
    other half has three states, they are the same two linear functions for a whole half.
    So four features of an assignment, sums over its elements, make `h` a quadratic function,
    whose 15 coefficients come from random assignments; where its matrix has two negative
    eigenvalues and no others, it is a square of a magnitude.

    Args:
        losses: Takes codes (batch, n) to losses (batch,).
        problem: The lists, and which elements are fixed.
        affords: Returns whether so many evaluations may be made.
    """
    free = np.flatnonzero(~problem.fixed & (problem.lengths > 1))
    if len(free) < _FEWEST_FITTED:
        return None
    random = np.random.default_rng(0)
    differences = ThirdDifferences(problem, random)
    changes = int((problem.lengths[free] - 1).sum())
    if not affords(len(differences.codes)):
        return None
    forms = differences.quadratic_forms(losses(differences.codes))
    if not forms or not affords(_STATES * (changes + 2) + _DRAWN):
        return None
    halves = [_Half(problem, half, random) for half in np.array_split(random.permutation(free), 2)]
    for half in halves:
        half.evaluate(losses)
    drawn = np.stack([problem.draw(random) for _ in range(_DRAWN)])
    drawn_losses = losses(drawn)
    for form in forms:
        features = [half.features(form, problem.lists.shape) for half in halves]
        fitted = _fitted(form, np.concatenate(features, axis=2), problem, drawn, drawn_losses)
        if fitted is not None and fitted.agrees(drawn, drawn_losses):
            return fitted
    return None


class _Half:
    """A half of the elements changes one by one, in some states of the other half.

    Args:
        problem: The lists.
        elements: The elements of this half.
        random: Draws the states.
    """

    def __init__(self, problem: Problem, elements: Integers, random: np.random.Generator) -> None:
        self._states = np.stack([problem.draw(random) for _ in range(_STATES)])
        self._states[:, elements] = problem.start[elements]
        codes = np.arange(problem.lists.shape[1])
        is_change = (codes < problem.lengths[:, None]) & (codes != problem.start[:, None])
        self._elements, self._codes = np.nonzero(is_change & np.isin(
            np.arange(len(problem)), elements
        )[:, None])  # fmt: skip

    def evaluate(self, losses: Callable[[Integers], Floats]) -> None:
        """Evaluate all changes in all states."""
        self._losses_of_states = losses(self._states)
        step = max(_NUMBERS_AT_ONCE // self._states.shape[1], 1)
        columns = []
        for state in self._states:
            parts = []
            for begin in range(0, len(self._elements), step):
                elements = self._elements[begin : begin + step]
                changed = np.tile(state, (len(elements), 1))
                changed[np.arange(len(elements)), elements] = self._codes[begin : begin + step]
                parts.append(losses(changed))
            columns.append(np.concatenate(parts))
        self._losses_of_changes = np.stack(columns, axis=1)

    def features(self, form: Increasing, shape: tuple[int, ...]) -> Floats:
        """Return two features of each code of each element, (n, K, 2); zero at the start."""
        with np.errstate(all="ignore"):
            changes = form.function(self._losses_of_changes)
            changes = changes - form.function(self._losses_of_states)
        features = np.zeros((*shape, _STATES - 1))
        features[self._elements, self._codes] = changes[:, 1:] - changes[:, :1]
        return features


@np.errstate(all="ignore")
def _fitted(
    form: Increasing, features: Floats, problem: Problem, drawn: Integers, losses: Floats
) -> FittedMagnitude | None:
    """Return the magnitude that fits a form of losses best; None if it is no magnitude."""
    numbers = form.function(losses)
    sums = features[np.arange(len(problem)), drawn].sum(axis=1)
    unit = np.sqrt(np.mean(sums**2, axis=0))
    if not (np.isfinite(numbers).all() and np.isfinite(unit).all() and unit.any()):
        return None
    unit[unit == 0] = 1.0
    fitted = slice(len(drawn) * 2 // 3)
    constant, linear, matrix = _quadratic(sums[fitted] / unit, numbers[fitted])
    eigenvalues, vectors = np.linalg.eigh(matrix)
    # The two least ones make a magnitude; whether the others vanish, the drawn losses say.
    if not eigenvalues[0] < 0:
        return None
    root = np.sqrt(np.maximum(-eigenvalues[:2], 0.0))[:, None] * vectors[:, :2].T
    center = np.linalg.lstsq(root.T, linear / 2, rcond=1e-9)[0]
    real, imaginary = np.moveaxis((features / unit) @ root.T, 2, 0)
    terms: NDArray[Any] = real + 1j * imaginary
    return FittedMagnitude(
        form,
        constant + float(center @ center),
        Magnitude(np.ones(len(problem)), complex(-center[0], -center[1])),
        Problem(
            [row[:length] for row, length in zip(terms, problem.lengths, strict=True)],
            None,
            problem.start,
            problem.fixed,
        ),
        tolerance_of(losses),
        float(np.ptp(numbers)),
    )


def _quadratic(sums: Floats, numbers: Floats) -> tuple[float, Floats, Floats]:
    """Return constant, vector and matrix of the quadratic function of sums (batch, m)."""
    first, second = np.triu_indices(_FEATURES)
    columns = [np.ones((len(sums), 1)), sums, sums[:, first] * sums[:, second]]
    coefficients = np.linalg.lstsq(np.concatenate(columns, axis=1), numbers, rcond=1e-12)[0]
    matrix = np.zeros((_FEATURES, _FEATURES))
    matrix[first, second] = coefficients[1 + _FEATURES :]
    linear = np.asarray(coefficients[1 : 1 + _FEATURES], np.float64)
    return float(coefficients[0]), linear, (matrix + matrix.T) / 2
