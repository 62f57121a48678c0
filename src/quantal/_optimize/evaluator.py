"""An evaluator computes whole losses, counts them, and offers them to the incumbent."""

from collections.abc import Callable

from quantal._optimize.budget import Spending
from quantal._optimize.incumbent import Incumbent
from quantal._optimize.remembered_losses import RememberedLosses
from quantal.objectives.problem import Floats, Integers


class Evaluator:
    """An evaluator computes the losses of assignments and charges them to a budget.

    Args:
        uncounted_losses: Takes codes (batch, n) to losses (batch,).
        spending: The budget that pays.
        incumbent: The best assignment so far.
    """

    def __init__(
        self,
        uncounted_losses: Callable[[Integers], Floats],
        spending: Spending,
        incumbent: Incumbent,
    ) -> None:
        self.uncounted_losses = uncounted_losses
        self.spending, self.incumbent = spending, incumbent

    def losses(self, codes: Integers) -> Floats:
        """Return the losses (batch,) of codes (batch, n)."""
        self.spending.count(len(codes))
        return self.uncounted_losses(codes)

    def loss(self, codes: Integers) -> float:
        """Return the loss of one assignment (n,)."""
        return float(self.losses(codes[None])[0])

    def consider(self, codes: Integers) -> None:
        """Evaluate an assignment (n,) and offer it to the incumbent."""
        self.incumbent.offer(codes, self.loss(codes))

    def remember(self) -> None:
        """Compute the loss of an assignment once from now on, and look it up afterwards."""
        self.uncounted_losses = RememberedLosses(self.uncounted_losses, self.spending)
