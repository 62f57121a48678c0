"""Minibatch polishing follows one batch after another, for more data than one batch holds."""

import numpy as np
from numpy.typing import NDArray

from quantal._optimize.budget import Spending
from quantal._optimize.methods.method import OnImprovement
from quantal._optimize.polish.state import PolishState
from quantal._optimize.polish.validation import Stages
from quantal.objectives._algorithms.solution import Solution
from quantal.objectives.problem import Floats, Integers

_MEMORY, _UPDATE = 0.8, 0.2
"""The weights of earlier batches and of a new one in the mean gradient, by which moves are ranked:
about the last five batches count."""
_BLOCKS = 4
"""So many blocks are tried on a batch: its first gradient serves all of them."""
_GROWTH, _SHRINKAGE = 2, 2
"""By which factor the size of blocks grows when one is taken, and shrinks when not."""
_TENURE = 100
"""The tabu tenure of rejected elements, in blocks."""
_MOST_TABU = 4
"""The tenure is at most the number of elements divided by this, so that enough stay free."""


class Minibatch:
    """Minibatch polishing takes blocks of ranked moves that lower the loss of a batch.

    A block is taken where it lowers the loss of the batch and that of the validation data. Else its
    elements are tabu for some blocks, and the next ones are tried. At each stage of the budget the
    assignment is offered for keeping; if the validation data refuse it, polishing returns to what
    is kept, because what was learned since holds on the batches only.

    Args:
        state: What the methods of polishing share.
    """

    def __init__(self, state: PolishState) -> None:
        self._state = state
        elements = len(state.objective)
        self._tenure = min(_TENURE, elements // _MOST_TABU)
        self._tabu_until = np.zeros(elements, np.int64)
        self._blocks_tried = 0
        self._block = state.first_block()
        self._reached: Integers | None = None
        self._ranks = state.selection.kept.ranks
        self._mean_gradient: Floats | None = None
        self._accepted_validation = state.selection.kept.validation

    def run(self, start: Integers, budget: Spending, on_improvement: OnImprovement) -> Solution:
        """Polish until the budget is used up.

        Args:
            start: The assignment to begin with, (n,).
            budget: What polishing may spend.
            on_improvement: Is not called, because a batch says too little of all data; the
                selection measures what is offered to it.
        """
        state, stages = self._state, Stages(budget)
        self._ranks = start.copy()
        state.measure_curvature(start)
        while budget.has_budget():
            self._follow_batch(state.objective.model_loss.batches.draw(state.random), budget)
            self._reached = self._ranks
            if stages.next_begun() and not state.selection.offer(self._ranks):
                self._return_to_kept()
            if state.train_continuous() and self._accepted_validation is not None:
                self._accepted_validation = state.selection.kept.validation
        return Solution(self._ranks)

    @property
    def reached(self) -> Integers:
        """Return the assignment that was reached last, by which not all data are measured."""
        return self._ranks

    def offer_last(self) -> None:
        """Offer the assignment that was reached last for keeping."""
        incumbent, selection = self._state.incumbent, self._state.selection
        if self._reached is None:
            selection.offer(incumbent.codes, incumbent.loss)
        else:
            selection.offer(self._reached)

    def _follow_batch(self, samples: NDArray[np.int64], budget: Spending) -> None:
        """Try several blocks of moves on one batch of samples."""
        state, objective = self._state, self._state.objective
        loss, _, gradient = objective.loss_and_gradient(self._ranks, samples)
        mean = self._mean_gradient
        mean = gradient if mean is None else _MEMORY * mean + _UPDATE * gradient
        for _ in range(_BLOCKS):
            tabu = self._tabu_until > self._blocks_tried
            moves = state.curvature.ranked_moves(self._ranks, mean, tabu)
            count = moves.gains(self._block)
            self._blocks_tried += 1
            if count == 0 or not budget.has_budget():
                break
            elements = moves.order[:count]
            ranks = moves.applied(self._ranks, elements)
            new_loss, _, new_gradient = objective.loss_and_gradient(ranks, samples)
            if new_loss < loss and self._validation_falls(ranks):
                mean = mean + new_gradient - gradient
                self._ranks, loss, gradient = ranks, new_loss, new_gradient
                self._block = min(_GROWTH * count, len(ranks))
            else:
                self._tabu_until[elements] = self._blocks_tried + self._tenure
                self._block = max(1, count // _SHRINKAGE)
        self._mean_gradient = mean

    def _validation_falls(self, ranks: Integers) -> bool:
        """Return whether the validation loss is lower than that of the last block taken."""
        measure = self._state.selection.validation
        if measure is None or self._accepted_validation is None:
            return True
        validation = measure(ranks)
        if not validation < self._accepted_validation:
            return False
        self._accepted_validation = validation
        return True

    def _return_to_kept(self) -> None:
        """Return to the kept assignment if validation data refused the current one."""
        selection = self._state.selection
        if selection.validation is not None:
            self._ranks, self._mean_gradient = selection.kept.ranks.copy(), None
            self._accepted_validation = selection.kept.validation
