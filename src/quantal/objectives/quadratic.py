"""`Quadratic` is a quadratic function of a vector."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from quantal.objectives._algorithms.compiled_loop import CompiledLoop
from quantal.objectives._algorithms.deltas import QuadraticDeltas
from quantal.objectives._algorithms.quadratic_form import QuadraticForm
from quantal.objectives._algorithms.relaxation_bound import relaxation_bound
from quantal.objectives._algorithms.solution import Solution
from quantal.objectives._algorithms.symmetry import codes_of_negatives
from quantal.objectives.groups import Groups
from quantal.objectives.objective import Objective
from quantal.objectives.problem import Integers, Problem


class Quadratic(Objective):
    """A quadratic objective gives `v @ matrix @ v + vector @ v + constant` of a vector `v`.

    `quantal.search` evaluates changes by exact deltas: a changed element costs as many
    operations as its row of the matrix has entries, and not a whole product.

    Args:
        matrix: Real numbers (n, n); NumPy or scipy.sparse; only its symmetric part counts.
        vector: Real numbers (n,); None for zeros.
        constant: A number.

    Raises:
        ValueError: A shape does not fit, or a number is not finite.

    >>> loss = Quadratic([[0.0, 1.0], [1.0, 0.0]])
    >>> loss([[1, 1], [1, -1]])
    array([ 2., -2.])
    """

    black_box = False

    def __init__(self, matrix: Any, vector: ArrayLike | None = None, constant: float = 0.0) -> None:
        # scipy is an extra: its matrices are recognized without importing it.
        self.sparse = hasattr(matrix, "tocsr")
        matrix = matrix.tocsr() if self.sparse else np.array(matrix)
        parts: tuple[Any, ...] = (matrix, vector, constant)
        if any(np.iscomplexobj(part) for part in parts):
            raise ValueError(
                "matrix, vector or constant is complex. Expected real numbers. Of a Hermitian form "
                "of real vectors the real part alone counts; for complex ones give a function."
            )
        matrix = matrix.astype(np.float64)
        if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1]:
            raise ValueError(f"matrix has the shape {matrix.shape}. Expected a square one, (n, n).")
        n = matrix.shape[0]
        linear = np.zeros(n) if vector is None else np.array(vector, np.float64)
        if linear.shape != (n,):
            raise ValueError(
                f"vector has the shape {linear.shape}. Expected ({n},), as many numbers as the "
                "matrix has rows."
            )
        entries = matrix.data if self.sparse else matrix
        if not (np.isfinite(entries).all() and np.isfinite(linear).all()):
            raise ValueError(
                "matrix or vector has a number that is not finite. Expected finite numbers."
            )
        symmetric = (matrix + matrix.T) / 2
        self._form = QuadraticForm(
            symmetric.tocsr() if self.sparse else symmetric, linear, float(constant)
        )

    @property
    def matrix(self) -> Any:
        """Return the symmetric matrix, (n, n)."""
        return self._form.matrix

    @property
    def vector(self) -> NDArray[np.float64]:
        """Return the coefficients of the linear term, (n,)."""
        return self._form.vector

    @property
    def constant(self) -> float:
        """Return the constant term."""
        return self._form.constant

    def __len__(self) -> int:
        return len(self.vector)

    def __call__(self, vectors: ArrayLike) -> NDArray[np.float64]:
        vectors = np.asarray(vectors)
        if np.iscomplexobj(vectors):
            raise ValueError(
                "The vectors are complex, and the objective is a Quadratic. Expected real numbers."
            )
        return self._form.losses(vectors.astype(np.float64))

    def deltas(self, problem: Problem) -> QuadraticDeltas:
        return QuadraticDeltas(self._form, problem)

    def compiled_loop(self, problem: Problem, seed: int) -> CompiledLoop:
        # numba is an extra.
        from quantal.objectives._algorithms.quadratic_steps import quadratic_loop

        return quadratic_loop(self._form, problem)

    def symmetry(self, problem: Problem) -> Integers | None:
        return None if self.vector.any() else codes_of_negatives(problem)

    def bound(self, problem: Problem) -> float | None:
        return relaxation_bound(self._form, problem)

    def exact(
        self,
        problem: Problem,
        seconds: float,
        start: Integers,
        on_improvement: Callable[[Integers], None],
    ) -> Solution | None:
        # numba is an extra.
        from quantal.objectives._algorithms.sphere_decoding import closest_vector

        return closest_vector(self._form, problem, seconds, start, on_improvement)

    def rounding(self, problem: Problem) -> float:
        return self._form.rounding(problem)

    def reduced(self, groups: Groups) -> "Quadratic":
        expansion = groups.expansion(sparse=self.sparse)
        matrix = expansion.T @ (self.matrix @ expansion)
        return Quadratic(matrix, expansion.T @ self.vector, self.constant)
