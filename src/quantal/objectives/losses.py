"""Losses whose structure search makes use of."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from quantal.objectives._algorithms.symmetry import negatives
from quantal.objectives.problem import Integers, Problem


class Quadratic:
    """The loss `v @ matrix @ v + vector @ v + constant` of a vector `v`.

    `quantal.search` follows it by exact differences: a changed element costs as many
    operations as its row of the matrix has entries, and not a whole product.

    Args:
        matrix: Real numbers (n, n); NumPy or scipy.sparse; only its symmetric part counts.
        vector: Real numbers (n,), or None for none.
        constant: A number.

    Raises:
        ValueError: A shape is another, or a number is not finite.

    >>> loss = Quadratic([[0.0, 1.0], [1.0, 0.0]])
    >>> loss([[1, 1], [1, -1]])
    array([ 2., -2.])
    """

    def __init__(self, matrix: Any, vector: ArrayLike | None = None, constant: float = 0.0) -> None:
        self.sparse = hasattr(matrix, "tocsr")
        matrix = matrix.tocsr() if self.sparse else np.array(matrix)
        matrix = matrix.astype(np.float64)
        if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1]:
            raise ValueError(
                f"matrix has the shape {matrix.shape}. Expected (n, n). Give a square one."
            )
        n = matrix.shape[0]
        numbers = np.zeros(n) if vector is None else np.array(vector, np.float64)
        if numbers.shape != (n,):
            raise ValueError(
                f"vector has the shape {numbers.shape}. Expected ({n},), as the matrix has. "
                "Give a number for each element."
            )
        entries = matrix.data if self.sparse else matrix
        if not (np.isfinite(entries).all() and np.isfinite(numbers).all()):
            raise ValueError(
                "matrix or vector has a number that is not finite. Expected finite numbers. "
                "Look where they come from."
            )
        symmetric = (matrix + matrix.T) / 2
        self.matrix = symmetric.tocsr() if self.sparse else symmetric
        self.vector = numbers
        self.constant = float(constant)

    def __len__(self) -> int:
        return len(self.vector)

    @property
    def diagonal(self) -> NDArray[np.float64]:
        """The matrix's diagonal, (n,)."""
        return np.asarray(self.matrix.diagonal(), np.float64)

    def gradient(self, v: NDArray[np.float64]) -> NDArray[np.float64]:
        """`2 matrix @ v + vector`, (n,)."""
        return np.asarray(2 * (self.matrix @ v) + self.vector)

    def __call__(self, candidates: ArrayLike) -> NDArray[np.float64]:
        """The losses (batch,) of vectors (batch, n)."""
        rows = np.asarray(candidates, np.float64)
        products = np.asarray((self.matrix @ rows.T).T)
        return np.einsum("bi,bi->b", products, rows) + rows @ self.vector + self.constant

    def rounding(self, problem: Problem) -> float:
        """Losses of vectors that differ by less may be one loss: a part in 10^12 of all terms."""
        most = np.abs(problem.lists).max(axis=1)
        terms = most @ (abs(self.matrix) @ most) + np.abs(self.vector) @ most
        return 1e-12 * float(terms)

    def reduced(self, expansion: Any) -> "Quadratic":
        """The same loss of `u` with `v = expansion @ u`; expansion (n, m)."""
        matrix = expansion.T @ (self.matrix @ expansion)
        return Quadratic(matrix, expansion.T @ self.vector, self.constant)

    def climber(self, problem: Problem, seed: int) -> Any:
        """Follows the loss by exact differences in compiled loops."""
        from quantal.objectives._algorithms.quadratic_steps import climber_of

        return climber_of(self, problem, seed)

    def solved(
        self,
        problem: Problem,
        seconds: float,
        codes: Integers,
        found: Callable[[Integers], None],
    ) -> Any:
        """The best, or a good vector, where the loss is convex; None elsewhere."""
        from quantal.objectives._algorithms.sphere_decoding import solved

        return solved(self, problem, seconds, codes, found)

    def lower_bound(self, problem: Problem) -> float | None:
        """No vector of the lists has a lower loss; None for large problems."""
        from quantal.objectives._algorithms.relaxation_bound import lower_bound

        return lower_bound(self, problem)

    def mirrors(self, problem: Problem) -> Integers | None:
        """The code of each value's negative, (n, K), if a vector and its negative lose the same."""
        return None if self.vector.any() else negatives(problem)


class Sums:
    """The loss `function(sums)` of a vector `v`, where each sum has a term for each element.

    `sums = matrix @ v + constant`; `quantal.search` follows them: a changed element adds to
    each sum, and is no new product. For patterns that have to be classified, measurements
    that have to be met, a field at some places.

    Args:
        matrix: Real or complex numbers (m, n).
        function: From sums (batch, m) to losses (batch,), in NumPy.
        constant: Numbers (m,), or one for all.

    Raises:
        ValueError: A shape is another, or a number is not finite.

    >>> patterns = np.array([[1.0, -2.0], [3.0, 0.5]])
    >>> errors = Sums(patterns, lambda sums: (sums <= 0).sum(axis=1))
    >>> errors([[1, 1], [1, -1]])
    array([1., 0.])
    """

    def __init__(
        self, matrix: ArrayLike, function: Callable[[Any], Any], constant: ArrayLike = 0.0
    ) -> None:
        self.matrix = np.array(matrix)
        if self.matrix.dtype.kind != "c":
            self.matrix = self.matrix.astype(np.float64)
        if self.matrix.ndim != 2 or not np.isfinite(self.matrix).all():
            raise ValueError(
                f"matrix has the shape {self.matrix.shape}, or a number that is not finite. "
                "Expected finite numbers (sums, elements). Give a row for each sum."
            )
        self.function = function
        self.constant = np.broadcast_to(np.asarray(constant), self.matrix.shape[:1])

    def __len__(self) -> int:
        return self.matrix.shape[1]

    def sums(self, v: ArrayLike) -> NDArray[Any]:
        """The sums (batch, m) of vectors (batch, n)."""
        found: NDArray[Any] = np.asarray(v) @ self.matrix.T + self.constant
        return found

    def of_sums(self, sums: NDArray[Any]) -> NDArray[np.float64]:
        """The losses (batch,) of sums (batch, m)."""
        found = np.asarray(self.function(sums), np.float64)
        if found.shape != (len(sums),):
            raise ValueError(
                f"The function gave the shape {found.shape} for sums {sums.shape}. Expected "
                f"({len(sums)},), a loss for each row. Sum over the last axis alone."
            )
        return found

    def __call__(self, candidates: ArrayLike) -> NDArray[np.float64]:
        """The losses (batch,) of vectors (batch, n)."""
        return self.of_sums(self.sums(candidates))

    def reduced(self, expansion: Any) -> "Sums":
        """The same loss of `u` with `v = expansion @ u`; expansion (n, m)."""
        return Sums(self.matrix @ expansion, self.function, self.constant)
