"""A method improves an assignment within a budget; all methods have one interface."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Protocol

from quantal._optimize.budget import Spendable
from quantal._optimize.incumbent import Incumbent
from quantal.objectives._algorithms.solution import Solution
from quantal.objectives.problem import Integers

OnImprovement = Callable[[Integers, float], Any]
"""A method calls such a function with each better assignment (n,) and its loss."""


class Method(Protocol):
    """A method improves an assignment within a budget."""

    def run(self, start: Integers, budget: Spendable, on_improvement: OnImprovement) -> Solution:
        """Improve an assignment until the method has no more to do, or no budget.

        Args:
            start: The assignment to begin with, (n,); it is not changed.
            budget: What the method may spend, and has to count.
            on_improvement: Is called with each better assignment and its loss.

        Returns:
            The best assignment of this run, and what is proved.
        """


def run_in_turn(
    methods: Iterable[Method],
    incumbent: Incumbent,
    budget: Spendable,
    on_improvement: OnImprovement,
) -> Iterator[Solution]:
    """Run methods one after the other, each from the incumbent, until one is complete.

    Yields:
        Each solution that has a bound or is complete, as soon as it is known.
    """
    for method in methods:
        solution = method.run(incumbent.codes.copy(), budget, on_improvement)
        if solution.bound is not None or solution.complete:
            yield solution
        if solution.complete:
            return
