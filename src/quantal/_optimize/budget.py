"""A budget limits an optimization, and its spending counts what has been used of it."""

import abc
import dataclasses
import math
import numbers
import time
from collections.abc import Callable

Clock = Callable[[], float]
"""A clock returns seconds that only grow, as `time.perf_counter` does."""


@dataclasses.dataclass(frozen=True)
class Budget:
    """A budget limits how long an optimization runs: by seconds, by evaluations, or by both.

    A budget of seconds uses a fast machine fully. A budget of evaluations gives the same result
    on each machine: with it and without seconds, no decision depends on a clock.

    Args:
        seconds: The most seconds, without those of compiling; None for any number.
        evaluations: The most losses and differences of losses that are computed; None for
            any number.

    Raises:
        ValueError: Both are None, or a limit is not above 0.

    >>> Budget(evaluations=1000)
    Budget(seconds=None, evaluations=1000)
    """

    seconds: float | None = None
    evaluations: int | None = None

    def __post_init__(self) -> None:
        if self.seconds is None and self.evaluations is None:
            raise ValueError(
                "Budget has neither seconds nor evaluations. Expected one of them, say seconds=10."
            )
        for name, limit in (("seconds", self.seconds), ("evaluations", self.evaluations)):
            if limit is not None and not (isinstance(limit, numbers.Real) and limit > 0):
                raise ValueError(f"budget has {limit!r} {name}. Expected a number above 0.")

    @classmethod
    def of(cls, budget: "float | Budget") -> "Budget":
        """Return a budget as it is, and a number as a budget of so many seconds."""
        if isinstance(budget, Budget):
            return budget
        if budget is None:
            raise ValueError(
                "budget is None. Expected seconds, or quantal.Budget(evaluations=...)."
            )
        return cls(seconds=budget)


class Spendable(abc.ABC):
    """A spendable tells a method what is left of its budget, and counts what the method uses."""

    @abc.abstractmethod
    def has_budget(self) -> bool:
        """Return whether seconds and evaluations are left."""

    @abc.abstractmethod
    def count(self, evaluations: int) -> None:
        """Add evaluations to those that have been used."""

    @abc.abstractmethod
    def exclude_seconds(self, seconds: float) -> None:
        """Give seconds back that were spent on compiling."""

    @property
    @abc.abstractmethod
    def seconds(self) -> float:
        """Return the seconds since the start."""

    @property
    @abc.abstractmethod
    def seconds_left(self) -> float:
        """Return the seconds that are left; infinity where no seconds are limited."""

    @property
    @abc.abstractmethod
    def evaluations_left(self) -> float:
        """Return the evaluations that are left; infinity where none are limited."""

    def affords(self, evaluations: int, seconds_each: float = 0.0) -> bool:
        """Return whether evaluations fit, and take at most half of the seconds that are left."""
        return (
            evaluations <= self.evaluations_left
            and evaluations * seconds_each <= self.seconds_left / 2
        )

    def capped(self, evaluations: int) -> int:
        """Return how many of some evaluations may still be made, one at least."""
        return int(max(1, min(evaluations, self.evaluations_left)))

    def limited(
        self, reserved_seconds: float = 0.0, condition: Callable[[], bool] = lambda: True
    ) -> "LimitedSpending":
        """Return the same budget for one method, which has to stop earlier.

        Args:
            reserved_seconds: The seconds that have to be left when the method stops.
            condition: The method has no budget once this returns False.
        """
        return LimitedSpending(self, reserved_seconds, condition)


class Spending(Spendable):
    """A spending measures what an optimization has used of its budget.

    Args:
        budget: The limits.
        clock: The clock that measures seconds; another than the computer's in tests.

    Attributes:
        evaluations: The number of evaluations so far.
    """

    def __init__(self, budget: Budget, clock: Clock = time.perf_counter) -> None:
        self.budget, self._clock = budget, clock
        self.evaluations = 0
        self._watchers: list[Callable[[], None]] = []
        self._began = clock()

    def restart_clock(self) -> None:
        """Count seconds from now on: what came before, such as compiling, is not charged."""
        self._began = self._clock()

    def exclude_seconds(self, seconds: float) -> None:
        """Give seconds back that were spent on compiling."""
        self._began += seconds

    def count(self, evaluations: int) -> None:
        """Add evaluations to those that have been used."""
        self.evaluations += evaluations

    def watch(self, watcher: Callable[[], None]) -> None:
        """Call a function at each question for budget: for progress and checkpoints."""
        self._watchers.append(watcher)

    @property
    def seconds(self) -> float:
        """Return the seconds since the start."""
        return self._clock() - self._began

    @property
    def seconds_left(self) -> float:
        """Return the seconds that are left; infinity where no seconds are limited."""
        return math.inf if self.budget.seconds is None else self.budget.seconds - self.seconds

    @property
    def evaluations_left(self) -> float:
        """Return the evaluations that are left; infinity where none are limited."""
        if self.budget.evaluations is None:
            return math.inf
        return self.budget.evaluations - self.evaluations

    @property
    def fraction_used(self) -> float:
        """Return the used share of the budget: of its seconds, or else of its evaluations."""
        if self.budget.seconds is not None:
            return self.seconds / self.budget.seconds
        return self.evaluations / (self.budget.evaluations or 1)

    def has_budget(self) -> bool:
        """Return whether seconds and evaluations are left; call the watchers."""
        for watcher in self._watchers:
            watcher()
        return self.seconds_left > 0 and self.evaluations_left > 0


class LimitedSpending(Spendable):
    """A limited spending is charged to another one, and ends before it.

    Args:
        whole: The spending that pays.
        reserved_seconds: The seconds that have to be left to the whole when this one ends.
        condition: This one has no budget once it returns False.
    """

    def __init__(
        self, whole: Spendable, reserved_seconds: float, condition: Callable[[], bool]
    ) -> None:
        self._whole, self._condition = whole, condition
        self._reserved_seconds = reserved_seconds

    def has_budget(self) -> bool:
        """Return whether the method may go on."""
        return self._whole.has_budget() and self.seconds_left > 0 and self._condition()

    def count(self, evaluations: int) -> None:
        """Add evaluations to those of the whole."""
        self._whole.count(evaluations)

    def exclude_seconds(self, seconds: float) -> None:
        """Give seconds back to the whole."""
        self._whole.exclude_seconds(seconds)

    @property
    def seconds(self) -> float:
        """Return the seconds since the start of the whole."""
        return self._whole.seconds

    @property
    def seconds_left(self) -> float:
        """Return the seconds that are left to this method."""
        return self._whole.seconds_left - self._reserved_seconds

    @property
    def evaluations_left(self) -> float:
        """Return the evaluations that are left to the whole."""
        return self._whole.evaluations_left
