"""Trials of a sweep that differ in their seed alone are one cell of its table."""

import dataclasses
import statistics

from quantal._sweep.plan import FREE


@dataclasses.dataclass(frozen=True)
class SweepCell:
    """A cell has what one list with one estimator and one learning rate has reached.

    Attributes:
        values: The name of the list; "float" for free floats.
        estimator: The name of the estimator.
        learning_rate: The learning rate; None for the one that the model is compiled with.
        scores: The metric for each seed that ended with a number.
        bytes: The mean size of the files that `quantal.save` writes; None without any.
        failures: How many seeds ended without a number.
        note: Why they did.
    """

    values: str
    estimator: str
    learning_rate: float | None
    scores: tuple[float, ...]
    bytes: float | None
    failures: int = 0
    note: str = ""

    @property
    def is_free(self) -> bool:
        """Whether the weights are free floats."""
        return self.values == FREE

    @property
    def mean(self) -> float:
        """The mean score of the seeds."""
        return statistics.fmean(self.scores)

    @property
    def spread(self) -> float | None:
        """The standard deviation of the scores from seed to seed; None of fewer than two."""
        return statistics.stdev(self.scores) if len(self.scores) > 1 else None

    @property
    def score_text(self) -> str:
        """The mean score, with the spread where there is one."""
        if not self.scores:
            return "-"
        return f"{self.mean:.4f}" + ("" if self.spread is None else f" ± {self.spread:.4f}")
