"""A line of progress shows what is used of the budget, and the best loss."""

import sys
import time
from collections.abc import Callable

from quantal._optimize.budget import Clock, Spending
from quantal._optimize.incumbent import Incumbent

_INTERVAL = 0.5
"""Seconds between two lines: more often nobody can read them."""


class Progress:
    """A progress line is written again and again, over itself, while an optimization runs.

    Args:
        spending: What is used of the budget.
        incumbent: The best assignment, whose loss is shown.
        verbose: 0 shows nothing.
        clock: The clock that says when the next line is due.
        state: Returns what the line says besides; None for the incumbent's loss.
    """

    def __init__(
        self,
        spending: Spending,
        incumbent: Incumbent,
        verbose: int,
        clock: Clock = time.perf_counter,
        state: Callable[[], str] | None = None,
    ) -> None:
        self._spending, self._verbose = spending, verbose
        self._state = state or (lambda: f"loss {incumbent.loss:.9g}")
        self._clock, self._next = clock, clock()
        self._width = 0
        if verbose:
            spending.watch(self.show)

    def show(self) -> None:
        """Write the line, if the last one is old enough."""
        if self._clock() >= self._next:
            self._next = self._clock() + _INTERVAL
            self._write("")

    def end(self) -> None:
        """Write the last line."""
        if self._verbose:
            self._write("\n")

    def _write(self, end: str) -> None:
        spending, limit = self._spending, self._spending.budget
        parts = [f"{spending.seconds:.1f}" + _of(limit.seconds) + " s"]
        if limit.evaluations is not None:
            parts.append(f"{spending.evaluations:,}{_of(limit.evaluations)} evaluations")
        line = ", ".join([*parts, self._state()])
        # Blanks cover what is left of a longer line.
        sys.stdout.write("\r" + line.ljust(self._width) + end)
        sys.stdout.flush()
        self._width = len(line)


def _of(limit: float | None) -> str:
    return "" if limit is None else f" of {limit:,g}"
