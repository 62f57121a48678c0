"""The subcommand `quantal sweep`."""

import dataclasses
import pathlib
from typing import Annotated, Any, Literal

import typer

from quantal._command.backend import choose_backend, start_keras
from quantal._command.errors import MissingPackage, refusals_of
from quantal._command.options import (
    Backend,
    Drop,
    Json,
    Keep,
    is_balanced,
    parse_values,
    with_options,
)
from quantal._command.output import show

SWEEP_HELP = """Train a model on several lists, and say which of them to take.

DATA and the models are those of quantal train, but each channel of a kernel has a
scale, which the first weights are fitted with; the rows held out compare the lists.
With --file every trial is kept once it is done, and after a kill the same command goes
on. Ctrl-C ends a sweep with what is done.

Example: quantal sweep digits --values float --values binary --values ternary --seeds 0,1,2
"""
FLOATS = "float"
"""The name of free floats among the lists."""
BALANCED = "balanced_accuracy"
"""The metric of `--class-weight balanced`, named as `train` names it."""


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
    class_weight: Annotated[
        Literal["equal", "balanced"],
        typer.Option(
            help="With balanced, rare classes count as much as frequent ones, in training and in "
            "the comparison: by balanced accuracy."
        ),
    ] = "equal"
    model: Annotated[str, typer.Option(metavar="MODEL", help="mlp or FILE.keras.")] = "mlp"
    target: Annotated[
        str | None,
        typer.Option(metavar="COLUMN", help="What to predict. Default: the last column."),
    ] = None
    drop: Drop = dataclasses.field(default_factory=list)
    keep: Keep = dataclasses.field(default_factory=list)
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

        wanted = Wanted(target=options.target, drop=options.drop, keep=options.keep)
        dataset = read_dataset(options.data, wanted)
        if not options.as_json:
            typer.echo(f"{dataset}; Keras on {chosen}")
            for remark in dataset.remarks:
                typer.echo(f"  {remark}")
        start_keras(chosen)
        from quantal._command.comparison import rules_for
        from quantal._sweep.sweep import sweep as compare
    except ImportError as error:
        raise MissingPackage(f'{error}. Install it: pip install "quantal[command]"') from error
    balanced = is_balanced(options.class_weight, dataset)
    model = _compiled(options.model, dataset, balanced)
    with refusals_of(options.file or ""):
        result = compare(
            model,
            values={
                name: None if values is None else rules_for(model, values)
                for name, values in lists.items()
            },
            estimators=[name.strip() for name in options.estimators.split(",")],
            learning_rates=rates,
            seeds=seeds,
            epochs=options.epochs,
            batch_size=options.batch_size,
            file=options.file,
            start="fresh" if options.model == "mlp" else "model",
            verbose=0 if options.as_json else 1,
            **_rows_for(dataset, balanced),
        )
        if options.csv is not None:
            result.to_csv(options.csv)
        if options.picture is not None:
            result.picture().savefig(options.picture)
    baseline = _baseline_of(dataset, result.metric)
    show(result, options.as_json, **({} if baseline is None else {"baseline": baseline}))
    if baseline is not None and not options.as_json:
        typer.echo(_on_baseline(result, baseline, balanced))


def _rows_for(dataset: Any, balanced: bool) -> dict[str, Any]:
    """Return what `fit` takes: the rows to train on and to compare on, and weights of classes."""
    from quantal._command.comparison import class_weights_of, scaled_rows

    x, y = scaled_rows(dataset, dataset.training)
    others = scaled_rows(dataset, dataset.held_out)
    if not balanced:
        return {"x": x, "y": y, "validation_data": others}
    import numpy as np

    weights = class_weights_of(others[1])
    of_rows = np.array([weights[int(label)] for label in others[1]], np.float32)
    data = {"x": x, "y": y, "validation_data": (*others, of_rows)}
    return data | {"class_weight": class_weights_of(y)}


def _baseline_of(dataset: Any, metric: str) -> float | None:
    """Return the score of the most frequent class alone; None where there are no classes."""
    if dataset.labels is None:
        return None
    from quantal._command.scores import baseline_of, scores_of

    target = dataset.target[dataset.held_out]
    scores = scores_of(target, baseline_of(dataset, len(target)), dataset.labels)
    return scores.get(metric.replace("_", " "))


def _on_baseline(result: Any, baseline: float, balanced: bool) -> str:
    """Return what the most frequent class alone says of the scores of a sweep."""
    metric = result.metric.replace("_", " ")
    said = f"The most frequent class alone has {metric} {baseline:.4f}"
    listed = [cell.mean for cell in result.cells if cell.scores and not cell.is_free]
    best = max(listed, default=baseline)
    # Keras counts in float32.
    if best > baseline + 1e-6:
        return f"{said}."
    advice = "try more epochs" if balanced else "try --class-weight balanced, or more epochs"
    return f"{said}, and no list more: {advice}."


def _compiled(name: str, dataset: Any, balanced: bool) -> Any:
    """Return the free model of quantal train, compiled; with the metric to compare by first."""
    import keras

    from quantal._command.comparison import LEARNING_RATE, build_free, ending_of, loss_of

    model = build_free(name, dataset)
    ending, optimizer = ending_of(model, dataset), keras.optimizers.Adam(LEARNING_RATE)
    if balanced:
        # The weights of the rows make all classes count alike in it.
        metric: Any = keras.metrics.SparseCategoricalAccuracy(BALANCED)
        if ending.is_single:
            threshold = 0.5 if ending.is_probability else 0.0
            metric = keras.metrics.BinaryAccuracy(BALANCED, threshold=threshold)
        model.compile(optimizer, loss_of(ending), weighted_metrics=[metric])
    else:
        metrics = [] if dataset.labels is None else ["accuracy"]
        model.compile(optimizer, loss_of(ending), metrics=metrics)
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
