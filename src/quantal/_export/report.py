"""Report an export: what was written, and how near it is to the model."""

import dataclasses
import math
import pathlib
from collections.abc import Sequence
from typing import Any

import keras

from quantal._core.table import Column, Table, frame
from quantal._core.views import Views, plain


@dataclasses.dataclass(frozen=True)
class Figures:
    """Figures say what an exported model takes.

    Attributes:
        bytes: The size of all its files together.
        milliseconds: Median time of a call with all inputs, on one thread; None where
            it was not run.
        memory: Bytes that the runtime holds after loading and one call; None where it
            was not run.
    """

    bytes: int
    milliseconds: float | None = None
    memory: int | None = None


@dataclasses.dataclass(frozen=True)
class Report(Views):
    """A report says what was exported and how near it is to the model; it prints as a table.

    Attributes:
        target: The target's name.
        paths: The files written.
        weights: The count of numbers in the model's weights.
        figures: What the exported model takes.
        floats: What the same model with float weights takes; None where there is none
            to compare with, or it was not run.
        largest: Largest difference of an output from Keras's, in units of the root mean
            square of the outputs; None where it was not run.
        mean: The mean difference, in the same units.
        bound: The largest difference that is allowed: the target's, or more where Keras itself
            varies more.
        default: The largest difference at the runtime's defaults, where these are another
            precision than float32, in which `largest` is measured; else None.
        remark: Why it was not run, or what else is to know, or empty.
    """

    target: str
    paths: list[pathlib.Path]
    weights: int
    figures: Figures
    floats: Figures | None = None
    largest: float | None = None
    mean: float | None = None
    bound: float | None = None
    default: float | None = None
    remark: str = ""

    def table(self) -> Table:
        """Return the report as a table, with the differences below it."""
        figures = self._figures()
        columns = [Column("", ""), *(Column(name, align="right") for name in figures)]
        footer = []
        if self.largest is not None:
            footer.append(
                f"difference to Keras: largest {self.largest:.2g}, mean {self.mean:.2g} of the "
                f"outputs' spread (bound {self.bound:g})"
            )
        if self.remark:
            footer.append(self.remark)
        if len(self.paths) > 1:
            footer.append(f"files: {', '.join(path.name for path in self.paths)}")
        return Table(columns, self._rows(list(figures.values())), footer=footer)

    def to_dict(self) -> dict[str, Any]:
        """Return the report as data that JSON can hold."""
        return plain(dataclasses.asdict(self))

    def to_frame(self) -> Any:
        """Return a `pandas.DataFrame` with a row for the exported model, and one for floats.

        Raises:
            ImportError: pandas is not installed.
        """
        figures = self._figures()
        names = [field.name for field in dataclasses.fields(Figures)]
        columns = {name: [getattr(each, name) for each in figures.values()] for name in names}
        return frame({"model": list(figures), **columns})

    def _figures(self) -> dict[str, Figures]:
        figures = {self.target: self.figures}
        return figures if self.floats is None else {**figures, "as floats": self.floats}

    def _rows(self, columns: list[Figures]) -> list[list[str]]:
        weights = max(self.weights, 1)
        return [
            ["bytes", *(f"{f.bytes:,}" for f in columns)],
            ["bits a weight", *(f"{8 * f.bytes / weights:.3f}" for f in columns)],
            ["milliseconds", *(_in_units(f.milliseconds, 1) for f in columns)],
            ["memory, MB", *(_in_units(f.memory, 1e6) for f in columns)],
        ]


def number_of_weights(model: keras.Model) -> int:
    """Return the count of numbers in a model's weights."""
    return sum(math.prod(variable.shape) for variable in model.variables)


def size_of(paths: Sequence[pathlib.Path]) -> int:
    """Return the size of files together, in bytes."""
    return sum(path.stat().st_size for path in paths)


def _in_units(number: float | None, unit: float) -> str:
    return "-" if number is None else f"{number / unit:.2f}"
