"""A quadratic form holds the arrays that algorithms for quadratic losses work on."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from quantal.objectives.problem import Floats, Problem

_ROUNDING = 1e-12
"""The relative error of a sum of many terms in float64."""


class QuadraticForm(NamedTuple):
    """A quadratic form gives `v @ matrix @ v + vector @ v + constant`.

    Attributes:
        matrix: A symmetric matrix (n, n), a NumPy array or a scipy.sparse `csr_array`.
        vector: Real numbers (n,).
        constant: A number.
    """

    matrix: Any
    vector: Floats
    constant: float

    def losses(self, vectors: Floats) -> Floats:
        """Return the losses (batch,) of vectors (batch, n)."""
        products = np.asarray((self.matrix @ vectors.T).T)
        return np.einsum("bi,bi->b", products, vectors) + vectors @ self.vector + self.constant

    def loss(self, v: Floats) -> float:
        """Return the loss of one vector (n,)."""
        return float(self.losses(v[None])[0])

    def gradient(self, v: Floats) -> Floats:
        """Return `2 matrix @ v + vector`, (n,)."""
        return np.asarray(2 * (self.matrix @ v) + self.vector)

    @property
    def diagonal(self) -> Floats:
        """Return the matrix's diagonal, (n,)."""
        return np.asarray(self.matrix.diagonal(), np.float64)

    @property
    def dense_matrix(self) -> NDArray[np.float64]:
        """Return the matrix as a NumPy array, (n, n)."""
        return self.matrix if isinstance(self.matrix, np.ndarray) else self.matrix.toarray()

    def rounding(self, problem: Problem) -> float:
        """Return the difference of two losses below which they may be the same."""
        largest = np.abs(problem.lists).max(axis=1)
        terms = largest @ (abs(self.matrix) @ largest) + np.abs(self.vector) @ largest
        return _ROUNDING * float(terms)
