"""The energy of a vector's autocorrelations."""

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike

from quantal.searching.climbing import Climber
from quantal.searching.problem import Floats, Integers, Problem
from quantal.searching.symmetry import negatives

_TENURE = 0.1  # Of the elements.
_PATIENCE = 2.0  # Steps without a better loss, in elements: short searches do best.
_SHAKEN = 0.25  # Of the elements.
_FAILURES = 200


class Autocorrelation:
    """The loss `sum over the lags k = 1 .. n - 1 of abs(C[k])**2` of a vector `v`.

    `C[k]` is the sum of `v[i] conj(v[i + k])`, over all `i` with `i + k < n`, or over all
    `i` modulo `n` if it is periodic. Vectors with a low loss are codes for radar, sonar
    and spread spectrum. `quantal.search` follows it by exact differences.

    Args:
        n: The length of the vector.
        periodic: Whether the vector goes round.

    Raises:
        ValueError: n is below 1.

    Source: Golay, "The merit factor of long low autocorrelation binary sequences", IEEE
    Transactions on Information Theory 1982; optima of ±1 up to 66 elements: Packebusch
    and Mertens, "Low autocorrelation binary sequences", Journal of Physics A 2016.

    >>> barker = [1, 1, 1, 1, 1, -1, -1, 1, 1, -1, 1, -1, 1]
    >>> Autocorrelation(13)([barker])
    array([6.])
    """

    def __init__(self, n: int, periodic: bool = False) -> None:
        if n < 1:
            raise ValueError(f"n is {n}. Expected the length of the vector, 1 or more. Give n.")
        self.n, self.periodic = int(n), bool(periodic)

    def __len__(self) -> int:
        return self.n

    def __call__(self, candidates: ArrayLike) -> Floats:
        """The losses (batch,) of vectors (batch, n), real or complex."""
        rows = np.asarray(candidates)
        rows = rows.astype(np.complex128 if rows.dtype.kind == "c" else np.float64)
        return np.array([self._energy(row) for row in rows], np.float64)

    def _energy(self, row: np.ndarray) -> float:
        if self.periodic:
            sums = np.correlate(np.concatenate([row, row[:-1]]), row, "valid")[1:]
        else:
            sums = np.correlate(row, row, "full")[self.n :]
        return float(np.sum(np.square(sums.real) + np.square(sums.imag)))

    def mirrors(self, problem: Problem) -> Integers | None:
        """The code of each value's negative, (n, K), if each list has them."""
        return negatives(problem)

    def climber(self, problem: Problem, seed: int) -> "_Shaking":
        """Short tabu searches, each from the best with a quarter of its elements drawn anew."""
        from quantal.searching.autocorrelation_steps import steps

        patience = int(_PATIENCE * self.n) + 8

        def go(count: int, seed: int, *state: np.ndarray) -> None:
            steps(
                count, patience, max(1, int(_TENURE * self.n)), seed, self.periodic,
                problem.lists, problem.lengths, problem.fixed, *state,
            )  # fmt: skip

        operations = self.n**2 + problem.lists.size
        return _Shaking(
            Climber(problem, self._energy, go, operations, patience, seed), problem, seed
        )


class _Shaking:
    """Iterated local search: it stalls after many searches that were no better.

    Source: Lourenço, Martin and Stützle, "Iterated local search", Handbook of
    Metaheuristics 2003.
    """

    def __init__(self, climber: Climber, problem: Problem, seed: int) -> None:
        self._climber, self._problem = climber, problem
        self._random = np.random.default_rng([seed, 2])
        free = np.flatnonzero(~problem.fixed)
        self._shaken = free, max(1, int(_SHAKEN * len(free)))

    @property
    def evaluations(self) -> int:
        """How many differences of losses were looked at."""
        return self._climber.evaluations

    def improved(
        self,
        codes: Integers,
        goes_on: Callable[[], bool],
        better: Callable[[Integers, float], None],
    ) -> tuple[float, Integers]:
        """The best loss from here and its codes (n,), as `Climber` gives them."""
        free, count = self._shaken
        best, best_codes = self._climber.improved(codes, goes_on, better)
        failures = 0
        while failures < _FAILURES and len(free) and goes_on():
            drawn = best_codes.copy()
            where = self._random.permutation(free)[:count]
            apart = self._random.integers(1, np.maximum(self._problem.lengths[where], 2))
            drawn[where] = (drawn[where] + apart) % self._problem.lengths[where]
            loss, found = self._climber.improved(drawn, goes_on, better)
            failures = 0 if loss < best else failures + 1
            if loss <= best:
                best, best_codes = loss, found
        return best, best_codes
