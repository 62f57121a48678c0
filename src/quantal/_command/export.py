"""The subcommand `quantal export`."""

import pathlib
from typing import Annotated

import typer

from quantal._command.backend import choose_backend, load_model, start_keras
from quantal._command.errors import check_new, refusals_of
from quantal._command.options import Backend, Force, Json, ModelFile
from quantal._command.output import show


def export(
    model: ModelFile,
    path: Annotated[pathlib.Path, typer.Argument(metavar="PATH", help="The file to write.")],
    target: Annotated[
        str | None, typer.Option(help="The target's name. Default: what the ending says.")
    ] = None,
    check: Annotated[bool, typer.Option(help="Run it where its runtime is installed.")] = True,
    force: Force = False,
    as_json: Json = False,
    backend: Backend = None,
) -> None:
    """Write a model for another tool, and check it there.

    The report says how near the outputs are. Every ending has its target: .npz, .csv,
    .mem, .c, .keras, .pt, .onnx, .xml and .tflite; see docs/export.md.

    Example: quantal export quantal-run/model.keras model.onnx
    """
    check_new(path, force)
    start_keras(choose_backend(backend))
    from quantal._export.export import export as write

    loaded = load_model(model)
    with refusals_of(path):
        show(write(loaded, path, target, check=check), as_json)
