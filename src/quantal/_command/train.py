"""The subcommand `quantal train`."""

import pathlib
from typing import Annotated, Literal

import typer

from quantal._command.backend import choose_backend, start_keras
from quantal._command.errors import MissingPackage
from quantal._command.options import Backend, ValuesList, parse_values

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


def train(
    data: Annotated[
        str, typer.Argument(metavar="DATA", help="A file or the name of a data set, see above.")
    ],
    values: ValuesList = "-1,1",
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
    listed = parse_values(values)
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
