"""Print what a subcommand returns: for people, or as JSON for programs."""

import dataclasses
import json
import sys
from typing import Any

import typer

from quantal._core.views import plain


def show(result: Any, as_json: bool, **more: Any) -> None:
    """Print a result as its text, or as one object of JSON.

    Args:
        result: An object with a text and `to_dict`, a dataclass with a text, or a dict.
        as_json: Whether to print JSON.
        more: Further entries of the JSON object, such as the files that were written.
    """
    if not as_json:
        if sys.stdout.isatty() and hasattr(result, "table"):
            result.table().print()
        else:
            typer.echo(str(result))
        return
    if isinstance(result, dict):
        content = result
    else:
        content = result.to_dict() if hasattr(result, "to_dict") else dataclasses.asdict(result)
    typer.echo(json.dumps(plain({**content, **more}), ensure_ascii=False, allow_nan=False))
