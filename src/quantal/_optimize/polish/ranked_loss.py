"""A ranked loss gives a model's loss as a function of ranks, and counts its evaluations."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from quantal._models.model_loss import LossAndGradient, ModelLoss
from quantal._optimize.polish.ascending_lists import AscendingLists
from quantal.objectives.problem import Floats, Integers


class RankedLoss:
    """A ranked loss evaluates a model's loss for assignments that are given as ranks.

    Args:
        loss: The loss of listed values.
        lists: Translate ranks to values.
        count: Is called with the number of evaluations of each call.
    """

    def __init__(
        self,
        loss: ModelLoss,
        lists: AscendingLists,
        count: Callable[[int], None] = lambda evaluations: None,
    ) -> None:
        self.model_loss, self.lists, self._count = loss, lists, count

    def __len__(self) -> int:
        return len(self.lists)

    def losses(self, ranks: Integers) -> Floats:
        """Return the losses (batch,) of assignments (batch, n), on all data."""
        self._count(len(ranks))
        return self.model_loss(self.lists.values(ranks))

    def loss_and_gradient(
        self, ranks: Integers, samples: NDArray[np.int64] | None = None
    ) -> LossAndGradient:
        """Return the loss of an assignment (n,), what is monitored, and the gradient to the values.

        Args:
            ranks: The assignment.
            samples: The samples that count; None for all.
        """
        self._count(1)
        return self.model_loss.loss_and_gradient(self.lists.values(ranks), samples)

    def variable_gradients(
        self, ranks: Integers, samples: NDArray[np.int64] | None = None
    ) -> list[Floats]:
        """Return the gradients of an assignment's loss to the variables that are trained.

        Args:
            ranks: The assignment, (n,).
            samples: The samples that count; None for all.
        """
        self._count(1)
        return self.model_loss.variable_gradients(self.lists.values(ranks), samples)

    def monitored(self, ranks: Integers) -> float:
        """Return the monitored number of an assignment (n,), on all data."""
        self._count(1)
        return self.model_loss.monitored(self.lists.values(ranks))
