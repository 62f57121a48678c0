"""The incumbent is the best assignment so far."""

import math

from quantal._optimize.budget import Spending
from quantal.objectives.problem import Integers


class Incumbent:
    """An incumbent is the best assignment so far, with its loss and how it was reached.

    Args:
        codes: The assignment that stands until a better one is offered, (n,).
        spending: Measures when each improvement comes.

    Attributes:
        codes: The best assignment so far, (n,).
        loss: Its loss; infinity before the first offer.
        history: The pairs (seconds, loss) of each improvement.
    """

    def __init__(self, codes: Integers, spending: Spending) -> None:
        self._spending = spending
        self.codes, self.loss = codes.copy(), math.inf
        self.history: list[tuple[float, float]] = []

    def restate(self, codes: Integers, loss: float) -> None:
        """Take an assignment (n,) whatever its loss, because the loss has become another one."""
        improves = loss < self.loss
        self.codes, self.loss = codes.copy(), loss
        if improves:
            self.history.append((self._spending.seconds, loss))

    def offer(self, codes: Integers, loss: float) -> bool:
        """Take an assignment (n,) if its loss is lower; return whether it was taken."""
        if not loss < self.loss:
            return False
        self.codes, self.loss = codes.copy(), loss
        self.history.append((self._spending.seconds, loss))
        return True
