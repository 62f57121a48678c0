"""A report says what `quantal.polish` changed."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class PolishReport:
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
