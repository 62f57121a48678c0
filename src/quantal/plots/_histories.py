"""The numbers of a run, from a History, a file of CSVLogger or a dict."""

import csv
import os
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray


class Line(NamedTuple):
    """A line is a number of a run over its epochs.

    Attributes:
        epochs: The epochs that have it, from 1.
        numbers: The numbers, of the same length.
    """

    epochs: NDArray[np.float64]
    numbers: NDArray[np.float64]


def history_of(history: Any) -> dict[str, Line]:
    """Return the lines of a run by their names, such as `"val_loss"`.

    Args:
        history: What `fit` returned, its dict, or the path of a file that `CSVLogger` wrote.

    Raises:
        TypeError: It is something else.
        ValueError: It has no numbers, or a number that is none.
    """
    if isinstance(history, (str, os.PathLike)):
        return _of_file(history)
    numbers = getattr(history, "history", history)
    if not isinstance(numbers, dict):
        raise TypeError(
            f"history is {history!r} of type {type(history).__name__}. Expected what model.fit "
            "returned, its dict of lists, or the path of a file that CSVLogger wrote."
        )
    columns: dict[str, NDArray[np.float64]] = {}
    for name, column in numbers.items():
        array = np.asarray(column)
        if array.ndim != 1 or array.dtype.kind not in "biuf":
            raise ValueError(
                f"history has {column!r} for {name!r}. Expected a list with a number for each "
                "epoch. Give what model.fit returned."
            )
        columns[str(name)] = array.astype(float)
    count = max(map(len, columns.values()), default=0)
    if not count:
        raise ValueError("history has no numbers. Expected those of at least one epoch of fit.")
    epochs = np.asarray(getattr(history, "epoch", None) or np.arange(count), float) + 1
    return {
        name: Line(_epochs_of(name, len(column), epochs), column)
        for name, column in columns.items()
    }


def _epochs_of(name: str, count: int, epochs: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the epochs of a column: all, or every k-th where it was measured so.

    Raises:
        ValueError: There is no such k.
    """
    every = len(epochs) // max(count, 1)
    if len(epochs[every - 1 :: every]) != count:
        raise ValueError(
            f"history has {count} numbers for {name!r} and {len(epochs)} epochs. Expected a number "
            "for each epoch, or for every k-th one. Leave it out."
        )
    return epochs[every - 1 :: every]


def _of_file(path: str | os.PathLike[str]) -> dict[str, Line]:
    with open(path, newline="", encoding="utf-8-sig") as file:
        head = file.readline()
        file.seek(0)
        separator = next((mark for mark in ",;\t" if mark in head), ",")
        rows = [row for row in csv.DictReader(file, delimiter=separator) if row]
    if not rows:
        raise ValueError(f"{os.fspath(path)} has no rows. Expected the file that CSVLogger wrote.")
    columns = {
        str(name): np.array([_number(row[name], name, path) for row in rows]) for name in rows[0]
    }
    epochs = columns.pop("epoch", np.arange(len(rows), dtype=float)) + 1
    lines = {}
    for name, column in columns.items():
        has_number = ~np.isnan(column)
        lines[name] = Line(epochs[has_number], column[has_number])
    return lines


def _number(text: str | None, name: str, path: Any) -> float:
    if text is None or text.strip() in ("", "NA"):
        return float("nan")
    try:
        return float(text)
    except ValueError:
        raise ValueError(
            f"{os.fspath(path)} has {text!r} in the column {name!r}. Expected numbers, as "
            "CSVLogger writes them."
        ) from None
