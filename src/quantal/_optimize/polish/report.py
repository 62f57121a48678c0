"""A report says what `quantal.polish` changed."""

import dataclasses
from typing import Any

from quantal._core.table import Table, frame
from quantal._core.views import Views, plain


@dataclasses.dataclass(frozen=True)
class PolishReport(Views):
    """A report says what polishing changed, and what it cost.

    Attributes:
        loss_before: The loss on the data given, before; with a monitor, its number.
        loss: The same after polishing; never higher.
        validation_before: The loss on the validation data before; None without such data.
        validation: The same after polishing.
        proved: Whether no assignment has a lower loss, for a loss of few elements that was
            measured to be quadratic, with the other weights as they are. The proof is of the
            quadratic function; where the loss was measured, it differed from it by at most 1e-4
            of its range. For other losses there is no bound.
        changed: The number of elements that have another code than before.
        elements: The number of all elements.
        evaluations: The number of losses that were evaluated, each on all or a part of the data,
            those of the validation data included.
        history: The pairs (seconds, loss) of each improvement on the data given.
        continuous_steps: The number of steps of what is not on a list that were kept.
    """

    loss_before: float
    loss: float
    validation_before: float | None
    validation: float | None
    proved: bool
    changed: int
    elements: int
    evaluations: int
    history: list[tuple[float, float]]
    continuous_steps: int = 0

    def __str__(self) -> str:
        text = f"loss {self.loss_before:.6g} -> {self.loss:.6g}" + " (proved)" * self.proved
        if self.validation is not None:
            text += f", validation {self.validation_before:.6g} -> {self.validation:.6g}"
        return (
            f"{text}; {self.changed:,} of {self.elements:,} elements changed, "
            + (f"{self.continuous_steps:,} continuous steps, " if self.continuous_steps else "")
            + f"{self.evaluations:,} evaluations"
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the report as data that JSON can hold."""
        return plain(dataclasses.asdict(self))

    def to_frame(self) -> Any:
        """Return a `pandas.DataFrame` of one row, without the history.

        Raises:
            ImportError: pandas is not installed.
        """
        data = self.to_dict()
        return frame({name: [data[name]] for name in data if name != "history"})

    def table(self) -> Table:
        """Return the report as a table: before, and after."""
        facts = [("loss", f"{self.loss_before:.6g} → {self.loss:.6g}{' (proved)' * self.proved}")]
        if self.validation is not None:
            facts.append(("validation", f"{self.validation_before:.6g} → {self.validation:.6g}"))
        facts.append(("elements changed", f"{self.changed:,} of {self.elements:,}"))
        if self.continuous_steps:
            facts.append(("continuous steps", f"{self.continuous_steps:,}"))
        facts.append(("evaluations", f"{self.evaluations:,}"))
        return Table.of_facts(facts)
