"""Arguments and options that several subcommands share."""

import dataclasses
import inspect
import pathlib
from collections.abc import Callable
from typing import Annotated, Any, Literal

import typer

from quantal._core.numbers.values import Values

ModelFile = Annotated[
    str,
    typer.Argument(
        metavar="MODEL", help="A file of model.save or quantal.save, or a folder of quantal train."
    ),
]
Backend = Annotated[
    Literal["tensorflow", "jax", "torch"] | None,
    typer.Option(envvar="KERAS_BACKEND", help="Default: the first of these that is installed."),
]
SavedFile = Annotated[
    pathlib.Path,
    typer.Argument(
        metavar="OUT", help="The file to write: .keras, to train on, or .quantal, packed."
    ),
]
Force = Annotated[bool, typer.Option("--force", help="Replace what is there.")]
Json = Annotated[
    bool, typer.Option("--json", help="Print the result as JSON, and nothing else, on stdout.")
]
ValuesList = Annotated[
    str,
    typer.Option(
        metavar="LIST",
        help='The list: numbers separated by commas ("1,-1,0.5,-0.5"), or a preset such as '
        "ternary, nf4, signed:4 or powers_of_two:4.",
    ),
]
Drop = Annotated[
    list[str], typer.Option(metavar="COLUMN", help="Leave a column out; can be repeated.")
]
Keep = Annotated[
    list[str],
    typer.Option(
        metavar="COLUMN",
        help="Keep a column that looks like row numbers, identifiers or free text; can be "
        "repeated.",
    ),
]
Seed = Annotated[
    # NumPy's generators take seeds of 32 bits.
    int,
    typer.Option(min=0, max=2**32 - 1, help="The same seed draws the same random numbers."),
]


def parse_values(text: str, option: str = "--values") -> Values:
    """Return the list that numbers separated by commas, or a preset's name, stand for."""
    entries: list[float] | str
    try:
        entries = [float(entry) for entry in text.split(",")]
    except ValueError:
        entries = text.strip()
    try:
        return Values(entries)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint=option) from None


def is_balanced(class_weight: str, dataset: Any) -> bool:
    """Return whether classes are to count alike; refuse that for a target without classes."""
    if class_weight == "balanced" and dataset.labels is None:
        raise typer.BadParameter(
            f"{dataset.name} has no classes, since its target is a number. Leave it out.",
            param_hint="--class-weight",
        )
    return class_weight == "balanced"


def with_options(kind: type) -> Callable[[Callable[[Any], None]], Callable[..., None]]:
    """Let a subcommand take one object, whose fields are its arguments and options.

    Args:
        kind: A dataclass; a field is annotated as typer wants it, and has its default.
    """

    def decorate(run: Callable[[Any], None]) -> Callable[..., None]:
        def subcommand(**arguments: Any) -> None:
            run(kind(**arguments))

        parameters = [
            inspect.Parameter(
                field.name,
                inspect.Parameter.KEYWORD_ONLY,
                default=_default(field),
                annotation=field.type,
            )
            for field in dataclasses.fields(kind)
        ]
        subcommand.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        subcommand.__annotations__ = {field.name: field.type for field in dataclasses.fields(kind)}
        subcommand.__name__, subcommand.__doc__ = run.__name__, run.__doc__
        return subcommand

    return decorate


def _default(field: "dataclasses.Field[Any]") -> Any:
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return inspect.Parameter.empty if field.default is dataclasses.MISSING else field.default
