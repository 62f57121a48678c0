"""The result of a sweep: its trials, what they say for each list, and advice."""

import csv
import dataclasses
import io
import itertools
import math
import os
import statistics
from typing import Any

from quantal._core.table import Column, Table, frame
from quantal._core.views import Views
from quantal._storage.atomic import replace_file
from quantal._sweep.advice import advice_on
from quantal._sweep.cell import SweepCell
from quantal._sweep.plan import FREE, Trial
from quantal._sweep.training import Goal, Outcome

_AS_COMPILED = "as compiled"


@dataclasses.dataclass(frozen=True)
class SweepRow:
    """A row says what one trial has reached.

    Attributes:
        values: The name of the list; "float" for free floats.
        estimator: The name of the estimator; "-" for free floats.
        learning_rate: The learning rate; None for the one that the model is compiled with.
        seed: The seed.
        score: The metric by which trials are compared, on the validation data; None after a
            failure.
        bytes: The size of the file that `quantal.save` writes; None after a failure.
        metrics: All that `evaluate` returned on the validation data.
        seconds: The time that training took, which no two runs share.
        note: Why there is no score; empty where there is one.
    """

    values: str
    estimator: str
    learning_rate: float | None
    seed: int
    score: float | None
    bytes: int | None
    metrics: dict[str, float]
    seconds: float = dataclasses.field(compare=False)
    note: str = ""

    @classmethod
    def of(cls, trial: Trial, outcome: Outcome, goal: Goal) -> "SweepRow":
        """Return the row of a trial."""
        return cls(
            values=trial.values,
            estimator=trial.estimator,
            learning_rate=trial.learning_rate,
            seed=trial.seed,
            score=outcome.metrics.get(goal.metric),
            bytes=outcome.bytes if outcome.metrics else None,
            metrics=outcome.metrics,
            seconds=outcome.seconds,
            note=outcome.note,
        )


@dataclasses.dataclass(frozen=True)
class SweepResult(Views):
    """The result of a sweep has its trials; `str` draws them as a table, with advice below.

    A notebook shows it as a table; `to_frame`, `to_csv` and `to_dict` give every trial.

    Attributes:
        rows: One `SweepRow` for each trial that is done, list by list.
        metric: The metric by which trials are compared.
        maximize: Whether more of it is better.
        planned: How many trials the sweep has; more than rows where it was interrupted.
    """

    rows: tuple[SweepRow, ...]
    metric: str
    maximize: bool
    planned: int

    @property
    def cells(self) -> tuple[SweepCell, ...]:
        """The trials that differ in their seed alone, taken together."""

        def key(row: SweepRow) -> tuple[str, str, float | None]:
            return row.values, row.estimator, row.learning_rate

        return tuple(_cell(list(rows)) for _, rows in itertools.groupby(self.rows, key=key))

    @property
    def advice(self) -> str:
        """One sentence about which list to take, as far as the numbers say it."""
        return advice_on(self.cells, self.metric, self.maximize, self.planned - len(self.rows))

    def to_dict(self) -> dict[str, Any]:
        """Return the result as data that JSON can hold."""
        return {
            "metric": self.metric,
            "maximize": self.maximize,
            "planned": self.planned,
            "rows": [dataclasses.asdict(row) for row in self.rows],
            "advice": self.advice,
        }

    def to_frame(self) -> Any:
        """Return the trials as a `pandas.DataFrame`, one a row, with a column for each metric.

        Raises:
            ImportError: pandas is not installed.
        """
        heads, *rows = self._records()
        return frame({head: [row[i] for row in rows] for i, head in enumerate(heads)})

    def to_csv(self, path: str | os.PathLike[str]) -> None:
        """Write the trials as a table of comma-separated values, one a line.

        Args:
            path: The file, which is replaced as a whole.

        Raises:
            OSError: It cannot be written.
        """
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows(self._records())
        with replace_file(path) as stream:
            stream.write(text.getvalue().encode())

    def picture(self) -> Any:
        """Draw the metric over the bytes of the file, a point for each list, estimator and rate.

        A bar goes from the lowest to the highest seed, and the line along the lists that none is
        both smaller and better than: see `quantal.plots.plot_sizes`.

        Returns:
            A matplotlib figure; `figure.savefig("sweep.png")` writes it.

        Raises:
            ImportError: matplotlib is not installed.
        """
        from quantal.plots.sizes import plot_sizes

        several = len({row.estimator for row in self.rows if row.values != FREE}) > 1
        rates = len({row.learning_rate for row in self.rows}) > 1
        points: list[tuple[str, float, float]] = []
        for row in self.rows:
            if row.score is not None and row.bytes is not None:
                points.append((_label(row, several, rates), float(row.bytes), row.score))
        title = f"{self.metric} on validation data over bytes of the file"
        return plot_sizes(points, measure=self.metric, maximize=self.maximize, title=title)

    def table(self) -> Table:
        """Return a table of the cells, without columns that would say the same in each row."""
        cells = self.cells
        columns: list[tuple[Column, list[Any]]] = [
            (Column("values", shorten="end"), [cell.values for cell in cells]),
            (Column("estimator", shorten="end"), [cell.estimator for cell in cells]),
            (
                Column("learning rate", align="right"),
                [_rate(cell.learning_rate) for cell in cells],
            ),
            (Column("seeds", align="right"), [len(cell.scores) for cell in cells]),
            (Column(self.metric, align="right"), [cell.score_text for cell in cells]),
            (Column("bytes", show="{:,.0f}".format, align="right"), [c.bytes for c in cells]),
            (Column("note", shorten="end"), [cell.note for cell in cells]),
        ]
        dull = {"-", _AS_COMPILED, "auto", ""}
        shown = [
            (column, entries)
            for column, entries in columns
            if not (column.name in ("estimator", "learning rate", "note") and set(entries) <= dull)
        ]
        rows = list(zip(*(entries for _, entries in shown), strict=True))
        done = f"{len(self.rows)}"
        if len(self.rows) < self.planned:
            done += f" of {self.planned}"
        noun = "trial" if self.planned == 1 else "trials"
        title = f"{done} {noun}, {self.metric} on validation data"
        return Table([column for column, _ in shown], rows, title, [self.advice])

    def _records(self) -> list[list[Any]]:
        """Return the heads and the rows of a table of trials."""
        names = list(dict.fromkeys(name for row in self.rows for name in row.metrics))
        fields = ["values", "estimator", "learning_rate", "seed"]
        heads = [*fields, *names, "bytes", "seconds", "note"]
        rows = [
            [
                *(getattr(row, field) for field in fields),
                *(row.metrics.get(name) for name in names),
                row.bytes,
                round(row.seconds, 3),
                row.note,
            ]
            for row in self.rows
        ]
        return [heads, *rows]


def _label(row: SweepRow, with_estimator: bool, with_rate: bool) -> str:
    """Return what a picture calls a trial: trials of the same label are one point."""
    parts = [row.values]
    if with_estimator and row.values != FREE:
        parts.append(row.estimator)
    if with_rate:
        parts.append(_rate(row.learning_rate))
    return ", ".join(parts)


def _rate(rate: float | None) -> str:
    return _AS_COMPILED if rate is None else f"{rate:g}"


def _cell(rows: list[SweepRow]) -> SweepCell:
    """Return trials that differ in their seed alone as one cell."""
    sizes = [row.bytes for row in rows if row.bytes is not None]
    notes = list(dict.fromkeys(row.note for row in rows if row.note))
    scores = [row.score for row in rows if row.score is not None and math.isfinite(row.score)]
    first = rows[0]
    return SweepCell(
        values=first.values,
        estimator=first.estimator,
        learning_rate=first.learning_rate,
        scores=tuple(scores),
        bytes=statistics.fmean(sizes) if sizes else None,
        failures=len(rows) - len(scores),
        note="; ".join(notes),
    )
