"""Show and write the results of `quantal train`."""

import contextlib
import functools
import pathlib
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
import pandas
import typer
from keras.ops import convert_to_numpy

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
from quantal._core.numbers.values import Values
from quantal._core.parameter import parameters_of
from quantal._optimize.interruption import stop_requests
from quantal._storage.atomic import folder_beside, move_files
from quantal.plots.values import plot_values

FILES = ("model.keras", "predictions.csv", "values.png")
SECONDS_BETWEEN_WRITES = 15.0
"""A run that is killed loses so many seconds of training, and those of a step and of writing:
together less than half a minute."""
MOST_ROWS = 16
"""The longest list of which the table shows every value; of a longer one, the most used."""


def train_pair(
    pair: Pair, dataset: Dataset, training: Training, folder: pathlib.Path
) -> Comparison:
    """Train both models, write the discrete one as it goes, and compare the two.

    Where there is a terminal, a bar shows the progress.

    Raises:
        Interrupted: Ctrl-C or SIGTERM came. What was trained until then is in the folder.
        Unfit: A model predicts NaN or infinity.
        Unwritable: The folder cannot be written at the end.
    """
    models = [on_raw_features(model, dataset) for model in pair]

    def write_discrete() -> None:
        write_files(folder, compare(models[:1], dataset), dataset)

    with stop_requests() as stop_requested:
        for name, model in pair._asdict().items():
            with typer.progressbar(length=training.epochs, label=f"Training {name} weights") as bar:
                callbacks = [Steps(functools.partial(bar.update, 1), stop_requested)]
                if model is pair.discrete:
                    callbacks.append(WriteRegularly(write_discrete))
                fit(model, dataset, training, callbacks)
            if model is pair.discrete:
                write_discrete()
            if stop_requested():
                raise Interrupted(
                    f"interrupted while training {name} weights. {folder} has the discrete model "
                    "as trained until then, and its predictions."
                )
        return compare(models, dataset)


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


def show_table(comparison: Comparison, dataset: Dataset, values: Values) -> None:
    """Show both models' scores, and how often each value is used."""
    discrete, free = comparison.scores
    parameters = parameters_of(comparison.model)
    codes = np.concatenate([convert_to_numpy(p.codes).ravel() for p in parameters])
    rows = [(f"{len(comparison.predictions[0])} held-out rows", "discrete", "free float")]
    if dataset.labels is None:
        rows += [("R²", f"{discrete:.4f}", f"{free:.4f}"), ("gap", f"{discrete - free:+.4f}", "")]
    else:
        rows.append(("accuracy", f"{discrete:.1%}", f"{free:.1%}"))
        rows.append(("gap", f"{100 * (discrete - free):+.1f} points", ""))
    rows.append(("bits per weight", f"{values.bits}", "32"))
    rows.append(("bits per weight, entropy", f"{values.entropy(codes):.2f}", ""))
    counts = pandas.Series(values.usage(codes), [f"value {number:.7g}" for number in values])
    if len(values) > MOST_ROWS:
        counts = counts.sort_values(ascending=False, kind="stable")
        rest = counts.iloc[MOST_ROWS - 1 :]
        counts = pandas.concat(
            [
                counts.iloc[: MOST_ROWS - 1],
                pandas.Series({f"the other {len(rest)} values": rest.sum()}),
            ]
        )
    rows += [(name, f"{count} ({count / codes.size:.1%})", "") for name, count in counts.items()]
    for name, left, right in rows:
        typer.echo(f"{name:26}{left:>16}{right:>12}".rstrip())


def prepare_folder(folder: pathlib.Path) -> None:
    """Make the folder, and check that files can be written into it and replaced."""
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
    for name, predictions in zip(("discrete", "float"), comparison.predictions, strict=False):
        table[name] = dataset.names_of(predictions)
    with _writing(folder), folder_beside(folder / FILES[0]) as temporary:
        model, csv, picture = (temporary / name for name in FILES)
        comparison.model.save(model)
        pandas.DataFrame(table).to_csv(csv, index=False)
        plot_values(parameters_of(comparison.model), title=dataset.name).savefig(picture)
        move_files({path: folder / path.name for path in (csv, picture, model)})


@contextlib.contextmanager
def _writing(folder: pathlib.Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise Unwritable(
            f"{folder} cannot be written: {error.strerror or error}. Expected a folder that "
            f"can be made and takes the files {', '.join(FILES)}. Give another one with --out."
        ) from error
