"""`Sums` is a function of sums, where each sum has a term for each element."""

import abc
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from quantal.objectives._algorithms.deltas import AffineDeltas
from quantal.objectives._algorithms.losses import checked_losses
from quantal.objectives.groups import Groups
from quantal.objectives.objective import Objective
from quantal.objectives.problem import Problem


class AffineObjective(Objective):
    """An affine objective is a function of the sums `matrix @ v + constant` of a vector `v`.

    Args:
        matrix: Real or complex numbers (m, n).
        constant: Numbers (m,), or one for all.

    Raises:
        ValueError: A shape does not fit, or a number is not finite.
    """

    black_box = False

    def __init__(self, matrix: ArrayLike, constant: ArrayLike) -> None:
        self.matrix = np.array(matrix)
        if self.matrix.dtype.kind != "c":
            self.matrix = self.matrix.astype(np.float64)
        if self.matrix.ndim != 2 or not np.isfinite(self.matrix).all():
            raise ValueError(
                f"matrix has the shape {self.matrix.shape}, or a number that is not finite. "
                "Expected finite numbers (sums, elements), a row for each sum."
            )
        self.constant = np.broadcast_to(np.asarray(constant), self.matrix.shape[:1])

    @abc.abstractmethod
    def losses_of_sums(self, sums: NDArray[Any]) -> NDArray[np.float64]:
        """Return the losses (batch,) of sums (batch, m)."""

    def __len__(self) -> int:
        return int(self.matrix.shape[1])

    def sums(self, v: ArrayLike) -> NDArray[Any]:
        """Return the sums (..., m) of vectors (..., n)."""
        return np.asarray(np.asarray(v) @ self.matrix.T + self.constant)

    def __call__(self, vectors: ArrayLike) -> NDArray[np.float64]:
        return self.losses_of_sums(self.sums(vectors))

    def deltas(self, problem: Problem) -> AffineDeltas:
        return AffineDeltas(self.matrix, self.sums, self.losses_of_sums, problem)


class Sums(AffineObjective):
    """A sums objective gives `function(matrix @ v + constant)` of a vector `v`.

    `quantal.search` keeps the sums: a changed element adds to each of them and needs no new
    product. Use it for patterns to be classified, measurements to be met, or a field at some
    points.

    Args:
        matrix: Real or complex numbers (m, n).
        function: Takes sums (batch, m) to losses (batch,), in NumPy.
        constant: Numbers (m,), or one for all.

    Raises:
        ValueError: A shape does not fit, or a number is not finite.

    >>> patterns = np.array([[1.0, -2.0], [3.0, 0.5]])
    >>> errors = Sums(patterns, lambda sums: (sums <= 0).sum(axis=1))
    >>> errors([[1, 1], [1, -1]])
    array([1., 0.])
    """

    def __init__(
        self, matrix: ArrayLike, function: Callable[[Any], Any], constant: ArrayLike = 0.0
    ) -> None:
        super().__init__(matrix, constant)
        self.function = function

    def losses_of_sums(self, sums: NDArray[Any]) -> NDArray[np.float64]:
        return checked_losses(self.function(sums), len(sums), f"The function of sums {sums.shape}")

    def reduced(self, groups: Groups) -> "Sums":
        return Sums(self.matrix @ groups.expansion(), self.function, self.constant)
