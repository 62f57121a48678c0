"""The subcommand `quantal train`."""

import dataclasses
import pathlib
from typing import Annotated, Any, Literal

import typer

from quantal._command.backend import choose_backend, start_keras
from quantal._command.errors import MissingPackage
from quantal._command.options import (
    Backend,
    Drop,
    Force,
    Json,
    Keep,
    ValuesList,
    is_balanced,
    parse_values,
    with_options,
)
from quantal._command.output import show

TRAIN_HELP = """Train on listed weights, and on free weights for comparison.

Train a model whose weights come from a list, and the same model with free float
weights: same architecture, optimizer, epochs, batches and seed. A fifth of the rows is
held out and tells how much the list costs. What one predicts without looking, the
most frequent class or the mean, is scored beside them.

DATA is a table as it is: text (.csv, .tsv, .txt; commas, semicolons, tabs or bars;
decimal commas; packed as .gz, .bz2, .xz), .parquet, - for text on standard input, or
one of the data sets that scikit-learn ships: digits, breast-cancer, wine, diabetes. An
.npz file holds numbers in an array x of shape (rows, features) and the target in y.
Rows count from 1, the first one below the header.

\b
columns:
  numbers      as they are; the median stands for a missing one, and a feature
               says that it was missing
  words        a feature for each value, up to 32; the rarer ones share 16 more
  dates        the days, the month, the weekday, and the hour where there are hours
  dropped      row numbers, identifiers and free text; each is named, and --keep
               keeps it

\b
models:
  multiplier   one value from the list for each feature, then a float Dense
  mlp          two hidden layers of 64 with weights from the list, each followed
               by batch normalisation and relu; the output layer stays plain float,
               as is the practice in the field
  FILE.keras   a Keras model saved as a file: each layer with a kernel, but the
               last one, goes on from its weights on the list. For two classes it
               may end in Dense(1)

\b
written into DIR (quantal-run; where that has a run already, quantal-run-2 and so on):
  model.keras       the discrete model, all that `quantal predict` needs: the columns
                    and the names of the classes are in it
  predictions.csv   row, target, both predictions and the discrete model's
                    probabilities for the rows held out
  values.png        the chosen values, and how often each is used
  history.csv       the loss after each epoch of the discrete model, as Keras's
                    CSVLogger writes it, for `quantal report --history`

\b
exit codes:
  0  done
  1  a Python package that is needed is not installed
  2  wrong usage: an argument that does not exist or makes no sense
  3  a file or data set that cannot be read: missing, corrupt, of an unknown
     ending
  4  data or a model that do not fit: a missing column, words among numbers,
     wrong shapes, a single class, training that ends in NaN
  5  DIR cannot be written, or has a run already
  130  interrupted, by Ctrl-C or SIGTERM; DIR has the discrete model as trained
     until then. A run that is killed loses at most half a minute.

Example: quantal train customers.csv --target left --values ternary
"""


@dataclasses.dataclass(frozen=True)
class TrainOptions:
    """The arguments and options of `quantal train`: each has its help here."""

    data: Annotated[
        str, typer.Argument(metavar="DATA", help="A file or the name of a data set, see above.")
    ]
    values: ValuesList = "-1,1"
    target: Annotated[
        str | None,
        typer.Option(
            metavar="COLUMN", help="What to predict. Default: the last column; y of an .npz file."
        ),
    ] = None
    task: Annotated[
        Literal["auto", "classification", "regression"],
        typer.Option(
            help="With auto, classification where the target is text, boolean or whole numbers "
            "of at most 20 different values."
        ),
    ] = "auto"
    model: Annotated[str, typer.Option(metavar="MODEL", help="multiplier, mlp or FILE.keras.")] = (
        "mlp"
    )
    estimator: Annotated[
        str,
        typer.Option(
            metavar="NAME", help="How gradients pass: auto, or one of quantal.estimators."
        ),
    ] = "auto"
    epochs: Annotated[int, typer.Option(min=1, help="Rounds over the training rows.")] = 50
    patience: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="End after so many epochs without a lower loss on a tenth of the training rows, "
            "with the weights of the best. Default: all epochs, on all training rows.",
        ),
    ] = None
    batch_size: Annotated[int, typer.Option(min=1, help="Rows in a training step.")] = 32
    class_weight: Annotated[
        Literal["equal", "balanced"],
        typer.Option(help="With balanced, rare classes count as much as frequent ones."),
    ] = "equal"
    drop: Drop = dataclasses.field(default_factory=list)
    keep: Keep = dataclasses.field(default_factory=list)
    test_size: Annotated[
        float, typer.Option(min=0.01, max=0.99, help="The share of the rows that is held out.")
    ] = 0.2
    seed: Annotated[
        # NumPy's generators take seeds of 32 bits.
        int,
        typer.Option(
            min=0, max=2**32 - 1, help="Decides the split, the first weights and the batches."
        ),
    ] = 0
    out: Annotated[
        pathlib.Path | None,
        typer.Option(
            metavar="DIR",
            help="The folder for the files. Default: see above.",
        ),
    ] = None
    force: Force = False
    as_json: Json = False
    backend: Backend = None


@with_options(TrainOptions)
def train(options: TrainOptions) -> None:
    """Train on listed weights, and on free weights for comparison."""
    listed = parse_values(options.values)
    chosen = choose_backend(options.backend)
    # What training needs is imported before it, so that nothing is missing at its end.
    try:
        dataset = _read(options)
        if not options.as_json:
            typer.echo(f"{dataset}; Keras on {chosen}")
            for remark in dataset.remarks:
                typer.echo(f"  {remark}")
        start_keras(chosen)
        from quantal._command.comparison import build_pair
        from quantal._command.results import (
            FILES,
            TrainingResult,
            default_folder,
            prepare_folder,
            train_pair,
            write_files,
        )
    except ImportError as error:
        raise MissingPackage(f'{error}. Install it: pip install "quantal[command]"') from error
    _check_estimator(options.estimator)
    pair = build_pair(options.model, dataset, listed, options.estimator, options.seed)
    out = options.out or default_folder()
    prepare_folder(out, options.force)
    comparison = train_pair(pair, dataset, _training(options, dataset), out, options.as_json)
    write_files(out, comparison, dataset)
    result = TrainingResult(comparison, dataset, listed)
    show(result, options.as_json, folder=out, files=FILES)
    if not options.as_json:
        typer.echo(f"Written into {out}: {', '.join(FILES)}")


def _read(options: TrainOptions) -> Any:
    """Return the data set that the options name."""
    from quantal._command.datasets import Wanted, read_dataset

    wanted = Wanted(
        options.target, options.task, options.seed, options.drop, options.keep, options.test_size
    )
    return read_dataset(options.data, wanted)


def _training(options: TrainOptions, dataset: Any) -> Any:
    from quantal._command.comparison import Training

    balanced = is_balanced(options.class_weight, dataset)
    return Training(options.epochs, options.batch_size, options.seed, options.patience, balanced)


def _check_estimator(name: str) -> None:
    """Refuse a name that is no estimator's."""
    from quantal.estimators.policy import parse

    try:
        parse(name)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--estimator") from None
