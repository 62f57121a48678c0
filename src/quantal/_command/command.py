"""The command `quantal`: each subcommand is one function over a public one.

Only a subcommand that runs loads a framework; `--help` and `--version` do not.
"""

import pathlib
import sys
from collections.abc import Sequence
from typing import Annotated, Literal

import quantal
from quantal._command.backend import choose_backend, load_model, start_keras
from quantal._command.errors import CommandError, Interrupted, MissingPackage, Unfit, Unwritable
from quantal._core.numbers.values import Values
from quantal._optimize.interruption import termination_as_interrupt

try:
    import typer
except ModuleNotFoundError:
    sys.exit('quantal: typer is not installed. Install it: pip install "quantal[command]"')

app = typer.Typer(
    help="Learnable parameters whose values come from a list that you give.",
    epilog='Example: quantal train digits --values="1,-1,0.5,-0.5"',
    add_completion=False,
    no_args_is_help=True,
    # Rich would draw boxes around the help, and be imported for it.
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
ModelFile = Annotated[
    str, typer.Argument(metavar="MODEL", help="A file of model.save or quantal.save.")
]
Backend = Annotated[
    Literal["tensorflow", "jax", "torch"] | None,
    typer.Option(envvar="KERAS_BACKEND", help="Default: the first of these that is installed."),
]

TRAIN_HELP = """Train on listed weights, and on free weights for comparison.

Train a model whose weights come from a list, and the same model with free float
weights: same architecture, optimizer, epochs, batches and seed. A fifth of the rows is
held out and tells how much the list costs.

DATA is a .csv, .parquet or .npz file, or one of the data sets that scikit-learn ships:
digits, breast-cancer, wine, diabetes. An .npz file holds the features in an array x of
shape (rows, features) and the target in y. Features must be numbers. Rows count from 1,
the first one below the header.

\b
models:
  multiplier   one value from the list for each feature, then a float Dense
  mlp          two hidden layers of 64 with weights from the list, each followed
               by batch normalisation and relu; the output layer stays plain float,
               as is the practice in the field
  FILE.keras   a Keras model saved as a file: each layer with a kernel, but the
               last one, goes on from its weights on the list

\b
written into DIR:
  model.keras       the discrete model, from features as in DATA to predictions
                    (one output for each class, in the classes' sorted order)
  predictions.csv   row, target and both predictions for the rows held out
  values.png        the chosen values, and how often each is used

\b
exit codes:
  0  done
  1  a Python package that is needed is not installed
  2  wrong usage: an argument that does not exist or makes no sense
  3  a file or data set that cannot be read: missing, corrupt, of an unknown
     ending
  4  data or a model that do not fit: a missing column, text among numbers, NaN,
     wrong shapes, a single class, training that ends in NaN
  5  DIR cannot be written
  130  interrupted, by Ctrl-C or SIGTERM; DIR has the discrete model as trained
     until then. A run that is killed loses at most half a minute.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code.

    Args:
        arguments: The arguments after the command's name; None for those of the process.
    """
    try:
        with termination_as_interrupt():
            app(arguments, prog_name="quantal")
    except SystemExit as end:
        code = int(end.code or 0)
        if code == Interrupted.code:  # typer makes this of a KeyboardInterrupt, without a word.
            typer.echo("quantal: interrupted.", err=True)
        return code
    except CommandError as error:
        typer.echo(f"quantal: {error}", err=True)
        return error.code
    return 0


def _show_version(is_wanted: bool) -> None:
    if is_wanted:
        typer.echo(f"quantal {quantal.__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    """Take the options before a subcommand."""


def _parse_values(text: str) -> Values:
    """Return the list that numbers separated by commas, or a preset's name, stand for."""
    entries: list[float] | str
    try:
        entries = [float(entry) for entry in text.split(",")]
    except ValueError:
        entries = text.strip()
    try:
        return Values(entries)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--values") from None


@app.command(help=TRAIN_HELP)
def train(
    data: Annotated[
        str, typer.Argument(metavar="DATA", help="A file or the name of a data set, see above.")
    ],
    values: Annotated[
        str,
        typer.Option(
            metavar="LIST",
            help='The list: numbers separated by commas ("1,-1,0.5,-0.5"), or a preset such as '
            "ternary, nf4, signed:4 or powers_of_two:4.",
        ),
    ] = "-1,1",
    target: Annotated[
        str | None,
        typer.Option(
            metavar="COLUMN", help="What to predict. Default: the last column; y of an .npz file."
        ),
    ] = None,
    task: Annotated[
        Literal["auto", "classification", "regression"],
        typer.Option(
            help="With auto, classification where the target is text, boolean or whole numbers "
            "of at most 20 different values."
        ),
    ] = "auto",
    model: Annotated[
        str, typer.Option(metavar="MODEL", help="multiplier, mlp or FILE.keras.")
    ] = "mlp",
    estimator: Annotated[
        str,
        typer.Option(
            metavar="NAME", help="How gradients pass: auto, or one of quantal.estimators."
        ),
    ] = "auto",
    epochs: Annotated[int, typer.Option(min=1, help="Rounds over the training rows.")] = 50,
    batch_size: Annotated[int, typer.Option(min=1, help="Rows in a training step.")] = 32,
    seed: Annotated[
        # NumPy's generators take seeds of 32 bits.
        int,
        typer.Option(
            min=0, max=2**32 - 1, help="Decides the split, the first weights and the batches."
        ),
    ] = 0,
    backend: Backend = None,
    out: Annotated[
        pathlib.Path, typer.Option(metavar="DIR", help="The folder for the files.")
    ] = pathlib.Path("quantal-run"),
) -> None:
    """Train on listed weights, and on free weights for comparison."""
    listed = _parse_values(values)
    chosen = choose_backend(backend)
    # What training needs is imported before it, so that nothing is missing at its end.
    try:
        from quantal._command.datasets import read_dataset

        dataset = read_dataset(data, target, task, seed)
        typer.echo(f"{dataset}; Keras on {chosen}")
        start_keras(chosen)
        from quantal._command.comparison import Training, build_pair
        from quantal._command.results import (
            FILES,
            prepare_folder,
            show_table,
            train_pair,
            write_files,
        )
    except ImportError as error:
        raise MissingPackage(f'{error}. Install it: pip install "quantal[command]"') from error
    from quantal.estimators.policy import parse

    try:
        parse(estimator)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--estimator") from None
    pair = build_pair(model, dataset, listed, estimator, seed)
    prepare_folder(out)
    comparison = train_pair(pair, dataset, Training(epochs, batch_size, seed), out)
    show_table(comparison, dataset, listed)
    write_files(out, comparison, dataset)
    typer.echo(f"Written into {out}: {', '.join(FILES)}")


@app.command()
def inspect(model: ModelFile, backend: Backend = None) -> None:
    """Show every weight of a model: its list and its bits."""
    start_keras(choose_backend(backend))
    from quantal._models.summary import summary

    typer.echo(str(summary(load_model(model))))


@app.command()
def export(
    model: ModelFile,
    path: Annotated[pathlib.Path, typer.Argument(metavar="PATH", help="The file to write.")],
    target: Annotated[
        str | None, typer.Option(help="The target's name. Default: what the ending says.")
    ] = None,
    check: Annotated[bool, typer.Option(help="Run it where its runtime is installed.")] = True,
    backend: Backend = None,
) -> None:
    """Write a model for another tool, and check it there.

    The report says how near the outputs are. Every ending has its target: .npz, .csv,
    .mem, .c, .keras, .pt, .onnx, .xml and .tflite; see docs/export.md.
    """
    start_keras(choose_backend(backend))
    from quantal._export.export import export as write

    loaded = load_model(model)
    try:
        typer.echo(str(write(loaded, path, target, check=check)))
    except ImportError as error:
        raise MissingPackage(str(error)) from error
    except ValueError as error:
        raise Unfit(str(error)) from error
    except OSError as error:
        raise Unwritable(f"{path} cannot be written: {error.strerror or error}.") from error


if __name__ == "__main__":
    sys.exit(main())
