"""Full deltas evaluate the moves of any loss by whole vectors."""

from collections.abc import Callable

import numpy as np

from quantal.objectives.problem import Floats, Integers, Problem

_DECAY = 0.9
"""Recorded effects decay with each step, so that every move is eventually re-evaluated."""
_UNSEEN = 1e300
"""The gain assumed of a move that has not been evaluated: such moves come first."""


class FullDeltas:
    """Full deltas evaluate whole vectors, and remember what each change did.

    Args:
        losses: Takes codes (batch, n) to losses (batch,).
        problem: The lists.
        gradients: Takes vectors (batch, n) to gradients; None where there are none.
    """

    largest_batch = 4096

    def __init__(
        self,
        losses: Callable[[Integers], Floats],
        problem: Problem,
        gradients: Callable[[Floats], Floats | None] | None,
    ) -> None:
        self._losses, self._problem, self._gradients = losses, problem, gradients
        order = np.random.default_rng(0).random(problem.lists.shape)
        self._recorded: Floats | None = -_UNSEEN * order

    def move_to(self, codes: Integers, loss: float) -> None:
        """Take an assignment and its loss as the one that changes start from."""
        self._codes, self._loss = codes.copy(), loss
        if self._recorded is not None:
            self._recorded *= _DECAY

    def estimates(self) -> Floats | None:
        """Return the gradient times the step, or the recorded effects; None after pairs."""
        if self._gradients is None:
            return self._recorded
        values = self._problem.values(self._codes)
        gradients = self._gradients(values[None])
        if gradients is None:
            return None
        return gradients[0][:, None] * (self._problem.lists - values[:, None])

    def losses_after(self, positions: Integers, codes: Integers) -> Floats:
        """Return the losses (batch,) after changes."""
        assignments = np.tile(self._codes, (len(positions), 1))
        assignments[np.arange(len(positions))[:, None], positions] = codes
        losses = self._losses(assignments)
        if positions.shape[1] == 2:
            # Two changes at once say nothing of either.
            self._recorded = None
        elif self._recorded is not None:
            known = np.isfinite(losses) & np.isfinite(self._loss)
            change = np.where(known, losses, 0) - np.where(known, self._loss, 0)
            self._recorded[positions[:, 0], codes[:, 0]] = change
        return losses
