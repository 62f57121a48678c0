"""`Autocorrelation` is the energy of a vector's autocorrelations."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from quantal.objectives._algorithms.compiled_loop import CompiledLoop
from quantal.objectives._algorithms.symmetry import codes_of_negatives
from quantal.objectives.objective import Objective
from quantal.objectives.problem import Floats, Integers, Problem


class Autocorrelation(Objective):
    """An autocorrelation objective gives the sum over the lags `k` of `abs(C[k])**2`.

    `C[k]` is the sum of `v[i] conj(v[i + k])` for a vector `v`, over all `i` with `i + k < n`,
    or over all `i` modulo `n` if it is periodic; `k` goes from 1 to `n - 1`. Vectors with a low
    loss are codes for radar, sonar and spread spectrum. `quantal.search` evaluates changes by
    exact deltas.

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

    black_box = False

    def __init__(self, n: int, periodic: bool = False) -> None:
        if n < 1:
            raise ValueError(f"n is {n}. Expected the length of the vector, 1 or more.")
        self.n, self.periodic = int(n), bool(periodic)

    def __len__(self) -> int:
        return self.n

    def __call__(self, vectors: ArrayLike) -> Floats:
        rows = np.asarray(vectors)
        rows = rows.astype(np.complex128 if rows.dtype.kind == "c" else np.float64)
        return np.array([self._energy(row) for row in rows], np.float64)

    def _energy(self, v: NDArray[Any]) -> float:
        if self.periodic:
            sums = np.correlate(np.concatenate([v, v[:-1]]), v, "valid")[1:]
        else:
            sums = np.correlate(v, v, "full")[self.n :]
        return float(np.sum(np.square(sums.real) + np.square(sums.imag)))

    def symmetry(self, problem: Problem) -> Integers | None:
        return codes_of_negatives(problem)

    def compiled_loop(self, problem: Problem, seed: int) -> CompiledLoop:
        # numba is an extra.
        from quantal.objectives._algorithms.autocorrelation_steps import autocorrelation_loop

        return autocorrelation_loop(self._energy, self.periodic, problem, seed)
