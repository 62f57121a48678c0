"""Print what a subcommand returns: for people, or as JSON for programs."""

import json
from typing import Any

import typer

from quantal._core.views import plain


def show(result: Any, as_json: bool, **more: Any) -> None:
    """Print a result as its text, or as one object of JSON.

    Args:
        result: An object with a text and `to_dict`, as every result of quantal has, or a dict.
        as_json: Whether to print JSON.
        more: Further entries of the JSON object, such as the files that were written.
    """
    if not as_json:
        typer.echo(str(result))
        return
    content = result if isinstance(result, dict) else result.to_dict()
    typer.echo(json.dumps(plain({**content, **more}), ensure_ascii=False, allow_nan=False))
