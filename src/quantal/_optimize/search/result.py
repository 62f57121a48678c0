"""A search reports the best vector, and what is proved of it."""

import contextlib
import dataclasses
from typing import Any

from numpy.typing import NDArray

from quantal._optimize.search.task import Task
from quantal.objectives._algorithms.solution import Solution
from quantal.objectives.problem import Integers


@dataclasses.dataclass(frozen=True)
class SearchResult:
    """A search result holds the best vector that was reached, and what is known of it.

    Attributes:
        vector: The vector, float64 or complex128, (n,).
        codes: The positions of its values in their lists, (n,).
        loss: Its loss.
        bound: No vector has a lower loss; None where nothing is known.
        proved: Whether no vector is better: all were evaluated, an exact method says so, or
            the bound is met. For a mixed-integer program (`Minimax`), none is better by more
            than some millionths.
        history: The pairs (seconds, loss) of each better vector.
        evaluations: The number of losses and differences of losses that were computed.
        note: What would make the search faster, such as an objective with a structure; empty
            where nothing is known.
    """

    vector: NDArray[Any]
    codes: Integers
    loss: float
    bound: float | None
    proved: bool
    history: list[tuple[float, float]]
    evaluations: int
    note: str = ""

    @property
    def gap(self) -> float | None:
        """Return how far the loss is above the bound; None where there is none."""
        return None if self.bound is None else self.loss - self.bound

    def __str__(self) -> str:
        if self.proved:
            quality = "proved"
        else:
            quality = "no bound" if self.bound is None else f"bound {self.bound:.9g}"
        seconds = self.history[-1][0] if self.history else 0.0
        return (
            f"loss {self.loss:.9g} ({quality}), reached after {seconds:.2f} s, "
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
    return SearchResult(
        task.groups.values(codes), task.groups.codes(codes), loss, bound, proved,
        task.incumbent.history, task.spending.evaluations, " ".join(task.notes),
    )  # fmt: skip
