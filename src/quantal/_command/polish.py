"""The subcommand `quantal polish`."""

import pathlib
from typing import Annotated

import typer

from quantal._command.backend import (
    choose_backend,
    load_model,
    prepare_file,
    save_model,
    start_keras,
)
from quantal._command.errors import refusals_of
from quantal._command.options import Backend, Force, Json, ModelFile, Seed
from quantal._command.output import show

POLISH_HELP = """Change the values of a trained model wherever that lowers its loss.

Use it after training. MODEL is a file that quantal train wrote, or a compiled model with
weights on lists. DATA has the columns that it was trained on, with the target; or arrays
x and y in an .npz file. Give --validation: without, noise in DATA is learned.

Example: quantal polish run/model.keras train.csv --validation test.csv --budget 30
"""


def polish(
    model: ModelFile,
    data: Annotated[str, typer.Argument(metavar="DATA", help="A table with the target.")],
    out: Annotated[
        pathlib.Path | None,
        typer.Option(metavar="FILE", help="The file to write. Default: MODEL-polished.keras."),
    ] = None,
    budget: Annotated[float, typer.Option(help="Seconds, without those of compiling.")] = 60.0,
    evaluations: Annotated[
        int | None,
        typer.Option(min=1, help="The most losses to compute, instead of --budget: repeatable."),
    ] = None,
    validation: Annotated[
        str | None,
        typer.Option(metavar="DATA", help="Other rows, which decide what is kept."),
    ] = None,
    continuous: Annotated[
        bool, typer.Option("--continuous", help="Train what is not on a list, too.")
    ] = False,
    target: Annotated[
        str | None,
        typer.Option(metavar="COLUMN", help="The target of a model that quantal did not train."),
    ] = None,
    seed: Seed = 0,
    force: Force = False,
    as_json: Json = False,
    backend: Backend = None,
) -> None:
    """Change the values of a trained model wherever that lowers its loss."""
    path = out or pathlib.Path(model).with_name(f"{pathlib.Path(model).stem}-polished.keras")
    prepare_file(path, force)
    start_keras(choose_backend(backend))
    from quantal._command.table_model import compile_for_table, samples_of
    from quantal._optimize.budget import Budget
    from quantal._optimize.polish.polish import polish as improve

    loaded = load_model(model, is_compiled=True)
    compile_for_table(loaded, model)
    x, y = samples_of(loaded, data, target)
    others = None if validation is None else samples_of(loaded, validation, target)
    with refusals_of(path):
        limit = Budget(seconds=budget) if evaluations is None else Budget(evaluations=evaluations)
        report = improve(
            loaded, x, y, limit, validation_data=others, continuous=continuous, seed=seed,
            verbose=0 if as_json else 1,
        )  # fmt: skip
        save_model(loaded, path)
    show(report, as_json, file=path)
    if not as_json:
        typer.echo(f"Written into {path}: {path.stat().st_size:,} bytes")
