"""The energy of a vector's autocorrelations."""

import math

import numpy as np
from numpy.typing import ArrayLike

from quantal._optimize.methods.compiled_steps import Climber
from quantal.objectives._algorithms.symmetry import negatives
from quantal.objectives.problem import Floats, Integers, Problem

_LENGTH = 4
"""Steps of a walk, for each element."""


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

    def climber(self, problem: Problem, seed: int) -> Climber:
        """Walks that never come back to a vector, each from random codes."""
        from quantal.objectives._algorithms.autocorrelation_steps import walks

        lists, length = np.ascontiguousarray(self._exact(problem.lists).T), _LENGTH * self.n
        keys = np.random.default_rng([seed, 2]).integers(2**62, size=lists.shape)
        lengths = np.where(problem.fixed, 1, problem.lengths)
        closed = problem.fixed | (np.arange(len(lists))[:, None] >= lengths)
        barred = np.where(closed, np.inf, 0).astype(lists.real.dtype)
        places = 1 << (2 * length).bit_length()
        (visited, owners), place = np.zeros((2, places), np.int64), np.array([1, 0])
        slack = 1e-12 * self.n**3 * float(np.abs(problem.lists).max()) ** 4

        def go(
            count: int, seed: int, codes: Integers, _: Integers, best_codes: Integers,
            numbers: Floats,
        ) -> None:  # fmt: skip
            walks(
                count, length, slack, seed, self.periodic, lists, lengths, barred, keys,
                visited, owners, place, codes, best_codes, numbers,
            )  # fmt: skip

        operations = self.n**2 + problem.lists.size
        return Climber(problem, self._energy, go, operations, math.inf, seed)

    def _exact(self, lists: Floats) -> Floats:
        """In single precision, where that suffices for every sum: half of the time."""
        whole = np.isrealobj(lists) and bool((lists == np.rint(lists)).all())
        if whole and 8 * self.n**2 * max(1, np.abs(lists).max()) ** 3 < 2**24:
            return lists.astype(np.float32)
        return lists
