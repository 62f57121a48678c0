"""The subcommand `quantal sweep`."""

import dataclasses
import pathlib
from typing import Annotated, Any

import typer

from quantal._command.backend import choose_backend, start_keras
from quantal._command.errors import MissingPackage, refusals_of
from quantal._command.options import Backend, Json, parse_values, with_options
from quantal._command.output import show

SWEEP_HELP = """Train a model on several lists, and say which of them to take.

DATA and the models are those of quantal train; the rows held out compare the lists.
With --file every trial is kept once it is done, and after a kill the same command goes
on. Ctrl-C ends a sweep with what is done.

Example: quantal sweep digits --values float --values binary --values ternary --seeds 0,1,2
"""
FLOATS = "float"
"""The name of free floats among the lists."""


@dataclasses.dataclass(frozen=True)
class SweepOptions:
    """The arguments and options of `quantal sweep`: each has its help here."""

    data: Annotated[
        str,
        typer.Argument(metavar="DATA", help="A table or a data set, as quantal train reads it."),
    ]
    values: Annotated[
        list[str],
        typer.Option(
            metavar="LIST", help="A list, or float for free floats; repeat it for each list."
        ),
    ]
    estimators: Annotated[
        str, typer.Option(metavar="NAMES", help="Names, separated by commas.")
    ] = "auto"
    learning_rates: Annotated[
        str, typer.Option(metavar="NUMBERS", help="Rates of Adam, separated by commas.")
    ] = "0.01"
    seeds: Annotated[
        str,
        typer.Option(
            metavar="NUMBERS", help="Seeds, separated by commas; three tell chance from gain."
        ),
    ] = "0"
    epochs: Annotated[int, typer.Option(min=1, help="Rounds over the training rows.")] = 10
    batch_size: Annotated[int, typer.Option(min=1, help="Rows in a training step.")] = 32
    model: Annotated[str, typer.Option(metavar="MODEL", help="mlp or FILE.keras.")] = "mlp"
    target: Annotated[
        str | None,
        typer.Option(metavar="COLUMN", help="What to predict. Default: the last column."),
    ] = None
    drop: Annotated[
        list[str], typer.Option(metavar="COLUMN", help="Leave a column out; can be repeated.")
    ] = dataclasses.field(default_factory=list)
    file: Annotated[
        pathlib.Path | None,
        typer.Option(help="Keep each trial here, and go on from it; needs the extra sweep."),
    ] = None
    csv: Annotated[pathlib.Path | None, typer.Option(help="Write every trial as CSV.")] = None
    picture: Annotated[
        pathlib.Path | None, typer.Option(help="Draw scores against bytes: .png, .svg.")
    ] = None
    as_json: Json = False
    backend: Backend = None


@with_options(SweepOptions)
def sweep(options: SweepOptions) -> None:
    """Train a model on several lists, and say which of them to take."""
    lists = {name: None if name == FLOATS else parse_values(name) for name in options.values}
    rates = _numbers(options.learning_rates, float, "--learning-rates")
    seeds = _numbers(options.seeds, int, "--seeds")
    chosen = choose_backend(options.backend)
    try:
        from quantal._command.datasets import Wanted, read_dataset

        dataset = read_dataset(options.data, Wanted(target=options.target, drop=options.drop))
        if not options.as_json:
            typer.echo(f"{dataset}; Keras on {chosen}")
            for remark in dataset.remarks:
                typer.echo(f"  {remark}")
        start_keras(chosen)
        from quantal._command.comparison import rules_for, scaled_rows
        from quantal._sweep.sweep import sweep as compare
    except ImportError as error:
        raise MissingPackage(f'{error}. Install it: pip install "quantal[command]"') from error
    model = _compiled(options.model, dataset)
    with refusals_of(options.file or ""):
        result = compare(
            model,
            *scaled_rows(dataset, dataset.training),
            values={
                name: None if values is None else rules_for(model, _without_scale(values))
                for name, values in lists.items()
            },
            estimators=[name.strip() for name in options.estimators.split(",")],
            learning_rates=rates,
            seeds=seeds,
            epochs=options.epochs,
            batch_size=options.batch_size,
            file=options.file,
            validation_data=scaled_rows(dataset, dataset.held_out),
            start="fresh" if options.model == "mlp" else "model",
            verbose=0 if options.as_json else 1,
        )
        if options.csv is not None:
            result.to_csv(options.csv)
        if options.picture is not None:
            result.picture().savefig(options.picture)
    show(result, options.as_json)


def _without_scale(values: Any) -> dict[str, Any]:
    """Return the specification of a list as quantal train uses it: the values alone."""
    return {"values": values, "scale": None}


def _compiled(name: str, dataset: Any) -> Any:
    """Return the free model of quantal train, compiled."""
    import keras

    from quantal._command.comparison import LEARNING_RATE, build_free, ending_of, loss_of

    model = build_free(name, dataset)
    metrics = [] if dataset.labels is None else ["accuracy"]
    optimizer = keras.optimizers.Adam(LEARNING_RATE)
    model.compile(optimizer, loss_of(ending_of(model, dataset)), metrics=metrics)
    return model


def _numbers(text: str, kind: Any, option: str) -> list[Any]:
    """Return the numbers that a text separates by commas."""
    try:
        return [kind(entry) for entry in text.split(",")]
    except ValueError:
        raise typer.BadParameter(
            f"{text!r} are no numbers separated by commas. Expected something like 0,1,2.",
            param_hint=option,
        ) from None
