"""What `quantal train` shows and writes."""

import contextlib
import functools
import pathlib
import tempfile
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from rich.text import Text

from quantal._command.comparison import Comparison, Pair, Training, fit
from quantal._command.datasets import Dataset, Split
from quantal._command.errors import Unwritable
from quantal._core.numbers.values import Values
from quantal._core.parameter import parameters_of
from quantal._storage.atomic import move_file
from quantal.plots import plot_values

FILES = ("model.keras", "predictions.csv", "values.png")
MOST_ROWS = 16
"""Lists up to this length have each value in the table."""


def train_pair(pair: Pair, dataset: Dataset, parts: Split, training: Training) -> None:
    """Train both models, with a bar of progress where there is a terminal."""
    console = _console()
    for name, model in (("discrete", pair.discrete), ("free float", pair.free)):
        start = time.perf_counter()
        # A bar would be thousands of lines in a log.
        with Progress(console=console, disable=not console.is_terminal, transient=True) as progress:
            bar = progress.add_task(f"{name} model", total=training.epochs)
            advance = functools.partial(progress.advance, bar)
            fit(model, dataset, parts, training, on_epoch_end=advance)
        seconds = time.perf_counter() - start
        console.print(f"Trained the {name} model: {training.epochs} epochs in {seconds:.1f} s")


def show_table(comparison: Comparison, dataset: Dataset, values: Values) -> None:
    """Show both models' scores, and how often each value is used."""
    codes = comparison.codes
    rows = len(comparison.discrete)
    table = Table(title=Text(f"{dataset.name}: {rows} held-out rows"))
    table.add_column("")
    table.add_column("discrete", justify="right")
    table.add_column("free float", justify="right")
    scores = comparison.discrete_score, comparison.free_score
    gap = scores[0] - scores[1]
    if dataset.labels is None:
        table.add_row("R²", *(f"{score:.4f}" for score in scores))
        table.add_row("gap", f"{gap:+.4f}", "")
    else:
        table.add_row("accuracy", *(f"{score:.1%}" for score in scores))
        table.add_row("gap", f"{100 * gap:+.1f} points", "")
    table.add_row("bits per weight", str(values.bits), "32")
    table.add_row("bits per weight, entropy", f"{values.entropy(codes):.2f}", "", end_section=True)
    for name, count in _usage(values, codes):
        table.add_row(name, f"{count} ({count / max(codes.size, 1):.1%})", "")
    _console().print(table, soft_wrap=False)


def prepare_folder(folder: pathlib.Path) -> None:
    """Make the folder, and check that files can be written into it and replaced."""
    with _writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".quantal-", dir=folder):
            pass
        for name in FILES:
            if (folder / name).is_dir():
                raise IsADirectoryError(f"{folder / name} is a folder")


def write_files(
    folder: pathlib.Path, comparison: Comparison, dataset: Dataset, parts: Split
) -> None:
    """Write all files into a temporary folder, then move them to their names."""
    columns = {
        "row": parts.held_out + 1,
        "target": dataset.names_of(dataset.target[parts.held_out]),
        "discrete": dataset.names_of(comparison.discrete),
        "float": dataset.names_of(comparison.free),
    }
    with (
        _writing(folder),
        tempfile.TemporaryDirectory(prefix=".quantal-", dir=folder) as temporary,
    ):
        model, predictions, picture = (pathlib.Path(temporary) / name for name in FILES)
        comparison.model.save(model)
        pandas.DataFrame(columns).to_csv(predictions, index=False)
        plot_values(parameters_of(comparison.model), title=dataset.name).savefig(picture)
        for name in FILES:
            move_file(pathlib.Path(temporary) / name, folder / name)
    _console().print(f"Written into {folder}: {', '.join(FILES)}")


def _console() -> Console:
    return Console(highlight=False, markup=False, soft_wrap=True)


def _usage(values: Values, codes: NDArray[Any]) -> list[tuple[str, int]]:
    """Return (name, count) of each value in the list's order, or of the most used ones."""
    counts = values.usage(codes)
    names = [f"value {number:.7g}" for number in values]
    if len(values) <= MOST_ROWS:
        return list(zip(names, counts.tolist(), strict=True))
    most = np.argsort(-counts, kind="stable")[: MOST_ROWS - 1]
    rest = (f"the other {len(values) - len(most)} values", int(counts.sum() - counts[most].sum()))
    return [*((names[code], int(counts[code])) for code in most), rest]


@contextlib.contextmanager
def _writing(folder: pathlib.Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise Unwritable(
            f"{folder} cannot be written: {error.strerror or error}. Expected a folder that "
            f"can be made and takes the files {', '.join(FILES)}. Give another one with --out."
        ) from error
