"""A search reports the best vector, and what is proved of it."""

import contextlib
import dataclasses
from typing import Any

from numpy.typing import NDArray

from quantal._core.table import Table, frame
from quantal._core.views import Views, plain
from quantal._optimize.search.task import Task
from quantal.objectives._algorithms.solution import Solution
from quantal.objectives.problem import Integers


@dataclasses.dataclass(frozen=True)
class SearchResult(Views):
    """A search result holds the best vector that was reached, and what is known of it.

    `print` says it on a line, a notebook shows a table; `to_json` writes it down, and `to_frame`
    gives the elements.

    Attributes:
        vector: The vector, float64 or complex128, (n,).
        codes: The positions of its values in their lists, (n,).
        loss: Its loss; with `maximize`, what was to be large.
        bound: No vector has a lower loss, or with `maximize` a higher one; None where nothing is
            known.
        proved: Whether no vector is better: all were evaluated, an exact method says so, or
            the bound is met. For a mixed-integer program (`Minimax`), none is better by more
            than some millionths.
        history: The pairs (seconds, loss) of each better vector.
        evaluations: The number of losses and differences of losses that were computed.
        note: What would make the search faster, such as an objective with a structure; empty
            where nothing is known.
        values: The list of all elements; a list of lists where elements have their own.
        maximize: Whether the search was for the largest number.
    """

    vector: NDArray[Any]
    codes: Integers
    loss: float
    bound: float | None
    proved: bool
    history: list[tuple[float, float]]
    evaluations: int
    note: str = ""
    values: list[Any] = dataclasses.field(default_factory=list)
    maximize: bool = False

    @property
    def gap(self) -> float | None:
        """Return how far the loss is from the bound, at least 0; None where there is none."""
        if self.bound is None:
            return None
        return self.bound - self.loss if self.maximize else self.loss - self.bound

    @property
    def seconds(self) -> float:
        """Return the seconds after which the vector was reached."""
        return self.history[-1][0] if self.history else 0.0

    def to_dict(self) -> dict[str, Any]:
        """Return the result as data that JSON can hold; complex numbers as real and imag."""
        data = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return plain({**data, "gap": self.gap})

    def to_frame(self) -> Any:
        """Return a `pandas.DataFrame` with a row for each element: its value and its code.

        Raises:
            ImportError: pandas is not installed.
        """
        return frame({"value": self.vector.tolist(), "code": self.codes.tolist()})

    def table(self) -> Table:
        """Return what is known as a table."""
        facts = [
            (self._name, f"{self.loss:.9g}"),
            ("proved", "yes" if self.proved else "no"),
            ("bound", None if self.bound is None else f"{self.bound:.9g}"),
            ("vector", ", ".join(f"{number:g}" for number in self.vector.tolist())),
            ("reached after", f"{self.seconds:.2f} s"),
            ("evaluations", f"{self.evaluations:,}"),
        ]
        return Table.of_facts(facts, footer=[self.note] if self.note else [])

    @property
    def _name(self) -> str:
        return "value" if self.maximize else "loss"

    def __str__(self) -> str:
        if self.proved:
            quality = "proved"
        else:
            quality = "no bound" if self.bound is None else f"bound {self.bound:.9g}"
        return (
            f"{self._name} {self.loss:.9g} ({quality}), reached after {self.seconds:.2f} s, "
            f"{self.evaluations:,} evaluations{f'. {self.note}' if self.note else ''}"
        )


def conclude(task: Task, solution: Solution) -> SearchResult:
    """Return the result of a search from its incumbent and what the last method proved."""
    codes = task.incumbent.codes
    loss = task.incumbent.loss
    with contextlib.suppress(KeyboardInterrupt):
        loss = task.evaluator.loss(codes)
    bound, proved, rounding = solution.bound, solution.proved, 0.0
    if task.structure is not None:
        rounding = task.structure.rounding(task.problem)
        if bound is None and not proved:
            # Without the extra `search` there is no relaxation.
            with contextlib.suppress(KeyboardInterrupt, ImportError):
                bound = task.structure.bound(task.problem)
    proved = proved or bool(bound is not None and loss - bound <= rounding)
    if proved:
        bound = loss if bound is None else min(bound, loss)
    history = task.incumbent.history
    if task.maximizes:
        # 0 minus a number, for 0.0 has no other sign.
        loss, bound = 0.0 - loss, None if bound is None else 0.0 - bound
        history = [(seconds, 0.0 - number) for seconds, number in history]
    return SearchResult(
        task.groups.values(codes), task.groups.codes(codes), loss, bound, proved, history,
        task.spending.evaluations, " ".join(task.notes), task.values, task.maximizes,
    )  # fmt: skip
