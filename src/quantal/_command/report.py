"""The subcommand `quantal report`."""

import pathlib
from typing import Annotated, Any

import typer

from quantal._command.backend import choose_backend, load_model, start_keras
from quantal._command.errors import check_new, refusals_of
from quantal._command.options import Backend, Force, Json, ModelFile
from quantal._command.output import show

REPORT_HELP = """Write a page about a model: numbers, pictures, and how to load it.

The page is one HTML file that needs nothing else. With --data, rows that the model was
not trained on, it says how good the model is, and for a small one what single changes
of its values would do.

Example: quantal report quantal-run/model.keras report.html --data test.csv
"""


def report(
    model: ModelFile,
    path: Annotated[pathlib.Path, typer.Argument(metavar="PATH", help="The .html file to write.")],
    history: Annotated[
        str | None, typer.Option(metavar="FILE", help="What Keras's CSVLogger wrote in training.")
    ] = None,
    data: Annotated[
        str | None, typer.Option(metavar="DATA", help="A table with the target, for scores.")
    ] = None,
    compared_with: Annotated[
        str | None, typer.Option(metavar="MODEL", help="The model before discretize.")
    ] = None,
    title: Annotated[str | None, typer.Option(help="The page's heading.")] = None,
    target: Annotated[
        str | None,
        typer.Option(metavar="COLUMN", help="The target of a model that quantal did not train."),
    ] = None,
    force: Force = False,
    as_json: Json = False,
    backend: Backend = None,
) -> None:
    """Write a page about a model: numbers, pictures, and how to load it."""
    check_new(path, force)
    start_keras(choose_backend(backend))
    from quantal._report.report import report as write

    loaded = load_model(model, is_compiled=True)
    original = None if compared_with is None else load_model(compared_with, is_compiled=True)
    samples = None if data is None else _samples(loaded, model, data, target)
    with refusals_of(path):
        write(
            loaded,
            path,
            history=history,
            data=samples,
            compared_with=original,
            names=_names(loaded),
            title=title,
        )
    size = path.stat().st_size
    if as_json:
        show({"file": path, "bytes": size}, True)
    else:
        typer.echo(f"Written into {path}: {size:,} bytes")


def _samples(loaded: Any, model: str, data: str, target: str | None) -> Any:
    from quantal._command.table_model import compile_for_table, samples_of

    compile_for_table(loaded, model)
    return samples_of(loaded, data, target)


def _names(loaded: Any) -> list[str] | None:
    """Return the names of the features, where a weight has an element or a row for each."""
    from quantal._command.table_model import encoding_of
    from quantal._core.parameter import parameters_of

    encoding = encoding_of(loaded)
    names = [] if encoding is None else [feature.name for feature in encoding.plan.features]
    fits = any(p.shape[:1] == (len(names),) for p in parameters_of(loaded))
    return names if fits else None
