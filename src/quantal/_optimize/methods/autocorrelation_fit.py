"""An autocorrelation fit recognizes the energy of autocorrelations by its losses."""

from collections.abc import Callable, Iterator

import numpy as np

from quantal._optimize.budget import Spendable
from quantal._optimize.evaluator import Evaluator
from quantal._optimize.methods.increasing import (
    AS_IT_IS,
    Increasing,
    powers,
    reciprocals,
    tolerance_of,
)
from quantal._optimize.methods.method import OnImprovement
from quantal._optimize.methods.population import Population
from quantal._optimize.methods.stand_in import StandIn, StandInSearch
from quantal.objectives._algorithms.solution import Solution
from quantal.objectives.autocorrelation import Autocorrelation
from quantal.objectives.problem import Floats, Integers, Problem

_DRAWN = 24
"""How many random vectors have to agree."""
_LARGEST = 2048
"""The most elements: an energy takes their square in operations."""


class AutocorrelationFit:
    """An autocorrelation fit minimizes an energy that stands for a loss; the loss decides.

    It does nothing where the loss is no increasing function of `Autocorrelation`.

    Args:
        problem: The lists, and which elements are fixed.
        evaluator: Evaluates the true loss.
        population: The good assignments.
        seed: The seed of the random numbers.
    """

    def __init__(
        self, problem: Problem, evaluator: Evaluator, population: Population, seed: int
    ) -> None:
        self._problem, self._evaluator = problem, evaluator
        self._search = StandInSearch(problem, evaluator, population, seed)

    def run(self, start: Integers, budget: Spendable, on_improvement: OnImprovement) -> Solution:
        """Compare the loss with energies, and minimize the energy that agrees with it."""
        if not (len(self._problem) <= _LARGEST and budget.affords(4 * _DRAWN)):
            return Solution(None)
        stand_in = fit_autocorrelation(self._evaluator.losses, self._problem)
        if stand_in is None:
            return Solution(None)
        return self._search.run(stand_in, budget, on_improvement)


def fit_autocorrelation(losses: Callable[[Integers], Floats], problem: Problem) -> StandIn | None:
    """Return the energy of autocorrelations that agrees with a loss; None if none does.

    Args:
        losses: Takes codes (batch, n) to losses (batch,).
        problem: The lists, and which elements are fixed.
    """
    random = np.random.default_rng(0)
    codes = np.stack([problem.draw(random) for _ in range(_DRAWN)])
    drawn_losses, vectors = losses(codes), problem.values(codes)
    if not np.isfinite(drawn_losses).all() or np.ptp(drawn_losses) == 0:
        return None
    return _agreeing(drawn_losses, vectors)


@np.errstate(all="ignore")
def _agreeing(drawn_losses: Floats, vectors: Floats) -> StandIn | None:
    """Return the energy of autocorrelations that agrees with losses of vectors (batch, n)."""
    tolerance = tolerance_of(drawn_losses)
    for periodic in (False, True):
        objective = Autocorrelation(vectors.shape[1], periodic)
        energies = objective(vectors)
        columns = np.stack([energies, np.ones(_DRAWN)], axis=1)
        for form in _forms(drawn_losses):
            numbers = form.function(drawn_losses)
            slope, offset = np.linalg.lstsq(columns, numbers)[0].tolist()
            far = np.abs(columns @ [slope, offset] - numbers) > tolerance * np.ptp(numbers)
            if slope > 0 and not far.any():
                # Energies fall far below those of random vectors.
                limit = tolerance * float(np.abs(numbers).max())
                return StandIn(objective, limit, form, slope, offset)
    return None


def _forms(losses: Floats) -> Iterator[Increasing]:
    """Yield increasing functions that may make losses an energy."""
    yield AS_IT_IS
    if (losses >= 0).all():
        yield Increasing("a root", lambda x: x**2)
    yield from reciprocals(losses)
    yield from powers(losses)
