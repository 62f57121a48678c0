"""The subcommand `quantal discretize`."""

import json
import pathlib
from typing import Annotated, Any

import typer

from quantal._command.backend import (
    choose_backend,
    load_model,
    prepare_file,
    save_model,
    start_keras,
)
from quantal._command.errors import refusals_of
from quantal._command.options import (
    Backend,
    Force,
    Json,
    ModelFile,
    SavedFile,
    parse_values,
)
from quantal._command.output import show

DISCRETIZE_HELP = """Put the weights of a saved model on lists.

One --values for every kernel, or --rules for each: JSON, or a file of it, from regular
expressions of weights' names to lists, for example '{"dense": "ternary", "last": null}'.
The first that matches a weight counts; null leaves it free.

With --budget or --bits, --values can be repeated: each kernel gets the list with which
the model fits and loses least, measured on the rows of --calibrate.

Example: quantal discretize net.keras small.keras --values ternary --calibrate data.csv
"""


def discretize(
    model: ModelFile,
    out: SavedFile,
    values: Annotated[
        list[str] | None,
        typer.Option(
            metavar="LIST", help="A list, as quantal train takes it; with a budget several."
        ),
    ] = None,
    rules: Annotated[
        str | None, typer.Option(metavar="JSON", help="Which weights go on which list.")
    ] = None,
    calibrate: Annotated[
        str | None,
        typer.Option(
            metavar="DATA", help="A table or an .npz file with x: keep the outputs on its rows."
        ),
    ] = None,
    budget: Annotated[
        str | None, typer.Option(metavar="BYTES", help='The most bytes, such as "60 kB".')
    ] = None,
    bits: Annotated[float | None, typer.Option(help="The most bits for an element.")] = None,
    scale: Annotated[
        str, typer.Option(help="A factor on the values: auto, learned, least_squares, none, ...")
    ] = "auto",
    estimator: Annotated[str, typer.Option(help="How gradients pass in training.")] = "auto",
    keep_ends: Annotated[
        bool, typer.Option("--keep-ends", help="Leave the first and the last kernel free.")
    ] = False,
    force: Force = False,
    as_json: Json = False,
    backend: Backend = None,
) -> None:
    """Put the weights of a saved model on lists."""
    lists = [parse_values(entry) for entry in values or []]
    parsed = _parsed_rules(rules)
    has_limit = budget is not None or bits is not None
    if not has_limit and (len(lists), parsed is None) not in ((1, True), (0, False)):
        raise typer.BadParameter(
            f"There are {len(lists)} lists and {'no' if parsed is None else 'some'} rules. "
            "Expected one --values, or --rules, or with --budget or --bits several --values."
        )
    prepare_file(out, force)
    start_keras(choose_backend(backend))
    from quantal._command.table_model import inputs_of
    from quantal._models.discretize import discretize as put_on_lists
    from quantal._models.summary import summary

    loaded = load_model(model, is_compiled=True)
    samples = None if calibrate is None else inputs_of(loaded, calibrate)
    settings: dict[str, Any] = {
        "scale": None if scale == "none" else scale,
        "estimator": estimator,
        "keep_ends": keep_ends,
        "verbose": 0,
    }
    with refusals_of(out):
        if has_limit:
            limits: dict[str, Any] = {
                "budget": budget,
                "bits": bits,
                "values": lists,
                "data": samples,
            }
            new = put_on_lists(loaded, parsed, **limits, **settings)
        else:
            parsed = lists[0] if parsed is None else parsed
            new = put_on_lists(loaded, parsed, calibrate=samples, **settings)
        save_model(new, out)
        show(
            summary(new, compared_with=loaded), as_json, file=out, bytes_written=out.stat().st_size
        )
    if not as_json:
        typer.echo(f"Written into {out}: {out.stat().st_size:,} bytes")


def _parsed_rules(text: str | None) -> Any:
    """Return the rules that JSON, or a file of it, holds."""
    if text is None:
        return None
    try:
        content = text if text.lstrip().startswith("{") else pathlib.Path(text).read_text()
        rules = json.loads(content)
        if not isinstance(rules, dict):
            raise ValueError(f"it holds {type(rules).__name__}, no object")
        return rules
    except (OSError, ValueError) as error:
        raise typer.BadParameter(
            f"{text!r} is neither JSON nor a file of it: {error}. Expected something like "
            '\'{"dense": "ternary", "last": null}\'.',
            param_hint="--rules",
        ) from None
