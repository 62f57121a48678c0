"""A model all of whose codes are frozen is polished by continuous steps alone."""

from quantal._optimize.budget import Spending
from quantal._optimize.methods.method import OnImprovement
from quantal._optimize.polish.state import PolishState
from quantal.objectives._algorithms.solution import Solution
from quantal.objectives.problem import Integers


class VariablesAlone:
    """Variables alone are trained until the budget is used up or nothing helps any more.

    Args:
        state: What the methods of polishing share.
    """

    def __init__(self, state: PolishState) -> None:
        self._state = state

    def run(self, start: Integers, budget: Spending, on_improvement: OnImprovement) -> Solution:
        """Train while a block is kept.

        Args:
            start: The assignment, which stays.
            budget: What polishing may spend.
            on_improvement: Is not called: the assignment stays.
        """
        while budget.has_budget() and self._state.train_continuous():
            pass
        return Solution(start)

    @property
    def reached(self) -> Integers:
        """Return the assignment, which stays."""
        return self._state.selection.kept.ranks

    def offer_last(self) -> None:
        """Offer nothing: what is kept is what was reached."""
