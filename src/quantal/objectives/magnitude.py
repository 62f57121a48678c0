"""`Magnitude` is an objective whose best vector has the largest magnitude of a sum."""

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike

from quantal.objectives._algorithms.largest_sum import largest_sum
from quantal.objectives._algorithms.solution import Solution
from quantal.objectives._algorithms.symmetry import codes_of_negatives
from quantal.objectives.groups import Groups
from quantal.objectives.objective import Objective
from quantal.objectives.problem import Floats, Integers, Problem


class Magnitude(Objective):
    """A magnitude objective gives `-abs(constant + v @ vector)` of a vector `v`.

    Use it for antennas whose phases come from a list: `vector` holds the channel of each
    element of a reflecting surface or a phased array, `constant` the direct path.
    `quantal.search` returns the best vector and proves it, for any lists, in a time that
    grows as `N K log(N K)`; not where a total or counts are given, or groups whose lists
    are no multiples of each other.

    Args:
        vector: Real or complex numbers (n,).
        constant: A number.

    Raises:
        ValueError: The shape does not fit, or a number is not finite.

    >>> loss = Magnitude([1, 1j], constant=1)
    >>> loss([[1, 1j], [1, -1j], [-1, 1]])
    array([-1., -3., -1.])
    """

    black_box = False
    exact_is_fast = True

    def __init__(self, vector: ArrayLike, constant: complex = 0.0) -> None:
        self.vector = np.array(vector)
        if self.vector.dtype.kind != "c":
            self.vector = self.vector.astype(np.float64)
        if self.vector.ndim != 1:
            raise ValueError(
                f"vector has the shape {self.vector.shape}. Expected (n,), a number for each "
                "element."
            )
        self.constant = constant
        if not (np.isfinite(self.vector).all() and np.isfinite(constant)):
            raise ValueError(
                "vector or constant has a number that is not finite. Expected finite numbers."
            )

    def __len__(self) -> int:
        return len(self.vector)

    def __call__(self, vectors: ArrayLike) -> Floats:
        sums = self.constant + np.asarray(vectors) @ self.vector
        return -np.abs(sums).astype(np.float64)

    def symmetry(self, problem: Problem) -> Integers | None:
        return None if self.constant else codes_of_negatives(problem)

    def reduced(self, groups: Groups) -> "Magnitude":
        return Magnitude(self.vector @ groups.expansion(), self.constant)

    def exact(
        self,
        problem: Problem,
        seconds: float,
        start: Integers,
        on_improvement: Callable[[Integers], None],
    ) -> Solution:
        candidates = largest_sum(self.vector, self.constant, problem)
        # One by one: a product of matrices may round differently.
        losses = [float(self(problem.values(codes)[None])[0]) for codes in candidates]
        loss = min(losses)
        return Solution(candidates[losses.index(loss)], loss, loss, True)
