"""Show and write the results of `quantal train`."""

import contextlib
import dataclasses
import functools
import itertools
import pathlib
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
import pandas
import typer
from numpy.typing import NDArray

from quantal._command.backend import RUN_MODEL
from quantal._command.comparison import (
    Comparison,
    Pair,
    Training,
    compare,
    fit,
    on_raw_features,
)
from quantal._command.datasets import Dataset
from quantal._command.errors import CommandError, Interrupted, Unwritable
from quantal._command.scores import answers_of, probability_columns
from quantal._core.numbers.values import Values
from quantal._core.parameter import parameters_of
from quantal._core.table import Column, Table
from quantal._core.tensors.distributed import whole_array
from quantal._core.views import Views
from quantal._optimize.interruption import stop_requests
from quantal._storage.atomic import folder_beside, move_files
from quantal.plots.values import plot_values

DEFAULT_FOLDER = "quantal-run"
FILES = (RUN_MODEL, "predictions.csv", "values.png", "history.csv")
SECONDS_BETWEEN_WRITES = 15.0
"""A run that is killed loses so many seconds of training, and those of a step and of writing:
together less than half a minute."""
MOST_ROWS = 16
"""The longest list of which the table shows every value; of a longer one, the most used."""


def train_pair(
    pair: Pair, dataset: Dataset, training: Training, folder: pathlib.Path, quiet: bool = False
) -> Comparison:
    """Train both models, write the discrete one as it goes, and compare the two.

    Where there is a terminal, a bar shows the progress: on standard error where `quiet` says
    that standard output is for the result alone.

    Raises:
        Interrupted: Ctrl-C or SIGTERM came. What was trained until then is in the folder.
        Unfit: A model predicts NaN or infinity.
        Unwritable: The folder cannot be written at the end.
    """
    models = [on_raw_features(model, dataset) for model in pair]
    stream = sys.stderr if quiet else sys.stdout
    epochs = Epochs()

    def write_discrete() -> None:
        comparison = compare(models[:1], dataset)
        write_files(folder, comparison._replace(history=epochs.rows), dataset)

    with stop_requests() as stop_requested:
        for name, model in pair._asdict().items():
            label = f"Training {name} weights"
            with typer.progressbar(length=training.epochs, label=label, file=stream) as bar:
                callbacks: list[keras.callbacks.Callback] = []
                callbacks.append(Steps(functools.partial(bar.update, 1), stop_requested))
                if model is pair.discrete:
                    callbacks += [epochs, WriteRegularly(write_discrete)]
                fit(model, dataset, training, callbacks)
            if model is pair.discrete:
                write_discrete()
            if stop_requested():
                raise Interrupted(
                    f"interrupted while training {name} weights. {folder} has the discrete model "
                    "as trained until then, and its predictions."
                )
        return compare(models, dataset)._replace(history=epochs.rows)


class Epochs(keras.callbacks.Callback):
    """The callback keeps what Keras says after each epoch, as its CSVLogger writes it.

    Attributes:
        rows: The number of each epoch, from 0, and its numbers by their names.
    """

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[dict[str, Any]] = []

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Keep the numbers of an epoch."""
        self.rows.append({"epoch": epoch, **(logs or {})})


class Steps(keras.callbacks.Callback):
    """The callback counts epochs, and ends training after a step if that is requested."""

    def __init__(self, advance: Callable[[], None], stop_requested: Callable[[], bool]) -> None:
        super().__init__()
        self._advance, self._stop_requested = advance, stop_requested

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """End training if that is requested."""
        if self._stop_requested():
            self.model.stop_training = True

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Count an epoch that was not broken off."""
        if not self._stop_requested():
            self._advance()


class WriteRegularly(keras.callbacks.Callback):
    """The callback writes what is trained so far, again and again by the clock.

    Args:
        write: Writes it.
        clock: Returns seconds.
    """

    def __init__(
        self, write: Callable[[], None], clock: Callable[[], float] = time.monotonic
    ) -> None:
        super().__init__()
        self._write, self._clock = write, clock
        self._causes: set[str] = set()

    def on_train_begin(self, logs: Any = None) -> None:
        """Begin to count seconds."""
        self._last = self._clock()

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Write if that is due; a failure is said once, and the training goes on."""
        if self._clock() - self._last < SECONDS_BETWEEN_WRITES:
            return
        _ = self.model  # On JAX, Keras gives a model its weights back when a callback asks.
        try:
            self._write()
        except CommandError as error:
            if str(error) not in self._causes:
                self._causes.add(str(error))
                typer.echo(f"quantal: {error} The training goes on.", err=True)
        self._last = self._clock()


@dataclasses.dataclass(frozen=True)
class TrainingResult(Views):
    """The result of a training has the scores of both models, and how the list is used.

    Attributes:
        comparison: The models' predictions and scores.
        dataset: What they were trained on.
        values: The list.
    """

    comparison: Comparison
    dataset: Dataset
    values: Values

    @property
    def _codes(self) -> NDArray[Any]:
        parameters = parameters_of(self.comparison.model)
        return np.concatenate([whole_array(p.codes).ravel() for p in parameters])

    def table(self) -> Table:
        """Return the scores, and how often each value is used, as a table."""
        (discrete, free), baseline = self.comparison.scores, self.comparison.baseline
        is_share = self.dataset.labels is not None
        rows: list[tuple[str | None, ...]] = []
        for name, score in discrete.items():
            shares = is_share and name in ("accuracy", "balanced accuracy")
            scores = (score, free[name], baseline[name])
            rows.append((name, *(_shown(number, shares) for number in scores)))
            if name in ("accuracy", "R²"):
                rows.append(("gap", _gap(score, free[name], shares), "", ""))
        codes = self._codes
        rows.append(("bits per weight", f"{self.values.bits}", "32", ""))
        entropy = f"{self.values.entropy(codes):.2f}"
        rows.append(("bits per weight, entropy", entropy, "", ""))
        rows += [(*row, "", "") for row in self._usage(codes)]
        heads = ("discrete", "free float", "majority" if is_share else "mean")
        columns = [Column("what", f"{len(self.dataset.held_out)} held-out rows")]
        columns += [Column(head, align="right") for head in heads]
        return Table(columns, rows)

    def _usage(self, codes: NDArray[Any]) -> list[tuple[str, str]]:
        """Return how often values are used: all of a short list, else the most used ones."""
        names = [f"value {number:.7g}" for number in self.values]
        counts = pandas.Series(self.values.usage(codes), names)
        if len(self.values) > MOST_ROWS:
            counts = counts.sort_values(ascending=False, kind="stable")
            rest = counts.iloc[MOST_ROWS - 1 :]
            others = pandas.Series({f"the other {len(rest)} values": rest.sum()})
            counts = pandas.concat([counts.iloc[: MOST_ROWS - 1], others])
        return [(name, f"{count} ({count / codes.size:.1%})") for name, count in counts.items()]

    def to_dict(self) -> dict[str, Any]:
        """Return the scores and the use of the list as data that JSON can hold."""
        data, codes = self.dataset, self._codes
        discrete, free = self.comparison.scores
        return {
            "data": data.name,
            "task": "regression" if data.labels is None else "classification",
            "rows": len(data.features),
            "held_out": len(data.held_out),
            "features": data.width,
            "columns": [column.name for column in data.encoding.columns],
            "classes": None if data.labels is None else data.labels.tolist(),
            "remarks": list(data.remarks),
            "scores": {"discrete": discrete, "float": free, "baseline": self.comparison.baseline},
            "values": self.values.tolist(),
            "usage": self.values.usage(codes).tolist(),
            "bits": self.values.bits,
            "entropy": self.values.entropy(codes),
        }


def _shown(score: float | None, is_share: bool) -> str | None:
    if score is None:
        return None
    return f"{score:.1%}" if is_share else f"{score:.4f}" if abs(score) < 1e4 else f"{score:.6g}"


def _gap(discrete: float | None, free: float | None, is_share: bool) -> str | None:
    if discrete is None or free is None:
        return None
    gap = discrete - free
    return f"{100 * gap:+.1f} points" if is_share else f"{gap:+.4f}"


def default_folder() -> pathlib.Path:
    """Return the folder to write into where none is named: the first without a run."""
    names = itertools.chain([DEFAULT_FOLDER], (f"{DEFAULT_FOLDER}-{i}" for i in itertools.count(2)))
    return next(folder for folder in map(pathlib.Path, names) if not _has_run(folder))


def _has_run(folder: pathlib.Path) -> bool:
    return any((folder / name).is_file() for name in FILES)


def prepare_folder(folder: pathlib.Path, replace: bool = False) -> None:
    """Make the folder, and check that files can be written into it; a run in it stays.

    Args:
        folder: The folder.
        replace: Whether a run that is in it may be replaced.
    """
    if not replace and _has_run(folder):
        raise Unwritable(
            f"{folder} has a run already. Expected a folder without one. Give another one with "
            "--out, or --force to replace what is there."
        )
    with _writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
        for name in FILES:
            if (folder / name).is_dir():
                raise IsADirectoryError(f"{folder / name} is a folder")


def write_files(folder: pathlib.Path, comparison: Comparison, dataset: Dataset) -> None:
    """Write all files into a temporary folder, then move them to their names."""
    table = {"row": dataset.held_out + 1}
    table["target"] = dataset.names_of(dataset.target[dataset.held_out])
    for name, outputs in zip(("discrete", "float"), comparison.outputs, strict=False):
        table[name] = dataset.names_of(answers_of(outputs, dataset.labels))
    table |= probability_columns(comparison.outputs[0], dataset.labels)
    with _writing(folder), folder_beside(folder / FILES[0]) as temporary:
        model, csv, picture, history = (temporary / name for name in FILES)
        comparison.model.save(model)
        pandas.DataFrame(table).to_csv(csv, index=False)
        _picture(comparison.model, dataset).savefig(picture)
        # Of a run that ends in its first epoch there are the names alone.
        epochs = list(comparison.history)
        pandas.DataFrame(epochs, columns=None if epochs else ["epoch", "loss"]).to_csv(
            history, index=False
        )
        move_files({path: folder / path.name for path in (csv, picture, history, model)})


def _picture(model: keras.Model, dataset: Dataset) -> Any:
    """Draw the values, with the names of the features where a weight has one for each."""
    parameters = parameters_of(model)
    names = [feature.name for feature in dataset.encoding.plan.features]
    fits = any(parameter.shape[0] == len(names) for parameter in parameters)
    return plot_values(parameters, names=names if fits else None, title=dataset.name)


@contextlib.contextmanager
def _writing(folder: pathlib.Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise Unwritable(
            f"{folder} cannot be written: {error.strerror or error}. Expected a folder that "
            f"can be made and takes the files {', '.join(FILES)}. Give another one with --out."
        ) from error
