"""Show and write the results of `quantal train`."""

import contextlib
import functools
import pathlib
import tempfile
from collections.abc import Iterator

import numpy as np
import pandas
import typer
from keras.ops import convert_to_numpy

from quantal._command.comparison import Comparison, Pair, Training, fit
from quantal._command.datasets import Dataset
from quantal._command.errors import Unwritable
from quantal._core.numbers.values import Values
from quantal._core.parameter import parameters_of
from quantal._storage.atomic import move_file
from quantal.plots import plot_values

FILES = ("model.keras", "predictions.csv", "values.png")
MOST_ROWS = 16
"""The longest list of which the table shows every value; of a longer one, the most used."""


def train_pair(pair: Pair, dataset: Dataset, training: Training) -> None:
    """Train both models, with a bar of progress where there is a terminal."""
    for name, model in pair._asdict().items():
        with typer.progressbar(length=training.epochs, label=f"Training {name} weights") as bar:
            advance = functools.partial(bar.update, 1)
            fit(model, dataset, training, on_epoch_end=advance)


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
    discrete, free = (dataset.names_of(predictions) for predictions in comparison.predictions)
    target = dataset.names_of(dataset.target[dataset.held_out])
    table = {"row": dataset.held_out + 1, "target": target, "discrete": discrete, "float": free}
    with (
        _writing(folder),
        tempfile.TemporaryDirectory(prefix=".quantal-", dir=folder) as temporary,
    ):
        model, predictions, picture = (pathlib.Path(temporary) / name for name in FILES)
        comparison.model.save(model)
        pandas.DataFrame(table).to_csv(predictions, index=False)
        plot_values(parameters_of(comparison.model), title=dataset.name).savefig(picture)
        for path in (model, predictions, picture):
            move_file(path, folder / path.name)
    typer.echo(f"Written into {folder}: {', '.join(FILES)}")


@contextlib.contextmanager
def _writing(folder: pathlib.Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise Unwritable(
            f"{folder} cannot be written: {error.strerror or error}. Expected a folder that "
            f"can be made and takes the files {', '.join(FILES)}. Give another one with --out."
        ) from error
