"""The subcommand `quantal predict`."""

import pathlib
from typing import Annotated, Any

import typer

from quantal._command.backend import choose_backend, load_model, start_keras
from quantal._command.errors import MissingPackage, Unfit, check_new, refusals_of
from quantal._command.options import Backend, Force, Json, ModelFile
from quantal._command.output import show
from quantal._storage.atomic import replace_file

PREDICT_HELP = """Predict the rows of a new table with a saved model.

MODEL is a file that quantal train wrote; it knows its columns, words and classes, so
DATA needs its columns by name, in any order. Other columns are not used, and a word or
a gap that was never in training is named on standard error. Where DATA has the target,
too, the scores are shown there.

A model of your own takes the columns as numbers, in the order of its inputs.

The predictions are CSV on standard output, or in the file --out: row, prediction, and
the probability of each class.

Example: quantal predict quantal-run/model.keras new.csv --out predicted.csv
"""


def predict(
    model: ModelFile,
    data: Annotated[
        str, typer.Argument(metavar="DATA", help="A table, as quantal train reads it.")
    ],
    out: Annotated[
        pathlib.Path | None,
        typer.Option(metavar="FILE", help="Write the CSV into a file."),
    ] = None,
    force: Force = False,
    as_json: Json = False,
    backend: Backend = None,
) -> None:
    """Predict the rows of a new table with a saved model."""
    check_new(out, force)
    start_keras(choose_backend(backend))
    try:
        from quantal._command.table_model import encoding_of, read_rows
    except ImportError as error:
        raise MissingPackage(f'{error}. Install it: pip install "quantal[command]"') from error
    loaded = load_model(model)
    encoding = encoding_of(loaded)
    rows = read_rows(loaded, data)
    for remark in rows.remarks:
        typer.echo(f"quantal: {remark}", err=True)
    if not len(rows.numbers):
        raise Unfit(f"{data} has no rows. Expected a row for each prediction.")
    table, outputs = _predictions(loaded, encoding, rows.numbers, data)
    scores = _scores(encoding, data, rows, outputs)
    if as_json:
        show({"predictions": table.to_dict("records"), "scores": scores}, True)
    else:
        for name, score in scores.items():
            typer.echo(f"{name}: {'-' if score is None else f'{score:.4f}'}", err=True)
    if out is not None:
        with refusals_of(out), replace_file(out) as file:
            file.write(table.to_csv(index=False).encode())
        if not as_json:
            typer.echo(f"Written into {out}: {len(table)} predictions", err=True)
    elif not as_json:
        typer.echo(table.to_csv(index=False), nl=False)


def _predictions(model: Any, encoding: Any, numbers: Any, source: str) -> tuple[Any, Any]:
    """Return a frame of the predictions, and the model's outputs."""
    import numpy as np
    import pandas

    from quantal._command.scores import answers_of, outputs_of, probability_columns

    columns: dict[str, Any] = {"row": np.arange(1, len(numbers) + 1)}
    if encoding is None:
        outputs = np.asarray(model.predict(numbers, verbose=0)).reshape(len(numbers), -1)
        columns |= {f"output_{index}": column for index, column in enumerate(outputs.T)}
        return pandas.DataFrame(columns), outputs
    labels = None if encoding.classes is None else np.array(encoding.classes)
    outputs = outputs_of(model, numbers, source, labels)
    answers = answers_of(outputs, labels)
    columns["prediction"] = answers if labels is None else labels[answers]
    return pandas.DataFrame(columns | probability_columns(outputs, labels)), outputs


def _scores(encoding: Any, source: str, rows: Any, outputs: Any) -> dict[str, float | None]:
    """Return the scores, where the table has the target of every row."""
    if encoding is None or encoding.target not in rows.table:
        return {}
    if rows.table[encoding.target].isna().any():
        return {}
    from quantal._command.scores import scores_of
    from quantal._command.table_model import targets_of

    return scores_of(targets_of(encoding, source, rows), outputs, encoding.classes)
