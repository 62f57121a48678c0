"""Delta evaluation gives the losses after small changes, without whole vectors."""

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from quantal.objectives._algorithms.quadratic_form import QuadraticForm
from quantal.objectives.problem import Floats, Integers, Problem

_LARGEST_DENSE = 4000
"""Sparse matrices up to this length become dense (128 MB): single entries are read faster."""
_MOST_SUMS = 2**24
"""The most sums of all changes in one batch: 128 MiB."""


class DeltaEvaluator(Protocol):
    """A delta evaluator gives the losses after changes of one assignment.

    Attributes:
        largest_batch: The most changes in one call.
    """

    largest_batch: int

    def move_to(self, codes: Integers, loss: float) -> None:
        """Take an assignment (n,) and its loss as the one that changes start from."""

    def estimates(self) -> Floats | None:
        """Return how the loss changes with each code of an element, (n, K), approximately.

        None means that nothing is known.
        """

    def losses_after(self, positions: Integers, codes: Integers) -> Floats:
        """Return the losses (batch,) after elements at positions (batch, 1 or 2) get codes."""


class QuadraticDeltas:
    """Quadratic deltas use the gradient and single entries of the matrix.

    Args:
        form: The quadratic loss.
        problem: The lists.
    """

    largest_batch = 65536

    def __init__(self, form: QuadraticForm, problem: Problem) -> None:
        self._form, self._problem = form, problem
        is_small = len(form.vector) <= _LARGEST_DENSE
        self._entries = form.dense_matrix if is_small else form.matrix
        self._diagonal = form.diagonal

    def move_to(self, codes: Integers, loss: float) -> None:
        """Compute the loss and the gradient of an assignment."""
        self._values = self._problem.values(codes)
        self._loss = self._form.loss(self._values)
        self._gradient = self._form.gradient(self._values)

    def estimates(self) -> Floats:
        """Return the exact change of the loss with each code, (n, K)."""
        steps = self._problem.lists - self._values[:, None]
        return steps * (self._gradient[:, None] + steps * self._diagonal[:, None])

    def losses_after(self, positions: Integers, codes: Integers) -> Floats:
        """Return the loss after each change, (batch,)."""
        steps = self._problem.lists[positions, codes] - self._values[positions]
        if positions.shape[1] == 2:
            same_element = positions[:, 0] == positions[:, 1]
            steps[:, 1] = np.where(same_element, 0, steps[:, 1])
        alone = steps * (self._gradient[positions] + steps * self._diagonal[positions])
        losses: Floats = self._loss + alone.sum(axis=1)
        if positions.shape[1] == 2:
            i, j = positions.T
            losses += 2 * np.asarray(self._entries[i, j]).reshape(-1) * steps.prod(axis=1)
        return losses


class AffineDeltas:
    """Affine deltas add what a change contributes to each of the sums `matrix @ v + constant`.

    Args:
        matrix: The contributions of the elements, (m, n).
        sums: Returns the sums (m,) of a vector (n,).
        losses_of_sums: Returns the losses (batch,) of sums (batch, m).
        problem: The lists.
    """

    def __init__(
        self,
        matrix: NDArray[Any],
        sums: Callable[[Floats], NDArray[Any]],
        losses_of_sums: Callable[[NDArray[Any]], Floats],
        problem: Problem,
    ) -> None:
        self._sums_of, self._losses_of_sums, self._problem = sums, losses_of_sums, problem
        self._columns = np.ascontiguousarray(matrix.T)
        most = _MOST_SUMS // max(1, self._columns.shape[1])
        self.largest_batch = int(np.clip(most, 1, 4096))

    def move_to(self, codes: Integers, loss: float) -> None:
        """Compute the sums of an assignment."""
        self._values = self._problem.values(codes)
        self._sums = self._sums_of(self._values)

    def estimates(self) -> None:
        """Return None: a function of sums says nothing in advance."""

    def losses_after(self, positions: Integers, codes: Integers) -> Floats:
        """Return the loss after each change, (batch,)."""
        steps = self._problem.lists[positions, codes] - self._values[positions]
        sums = self._sums + steps[:, :1] * self._columns[positions[:, 0]]
        if positions.shape[1] == 2:
            same_element = positions[:, 0] == positions[:, 1]
            second_steps = np.where(same_element, 0, steps[:, 1])
            sums += second_steps[:, None] * self._columns[positions[:, 1]]
        return self._losses_of_sums(sums)
