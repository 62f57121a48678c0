"""The validation objective decides which assignment polishing keeps."""

from collections.abc import Callable
from typing import Any, NamedTuple

from numpy.typing import NDArray

from quantal._optimize.budget import Spending
from quantal.objectives.problem import Integers

Measure = Callable[[Integers], float]
"""A measure takes an assignment (n,) to a number that is lower for a better one."""

Numbers = tuple[NDArray[Any], ...]
"""The numbers of some variables, an array for each."""

STAGES = 40
"""Assignments are offered for keeping at so many stages of the budget: often enough to lose little
to an interrupt or to noise that is learned, and seldom enough to cost little."""


class Kept(NamedTuple):
    """A kept assignment comes with its loss on the data given and on the validation data.

    Attributes:
        ranks: The assignment, (n,).
        loss: Its monitored number on the data given.
        validation: The same on the validation data; None without such data.
        variables: The numbers of the continuous variables with which these were measured.
    """

    ranks: Integers
    loss: float
    validation: float | None
    variables: Numbers = ()


class Selection:
    """A selection keeps the best of the assignments that are offered to it.

    It keeps the one with the lowest loss on the validation data, or without these on the data
    given; and none whose loss on the data given is higher than at the start.

    Args:
        start: The assignment at the start.
        measure: Measures an assignment on the data given.
        validation: Measures it on the validation data; None without such data.
        on_kept: Is called with each assignment that is kept from now on, and its loss on
            the data given.
        variables: Returns the numbers that the continuous variables have now.
    """

    def __init__(
        self,
        start: Kept,
        measure: Measure,
        validation: Measure | None,
        on_kept: Callable[[Integers, float], object],
        variables: Callable[[], Numbers] = tuple,
    ) -> None:
        self.kept, self._start_loss = start, start.loss
        self._measure, self.validation, self._on_kept = measure, validation, on_kept
        self._variables = variables

    def offer(self, ranks: Integers, loss: float | None = None) -> bool:
        """Keep an assignment if it is better in what counts; return whether it was kept.

        Args:
            ranks: The assignment.
            loss: Its loss on the data given, if it is known.
        """
        validation = None
        if self.validation is not None and self.kept.validation is not None:
            validation = self.validation(ranks)
            if not validation < self.kept.validation:
                return False
        if loss is None:
            loss = self._measure(ranks)
        if not loss <= self._start_loss:
            return False
        if self.validation is None and not loss < self.kept.loss:
            return False
        self.kept = Kept(ranks.copy(), loss, validation, self._variables())
        self._on_kept(self.kept.ranks, loss)
        return True


class Stages:
    """Stages divide a budget evenly and say when the next one has begun.

    Args:
        spending: What is used of the budget.
        count: The number of stages.
    """

    def __init__(self, spending: Spending, count: int = STAGES) -> None:
        self._spending, self._count, self._current = spending, count, 0

    def next_begun(self) -> bool:
        """Return whether a later stage has begun since the last question."""
        stage = int(self._count * self._spending.fraction_used)
        begun = stage > self._current
        self._current = max(stage, self._current)
        return begun
