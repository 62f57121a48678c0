"""The command `quantal`: train a model on listed weights beside one on free weights.

Only `quantal train` itself loads a framework; `--help` and `--version` do not.
"""

import argparse
import contextlib
import functools
import importlib.util
import logging
import os
import pathlib
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

import quantal
from quantal._core.numbers.values import Values
from quantal._storage.atomic import move_file

if TYPE_CHECKING:
    from quantal._command.comparison import Comparison
    from quantal._command.datasets import Dataset, Split

MODELS = ("multiplier", "mlp")
BACKENDS = ("tensorflow", "jax", "torch")
DONE, MISSING_PACKAGE, WRONG_USAGE, UNREADABLE, UNFIT, UNWRITABLE = range(6)
INTERRUPTED = 130

MOST_ROWS = 16
"""Lists up to this length have each value in the table."""

_PACKAGES = {
    "pandas": "pandas",
    "pyarrow": "pyarrow",
    "sklearn": "scikit-learn",
    "rich": "rich",
    "matplotlib": "matplotlib",
}

_FILES = ("model.keras", "predictions.csv", "values.png")

_TRAIN_HELP = """\
Train a model whose weights come from a list, and beside it the same model with free
float weights: same architecture, optimizer, epochs, batches and seed. A fifth of the
rows is held out and tells how much the list costs."""

_TRAIN_DETAILS = """\
DATA is a .csv, .parquet or .npz file, or one of the data sets that scikit-learn ships:
digits, breast-cancer, wine, diabetes. An .npz file holds the features in an array x of
shape (rows, features) and the target in y. Features must be numbers. Rows count from 1,
the first one below the header.

models:
  multiplier   one value from the list for each feature, then a float Dense
  mlp          two hidden layers of 64 with weights from the list, each followed by
               batch normalisation and relu; the output layer stays plain float, as
               is the practice in the field
  FILE.keras   a Keras model saved as a file: each layer with a kernel, but the last
               one, goes on from its weights on the list

written into DIR:
  model.keras       the discrete model, from features as in DATA to predictions (one
                    output for each class, in the classes' sorted order)
  predictions.csv   row, target and both predictions for the held-out rows
  values.png        the chosen values, and how often each is used

exit codes:
  0  done
  1  a Python package that is needed is not installed
  2  wrong usage: an argument that does not exist or makes no sense
  3  a file or data set that cannot be read: missing, corrupt, of an unknown ending
  4  data or a model that do not fit: a missing column, text among numbers, NaN, wrong
     shapes, a single class, training that ends in NaN
  5  DIR cannot be written"""


class _Stop(Exception):
    """Ends the command with an exit code and a message for the user."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


@contextlib.contextmanager
def _stopping(code: int, *kinds: type[Exception]) -> Iterator[None]:
    """Turn errors of these kinds into the end of the command."""
    try:
        yield
    except kinds as error:
        raise _Stop(code, str(error)) from error


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code.

    Args:
        argv: The arguments after the command's name; None for those of the process.
    """
    try:
        arguments = _parser().parse_args(_joined(sys.argv[1:] if argv is None else argv))
    except SystemExit as end:
        return int(end.code or 0)
    try:
        _train(arguments)
    except _Stop as stop:
        print(f"quantal: {stop}", file=sys.stderr)
        return stop.code
    except KeyboardInterrupt:
        print("quantal: interrupted. No file is left half-written.", file=sys.stderr)
        return INTERRUPTED
    return DONE


def _joined(argv: Sequence[str]) -> list[str]:
    """The arguments with `--values -1,1` as `--values=-1,1`, which argparse understands."""
    joined: list[str] = []
    for argument in argv:
        if joined and joined[-1] == "--values":
            joined[-1] = f"--values={argument}"
        else:
            joined.append(argument)
    return joined


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="quantal",
        description="Learnable parameters whose values come from a list that you give.",
        epilog='Example: quantal train digits --values="1,-1,0.5,-0.5"',
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"quantal {quantal.__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    train = commands.add_parser(
        "train",
        help="train on listed weights, and on free weights beside it",
        description=_TRAIN_HELP,
        epilog=_TRAIN_DETAILS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    train.add_argument("data", metavar="DATA", help="a file or the name of a data set, see below")
    train.add_argument(
        "--values",
        type=_values,
        default=Values([-1, 1]),
        metavar="LIST",
        help='the list: numbers separated by commas ("1,-1,0.5,-0.5"), or a preset such as '
        'ternary, nf4, signed:4 or powers_of_two:4 (default: "-1,1")',
    )
    train.add_argument(
        "--target", metavar="COLUMN", help="what to predict (default: the last column; y of NPZ)"
    )
    train.add_argument(
        "--task",
        choices=("auto", "classification", "regression"),
        default="auto",
        help="auto: classification where the target is text, boolean or whole numbers of at "
        "most 20 different values (default: auto)",
    )
    train.add_argument(
        "--model",
        type=_model_name,
        default="mlp",
        metavar="MODEL",
        help="multiplier, mlp or FILE.keras, see below (default: mlp)",
    )
    train.add_argument(
        "--estimator",
        default="auto",
        metavar="NAME",
        help="how gradients pass, a name of quantal.estimators (default: automatic)",
    )
    for name, lowest, default, text in (
        ("--epochs", 1, 50, "rounds over the training rows"),
        ("--batch-size", 1, 32, "rows in a training step"),
        ("--seed", 0, 0, "decides the split, the first weights and the batches"),
    ):
        train.add_argument(
            name,
            type=_whole_number(lowest),
            default=default,
            metavar="N",
            help=f"{text} (default: {default})",
        )
    train.add_argument(
        "--backend",
        choices=BACKENDS,
        help="default: KERAS_BACKEND, else the first of these that is installed",
    )
    train.add_argument(
        "--out",
        type=pathlib.Path,
        default=pathlib.Path("quantal-run"),
        metavar="DIR",
        help="where the files go (default: quantal-run)",
    )
    return parser


def _values(text: str) -> Values:
    entries = [entry.strip() for entry in text.split(",")]
    numbers = [_number(entry) for entry in entries]
    # A word alone is the name of a preset, and Values knows which there are.
    if len(entries) > 1 or numbers[0] is not None:
        for entry, number in zip(entries, numbers, strict=True):
            if number is None:
                raise argparse.ArgumentTypeError(
                    f"{entry!r} in {text!r} is not a number. Expected numbers separated by "
                    "commas, or the name of a preset. Write, for example, "
                    '--values="1,-1,0.5,-0.5" or --values=ternary.'
                )
    try:
        return Values(text if numbers[0] is None else numbers)  # type: ignore[arg-type]
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _model_name(text: str) -> str:
    if text in MODELS or text.lower().endswith(".keras"):
        return text
    raise argparse.ArgumentTypeError(
        f"{text!r} is no model. Expected {', '.join(MODELS)} or a path that ends in .keras. "
        "Save a model of your own with model.save('mine.keras')."
    )


def _whole_number(lowest: int) -> Callable[[str], int]:
    def convert(text: str) -> int:
        number = _number(text)
        # NumPy's generators take seeds of 32 bits; no one waits for as many epochs.
        if number is None or number != number // 1 or not lowest <= number < 2**32:
            raise argparse.ArgumentTypeError(
                f"{text!r} does not fit. Expected a whole number from {lowest} on, below 2^32. "
                f"Give, say, {max(lowest, 10)}."
            )
        return int(number)

    return convert


def _is_installed(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


def _require_packages() -> None:
    missing = [name for module, name in _PACKAGES.items() if not _is_installed(module)]
    if missing:
        raise _Stop(
            MISSING_PACKAGE,
            f"Not installed: {', '.join(missing)}. The command reads, prints and draws with "
            f'{", ".join(_PACKAGES.values())}. Install them: pip install "quantal[command]"',
        )


def _chosen_backend(asked: str | None) -> str:
    """The backend that was asked for, or the environment's, or the first installed one."""
    name = asked or os.environ.get("KERAS_BACKEND")
    if not name:
        installed = [backend for backend in BACKENDS if _is_installed(backend)]
        if not installed:
            raise _Stop(
                MISSING_PACKAGE,
                f"Keras has nothing to compute with. Expected one of {', '.join(BACKENDS)} to "
                'be installed. Install one: pip install "quantal[tensorflow]"',
            )
        return installed[0]
    if name not in BACKENDS:
        raise _Stop(
            WRONG_USAGE,
            f"KERAS_BACKEND is {name!r}. Expected one of {', '.join(BACKENDS)}. Set it to one "
            "of these, or give --backend.",
        )
    if not _is_installed(name):
        raise _Stop(
            MISSING_PACKAGE,
            f"The backend {name} is not installed. Expected an installed one. Install it: pip "
            f'install "quantal[{name}]", or give another --backend.',
        )
    return name


def _start_keras(backend: str) -> None:
    os.environ["KERAS_BACKEND"] = backend
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    # It warns of each second model in a process, which is what this command is about.
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    with _quiet_standard_error():
        import keras

        # Loads TensorFlow wherever it is installed, which has something to say.
        keras.utils.set_random_seed(0)
    if keras.config.backend() != backend:
        raise _Stop(
            WRONG_USAGE,
            f"--backend is {backend}, but this process has already loaded Keras on "
            f"{keras.config.backend()}. Keras has one backend a process. Start another process.",
        )


@contextlib.contextmanager
def _quiet_standard_error() -> Iterator[None]:
    """Standard error goes nowhere, also that of compiled code, which has no other switch."""
    sys.stderr.flush()
    kept = os.dup(2)
    try:
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def _train(arguments: argparse.Namespace) -> None:
    _require_packages()
    backend = _chosen_backend(arguments.backend)
    from rich.console import Console

    from quantal._command import datasets

    console = Console(highlight=False, markup=False, soft_wrap=True)
    with (
        _stopping(UNREADABLE, datasets.Unreadable),
        _stopping(UNFIT, datasets.Unfit),
    ):
        dataset = datasets.read_dataset(arguments.data, arguments.target, arguments.task)
        console.print(_described(dataset, backend))
        _start_keras(backend)
        _compare(arguments, dataset, datasets.split(dataset, arguments.seed), console)


def _described(dataset: "Dataset", backend: str) -> str:
    rows, columns = dataset.features.shape
    classes = "" if dataset.labels is None else f", {len(dataset.labels)} classes"
    return (
        f"{dataset.name}: {dataset.task}, {rows} rows, {columns} features{classes}; "
        f"Keras on {backend}"
    )


def _compare(
    arguments: argparse.Namespace, dataset: "Dataset", parts: "Split", console: Any
) -> None:
    """Build, train and compare the two models, once Keras is loaded."""
    from rich.progress import Progress

    from quantal._command import comparison
    from quantal.estimators.policy import parse

    with _stopping(WRONG_USAGE, ValueError):
        parse(arguments.estimator)
    pair = comparison.build_pair(
        arguments.model, dataset, arguments.values, arguments.estimator, arguments.seed
    )
    _prepare(arguments.out)
    for name, model in (("discrete", pair.discrete), ("free float", pair.free)):
        started = time.perf_counter()
        # A bar would be thousands of lines in a log.
        with Progress(console=console, disable=not console.is_terminal, transient=True) as progress:
            bar = progress.add_task(f"{name} model", total=arguments.epochs)
            comparison.fit(
                model,
                dataset,
                parts,
                epochs=arguments.epochs,
                batch_size=arguments.batch_size,
                seed=arguments.seed,
                on_epoch_end=functools.partial(progress.advance, bar),
            )
        seconds = time.perf_counter() - started
        console.print(f"Trained the {name} model: {arguments.epochs} epochs in {seconds:.1f} s")
    compared = comparison.compare(pair, dataset, parts)
    console.print(_table(compared, dataset, arguments.values), soft_wrap=False)
    _write(arguments.out, compared, dataset, parts)
    console.print(f"Written into {arguments.out}: {', '.join(_FILES)}")


def _table(compared: "Comparison", dataset: "Dataset", values: Values) -> Any:
    from rich.table import Table
    from rich.text import Text

    codes = compared.codes
    rows = len(compared.discrete)
    table = Table(title=Text(f"{dataset.name}: {rows} held-out rows"))
    table.add_column("")
    table.add_column("discrete", justify="right")
    table.add_column("free float", justify="right")
    gap = compared.discrete_score - compared.free_score
    if dataset.labels is None:
        table.add_row("R²", f"{compared.discrete_score:.4f}", f"{compared.free_score:.4f}")
        table.add_row("gap", f"{gap:+.4f}", "")
    else:
        table.add_row("accuracy", f"{compared.discrete_score:.1%}", f"{compared.free_score:.1%}")
        table.add_row("gap", f"{100 * gap:+.1f} points", "")
    table.add_row("bits per weight", str(values.bits), "32")
    table.add_row("bits per weight, entropy", f"{values.entropy(codes):.2f}", "", end_section=True)
    for name, count in _usage(values, codes):
        table.add_row(name, f"{count} ({count / max(codes.size, 1):.1%})", "")
    return table


def _usage(values: Values, codes: Any) -> list[tuple[str, int]]:
    """(name, count) for each value in the list's order, or for the most used of many."""
    counts = values.usage(codes)
    names = [f"value {number:.7g}" for number in values]
    if len(values) <= MOST_ROWS:
        return list(zip(names, counts.tolist(), strict=True))
    most = np.argsort(-counts, kind="stable")[: MOST_ROWS - 1]
    rest = (f"the other {len(values) - len(most)} values", int(counts.sum() - counts[most].sum()))
    return [*((names[code], int(counts[code])) for code in most), rest]


def _prepare(folder: pathlib.Path) -> None:
    """Make the folder, and see that files can be made in it and put in their places."""
    with _stopping_unwritable(folder):
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".quantal-", dir=folder):
            pass
        for name in _FILES:
            if (folder / name).is_dir():
                raise IsADirectoryError(f"{folder / name} is a folder")


@contextlib.contextmanager
def _stopping_unwritable(folder: pathlib.Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise _Stop(
            UNWRITABLE,
            f"{folder} cannot be written: {error.strerror or error}. Expected a folder that "
            f"can be made and takes the files {', '.join(_FILES)}. Give another one with --out.",
        ) from error


def _write(
    folder: pathlib.Path, compared: "Comparison", dataset: "Dataset", parts: "Split"
) -> None:
    """Write all files beside their places, then move them there."""
    import pandas

    from quantal.plots import plot_values

    def named(classes: Any) -> Any:
        return classes if dataset.labels is None else dataset.labels[classes]

    with (
        _stopping_unwritable(folder),
        tempfile.TemporaryDirectory(prefix=".quantal-", dir=folder) as beside,
    ):
        model, predictions, picture = (pathlib.Path(beside) / name for name in _FILES)
        compared.model.save(model)
        columns = {
            "row": parts.held_out + 1,
            "target": named(dataset.target[parts.held_out]),
            "discrete": named(compared.discrete),
            "float": named(compared.free),
        }
        pandas.DataFrame(columns).to_csv(predictions, index=False)
        parameters = quantal.parameters_of(compared.model)
        plot_values(parameters, title=dataset.name).savefig(picture)
        for name in _FILES:
            move_file(pathlib.Path(beside) / name, folder / name)


if __name__ == "__main__":
    sys.exit(main())
