"""Losses whose structure search makes use of."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from quantal.searching.problem import Problem


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
        matrix = matrix.astype(np.float64) if self.sparse else np.array(matrix, np.float64)
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

    def mirrors(self, problem: Problem) -> NDArray[np.int64] | None:
        """The code of each value's negative, (n, K), if a vector and its negative lose the same."""
        ascending = np.sort(problem.lists, axis=1)
        symmetric = np.array_equal(ascending, -ascending[:, ::-1])
        if not symmetric or problem.fixed.any() or self.vector.any():
            return None
        same = problem.lists[:, :, None] == -problem.lists[:, None, :]
        return same.argmax(axis=2)
