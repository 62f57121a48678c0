"""The subcommand `quantal search`."""

import pathlib
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray

from quantal._command.errors import Unfit, Unreadable, refusals_of
from quantal._command.options import Json, Seed, ValuesList, parse_values
from quantal._command.output import show

if TYPE_CHECKING:
    from quantal.objectives.objective import Objective

AUTOCORRELATION = "autocorrelation"

SEARCH_HELP = """Search for the best vector of an objective, each element from a list.

\b
OBJECTIVE is one of:
  a square matrix Q   the loss is v @ Q @ v
  a row or column a   the loss is (a @ v)²: with ±1, two halves of equal sums
  autocorrelation     the energy of the sidelobes of a code of the length --n

The matrix or the numbers are in a .csv file, numbers alone, or in a .npy file. No
backend of Keras is needed.

Example: quantal search autocorrelation --n 31
"""


def search(
    objective: Annotated[
        str, typer.Argument(metavar="OBJECTIVE", help="A file or a name, see above.")
    ],
    values: ValuesList = "-1,1",
    n: Annotated[int | None, typer.Option(min=1, help="The length of an autocorrelation.")] = None,
    budget: Annotated[float, typer.Option(help="Seconds to search for.")] = 10.0,
    evaluations: Annotated[
        int | None,
        typer.Option(min=1, help="The most losses to compute, instead of --budget: repeatable."),
    ] = None,
    seed: Seed = 0,
    maximize: Annotated[
        bool, typer.Option("--maximize", help="Search for the largest number, not the smallest.")
    ] = False,
    file: Annotated[
        pathlib.Path | None,
        typer.Option(help="A checkpoint: written as it goes; if it exists, the search goes on."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Search for the best vector of an objective, each element from a list."""
    listed = parse_values(values)
    from quantal._optimize.budget import Budget
    from quantal._optimize.search.search import search as look

    with refusals_of(file or ""):
        limit = Budget(seconds=budget) if evaluations is None else Budget(evaluations=evaluations)
        loss = _objective(objective, n)
        result = look(
            loss,
            listed.tolist(),
            len(loss),
            limit,
            seed,
            maximize=maximize,
            file=file,
            verbose=0,
        )
    if as_json:
        show(_content(result), True)
        return
    typer.echo(" ".join(f"{number:g}" for number in result.vector))
    show(result, False)


def _content(result: Any) -> dict[str, Any]:
    """Return what a program wants to know of a result."""
    names = ("vector", "codes", "loss", "bound", "proved", "maximize", "evaluations", "note")
    return {name: getattr(result, name) for name in names}


def _objective(text: str, n: int | None) -> "Objective":
    """Return the objective that a name or the numbers of a file stand for."""
    from quantal.objectives.autocorrelation import Autocorrelation
    from quantal.objectives.quadratic import Quadratic

    if text == AUTOCORRELATION:
        if n is None:
            raise typer.BadParameter("autocorrelation needs the length of the code: --n 31")
        return Autocorrelation(n)
    matrix = _numbers(text)
    if n is not None and n != matrix.shape[1]:
        raise Unfit(f"--n is {n}, and {text} has {matrix.shape[1]} columns. Leave --n out.")
    if matrix.shape[0] == 1:
        return Quadratic(matrix.T @ matrix)
    return Quadratic(matrix)


def _numbers(path: str) -> NDArray[np.float64]:
    """Return the numbers of a file, shape (rows, columns); a column as a row."""
    if not pathlib.Path(path).is_file():
        raise Unreadable(
            f"{path!r} is neither the name of an objective nor a file. Expected "
            f"{AUTOCORRELATION!r}, or a .csv or .npy file, from the folder {pathlib.Path.cwd()}."
        )
    try:
        if path.lower().endswith(".npy"):
            array = np.load(path, allow_pickle=False)
        else:
            array = np.loadtxt(path, delimiter=",", ndmin=2)
        matrix = np.atleast_2d(np.asarray(array, np.float64))
    except (ValueError, TypeError, OSError, EOFError) as error:
        raise Unreadable(
            f"{path} cannot be read: {error}. Expected numbers alone, separated by commas, "
            "without a header; or an array that numpy.save wrote."
        ) from error
    matrix = matrix.T if matrix.ndim == 2 and matrix.shape[1] == 1 else matrix
    if matrix.ndim != 2 or matrix.shape[0] not in (1, matrix.shape[1]):
        raise Unfit(
            f"{path} has the shape {matrix.shape}. Expected a square matrix, or one row or column."
        )
    return matrix
