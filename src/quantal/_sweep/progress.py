"""A sweep says after each trial what it has reached, and how much time is left."""

import sys
import time

from quantal._sweep.plan import Trial
from quantal._sweep.training import Goal, Outcome

MINUTE, HOUR = 60, 3600


class SweepProgress:
    """The progress of a sweep is a line for each trial.

    Args:
        planned: How many trials there are.
        done: How many of them are done already, in an earlier run.
        verbose: 0 shows nothing.
    """

    def __init__(self, planned: int, done: int, verbose: int) -> None:
        self._planned, self._done, self._verbose = planned, done, verbose
        self._first, self._begin = done, time.monotonic()

    def begin(self, file: str | None) -> None:
        """Say where the sweep goes on, if it does."""
        if self._done:
            self._say(f"{file}: {self._done} of {self._planned} trials are done already")

    def waits(self, trial: Trial) -> None:
        """Say that the sweep waits for a trial that another process runs."""
        self._say(f"waiting for another process, which runs {trial}")

    def end_of(self, trial: Trial, outcome: Outcome, goal: Goal | None, done: int) -> None:
        """Say what a trial has reached, and how many are done, in other processes, too."""
        self._done = done
        reached = outcome.note
        if not reached and goal is not None:
            score = outcome.metrics[goal.metric]
            reached = f"{goal.metric} {score:.4f} in {outcome.bytes:,} bytes"
        self._say(f"{self._done} of {self._planned}  {trial}: {reached}{self._left()}")

    def interrupted(self, file: str | None) -> None:
        """Say that the sweep was interrupted, and how it can go on."""
        how = f"; the same call goes on from {file}" if file else "; with file= it could go on"
        self._say(f"interrupted: {self._done} of {self._planned} trials are done{how}")

    def _left(self) -> str:
        """Return how much time is left, by the mean of the trials of this run."""
        left = self._planned - self._done
        if not left:
            return ""
        mean = (time.monotonic() - self._begin) / (self._done - self._first)
        return f"; about {duration(mean * left)} left"

    def _say(self, line: str) -> None:
        if self._verbose:
            sys.stdout.write(f"{line}\n")
            sys.stdout.flush()


def duration(seconds: float) -> str:
    """Return a time in words, rounded.

    >>> duration(4.2), duration(150), duration(7000)
    ('4 s', '2 min', '1.9 h')
    """
    if seconds < MINUTE:
        return f"{seconds:.0f} s"
    return f"{seconds / MINUTE:.0f} min" if seconds < HOUR else f"{seconds / HOUR:.1f} h"
