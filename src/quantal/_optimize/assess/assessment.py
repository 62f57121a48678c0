"""An assessment says how good the codes of a model are, in words and in numbers."""

import dataclasses
import html
import textwrap
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from quantal._core.table import WIDTH, Column, Table, frame
from quantal._core.views import Views
from quantal.objectives.problem import Floats, Integers

_ROUNDING = 1e-6
"""Changes of the loss by less than this share of it are roundings of float32."""


class Absorption(NamedTuple):
    """An absorption says that other weights can undo changes of a vector.

    Attributes:
        signs: Whether they undo changes of sign.
        sizes: Whether they undo changes to another value of the same sign.
        names: The weights that do.
        listed: Whether one of these weights is on a list itself.
    """

    signs: bool
    sizes: bool
    names: tuple[str, ...]
    listed: bool


class Spread(NamedTuple):
    """A spread is the mean and the standard deviation of several losses."""

    mean: float
    deviation: float

    def __str__(self) -> str:
        return f"{self.mean:.4g} ± {self.deviation:.2g}"


@dataclasses.dataclass(frozen=True)
class ParameterAssessment:
    """A parameter's assessment says what changing one element at a time does to the loss.

    Arrays have an entry for each element that was assessed, in ascending order of positions.

    Attributes:
        path: The path of the weight.
        elements: The number of its elements.
        positions: The positions of the assessed elements in the flattened weight, (m,).
        values: The values that they have, (m,).
        best_values: For each the other value with the lowest loss among those tried, (m,).
        changes: The change of the loss with that value, (m,); negative where it is lower.
        below: The change of the loss with the next smaller value; NaN where there is none, (m,).
        above: The same with the next larger value.
        random: The loss with random codes in this weight, all others as they are.
        constant: The loss with its most used value in all elements, all others as they are.
        least_change: Smaller changes of the loss are roundings.
        agreement: The share of elements in which runs with other seeds agree; None where it was
            not asked for.
        by_chance: The same for independent runs that use values as often as these.
        absorption: The weights that undo changes of this vector; None where none were seen.
    """

    path: str
    elements: int
    positions: Integers
    values: NDArray[np.float32]
    best_values: NDArray[np.float32]
    changes: Floats
    below: Floats
    above: Floats
    random: Spread
    constant: float
    least_change: float
    agreement: float | None = None
    by_chance: float | None = None
    absorption: Absorption | None = None

    @property
    def assessed(self) -> int:
        """The number of elements that were assessed."""
        return len(self.positions)

    @property
    def helpful(self) -> int:
        """The number of assessed elements for which another value lowers the loss."""
        return int((self.changes < -self.least_change).sum())

    @property
    def indifferent(self) -> int:
        """The number of assessed elements that have another value that is as good."""
        return int((np.abs(self.changes) <= self.least_change).sum())

    @property
    def best_change(self) -> float:
        """The change of the loss by the best single change; NaN where none was assessed."""
        return float(self.changes.min()) if len(self.changes) else float("nan")


@dataclasses.dataclass(frozen=True)
class Assessment(Views):
    """An assessment says how good the codes of a model are: `print` it, or read its parts.

    Attributes:
        loss: The loss of the model as it is, on the data given.
        parameters: A `ParameterAssessment` for each listed weight.
        random: The loss with random codes in all these weights.
        constant: The loss with the most used value of each weight in all its elements.
        free: The loss with free floats in place of the values, after a fit by gradients on the
            data given; None where there are too many elements for the samples, or for a short fit.
        samples: The number of samples.
        evaluations: The number of losses that were evaluated.
        seed_losses: The losses of the models that were trained again; empty where it was not
            asked for.
    """

    loss: float
    parameters: tuple[ParameterAssessment, ...]
    random: Spread
    constant: float
    free: float | None
    samples: int
    evaluations: int
    seed_losses: tuple[float, ...] = ()

    @property
    def elements(self) -> int:
        """The number of elements of all these weights."""
        return sum(parameter.elements for parameter in self.parameters)

    @property
    def assessed(self) -> int:
        """The number of elements that were assessed; fewer are a random sample."""
        return sum(parameter.assessed for parameter in self.parameters)

    @property
    def helpful(self) -> int:
        """The number of assessed elements for which another value lowers the loss."""
        return sum(parameter.helpful for parameter in self.parameters)

    @property
    def best_change(self) -> float:
        """The change of the loss by the best single change."""
        return min((p.best_change for p in self.parameters if p.assessed), default=float("nan"))

    def headline(self) -> str:
        """Return what single changes would bring, in a sentence."""
        of_all = f"{self.assessed:,}" + (
            f" elements, a random sample of {self.elements:,}," if self._is_sample else " elements"
        )
        if not self.assessed:
            return (
                f"The loss is {self.loss:.4g}. No element was assessed: the budget was too small."
            )
        if not self.helpful:
            return (
                f"No single change lowers the loss of {self.loss:.4g}: none of {of_all} has a "
                "better value, with the others as they are."
            )
        lower = self.loss + self.best_change
        share = f" ({_percent(self.best_change / abs(self.loss))})" if self.loss else ""
        return (
            f"For {self.helpful:,} of {of_all} another value lowers the loss: the best single "
            f"change from {self.loss:.5g} to {lower:.5g}{share}. "
            "quantal.polish makes such changes, with training data."
        )

    def advice(self) -> list[str]:
        """Return what the codes lack, and what to do about it, a sentence or two each."""
        advice = []
        if not self.loss < self.random.mean - 2 * self.random.deviation:
            advice.append("The codes do no better than random ones.")
        return advice + [
            _of_absorption(parameter.path, parameter.absorption)
            for parameter in self.parameters
            if parameter.absorption is not None
        ]

    def remarks(self) -> list[str]:
        """Return with what the loss is compared, and in how much runs agree, in sentences."""
        parts = [
            f"with random codes {self.random}",
            f"with the most used value {self.constant:.4g}",
        ]
        if self.free is not None:
            parts.append(f"with free floats that are fitted to these samples {self.free:.4g}")
        remarks = [f"The loss is {self.loss:.4g}; {', '.join(parts)}."]
        indifferent = sum(parameter.indifferent for parameter in self.parameters)
        if indifferent:
            remarks.append(f"{indifferent:,} of these elements have another value that is as good.")
        remarks += [_of_agreement(p) for p in self.parameters if p.agreement is not None]
        if self.seed_losses:
            losses = ", ".join(f"{loss:.4g}" for loss in self.seed_losses)
            remarks.append(f"The losses of the runs with other seeds are {losses}.")
        return remarks

    def table(self) -> Table:
        """Return a table with a row for each weight.

        `best` and `median` are changes of the loss by single changes; `random codes` and `most
        used` are losses with random codes, or the most used value, in this weight alone.
        """
        columns = [
            Column("weight", shorten="start"),
            Column("assessed", align="right"),
            Column("helpful", "would help", show="{:,}".format, align="right"),
            Column("best_change", "best", show=_signed, align="right"),
            Column("median_change", "median", show=_signed, align="right"),
            Column("random", "random codes", align="right"),
            Column("constant", "most used", show="{:.4g}".format, align="right"),
        ]
        rows = [
            (
                p.path, _of(p.assessed, p.elements), p.helpful,
                p.best_change if p.assessed else None,
                float(np.median(p.changes)) if p.assessed else None, p.random, p.constant,
            )
            for p in self.parameters
        ]  # fmt: skip
        return Table(columns, rows)

    def __str__(self) -> str:
        above, below = [self.headline(), *self.advice()], self.remarks()
        wrapped = [[textwrap.fill(line, WIDTH) for line in lines] for lines in (above, below)]
        return "\n".join([*wrapped[0], self.table().text(), *wrapped[1]])

    def _repr_html_(self) -> str:
        above, below = [self.headline(), *self.advice()], self.remarks()
        lines = [[f"<p>{html.escape(line)}</p>" for line in part] for part in (above, below)]
        return "\n".join([*lines[0], self.table().html(), *lines[1]])

    def __rich__(self) -> Any:
        """Return what rich draws."""
        from rich.console import Group

        return Group(self.headline(), *self.advice(), self.table(), *self.remarks())

    def to_dict(self) -> dict[str, Any]:
        """Return the assessment as data that JSON can hold, with an entry for each element."""
        parameters = []
        for parameter in self.parameters:
            entry = {f.name: getattr(parameter, f.name) for f in dataclasses.fields(parameter)}
            absorption = parameter.absorption
            entry |= {
                "random": parameter.random._asdict(), "helpful": parameter.helpful,
                "absorption": None if absorption is None else absorption._asdict(),
            }  # fmt: skip
            parameters.append(entry)
        return {
            "headline": self.headline(), "advice": self.advice(), "remarks": self.remarks(),
            "loss": self.loss,
            "random": self.random._asdict(), "constant": self.constant, "free": self.free,
            "samples": self.samples, "evaluations": self.evaluations, "helpful": self.helpful,
            "assessed": self.assessed, "elements": self.elements,
            "seed_losses": list(self.seed_losses), "parameters": parameters,
        }  # fmt: skip

    def to_frame(self) -> Any:
        """Return a `pandas.DataFrame` with a row for each assessed element.

        Raises:
            ImportError: pandas is not installed.
        """
        names = ["values", "best_values", "changes", "below", "above"]
        columns: dict[str, Any] = {
            "weight": [p.path for p in self.parameters for _ in p.positions],
            "position": np.concatenate([p.positions for p in self.parameters]),
        }
        for name in names:
            column = name.removesuffix("s")
            columns[column] = np.concatenate([getattr(p, name) for p in self.parameters])
        return frame(columns)

    @property
    def _is_sample(self) -> bool:
        return self.assessed < self.elements


def least_change(loss: float) -> float:
    """Return below which size a change of a loss is a rounding."""
    return _ROUNDING * abs(loss)


def _of(part: int, whole: int) -> str:
    return f"{part:,} of {whole:,}"


def _signed(number: float) -> str:
    return f"{number:+.3g}"


def _percent(share: float) -> str:
    """Return a share in per cent, with two digits, or all before the point."""
    percent = 100 * share
    return f"{percent:,.0f} %" if abs(percent) >= 10 else f"{percent:.2g} %"


def _of_absorption(path: str, absorption: Absorption) -> str:
    """Say which weights undo changes of a vector, and what to do."""
    kinds = [("signs", absorption.signs), ("sizes", absorption.sizes)]
    what = " and ".join(kind for kind, is_absorbed in kinds if is_absorbed)
    names = " and ".join(absorption.names)
    return (
        f"The {what} of {path} cannot be identified: {names} can undo any change of them, with the "
        "same loss. So other seeds give other vectors, and the model is no better for this one. "
        "Leave the vector out, which loses nothing; or, if the vector itself is wanted, "
        f"freeze {names} (trainable=False) with weights that you know, as random ones cost "
        "accuracy, or "
        + ("give it another list," if absorption.listed else "put it on a list,")
        + " one without opposite values."
    )


def _of_agreement(parameter: ParameterAssessment) -> str:
    return (
        f"Runs with other seeds agree in {parameter.agreement:.0%} of the elements of "
        f"{parameter.path}, where chance alone gives {parameter.by_chance:.0%}."
    )
