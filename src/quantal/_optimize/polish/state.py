"""A state holds what the methods of polishing share."""

import dataclasses

import numpy as np

from quantal._optimize.budget import Spending
from quantal._optimize.incumbent import Incumbent
from quantal._optimize.polish.continuous import ContinuousSteps
from quantal._optimize.polish.curvature import Curvature
from quantal._optimize.polish.ranked_loss import RankedLoss
from quantal._optimize.polish.validation import Selection
from quantal.objectives.problem import Integers

FIRST_BLOCK = 0.002
"""The fraction of all elements in the first block of moves: the size then follows the loss."""
_SURVEYED = 0.2
"""The fraction of the budget that measuring the Fisher diagonal may take."""


@dataclasses.dataclass(frozen=True)
class PolishState:
    """A polish state holds what the methods of one polishing share.

    Attributes:
        objective: The loss on the data given.
        curvature: Predicts what moves cost.
        spending: What is used of the budget.
        incumbent: The assignment with the lowest monitored number on the data given.
        selection: What is kept in the end.
        random: Draws.
        monitors: Whether the monitored number is another than the loss.
        seed: The seed of methods that draw for themselves.
        continuous: The steps of what is not on a list; None where it stays.
    """

    objective: RankedLoss
    curvature: Curvature
    spending: Spending
    incumbent: Incumbent
    selection: Selection
    random: np.random.Generator
    monitors: bool
    seed: int
    continuous: ContinuousSteps | None = None

    def first_block(self) -> int:
        """Return how many moves the first block has."""
        return max(1, int(FIRST_BLOCK * len(self.objective)))

    def resume_from(self, ranks: Integers) -> None:
        """Offer an assignment that an earlier run has reached."""
        loss = self.objective.monitored(ranks)
        self.incumbent.offer(ranks, loss)
        self.selection.offer(ranks, loss)

    def train_continuous(self) -> bool:
        """Train what is not on a list, at the kept assignment; return whether that was kept.

        All losses are others then: the incumbent is measured anew.
        """
        if self.continuous is None or not self.continuous.improve(self.selection):
            return False
        incumbent, kept = self.incumbent, self.selection.kept
        codes, loss = kept.ranks, kept.loss
        if (incumbent.codes != codes).any():
            loss_of_incumbent = self.objective.monitored(incumbent.codes)
            if loss_of_incumbent < loss:
                codes, loss = incumbent.codes, loss_of_incumbent
        incumbent.restate(codes, loss)
        return True

    def measure_curvature(self, ranks: Integers) -> None:
        """Measure the curvature at an assignment, at a fifth of the budget at most."""
        spending, batches = self.spending, self.objective.model_loss.batches
        until = spending.fraction_used + _SURVEYED
        self.curvature.measure_fisher_diagonal(
            ranks, self.random, lambda: spending.has_budget() and spending.fraction_used < until
        )
        samples = None if batches.count == 1 else batches.draw(self.random)
        _, _, gradient = self.objective.loss_and_gradient(ranks, samples)
        self.curvature.probe(ranks, gradient, self.random, samples)
