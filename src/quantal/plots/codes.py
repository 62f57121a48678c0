"""Draw the codes of parameters over the epochs of a run."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quantal._core.numbers.values import ValuesLike
from quantal.plots._drawing import (
    ROW_HEIGHT,
    as_written,
    draw_color_bar,
    draw_ranks,
    label_positions,
    labels_of,
    new_figure,
    spaced,
)
from quantal.plots._matplotlib import Figure
from quantal.plots._sources import checked_most, heading_of
from quantal.plots._watched import WatchedCodes, watched

MOST_NAMES = 16
"""So many elements have names on an axis."""


def plot_codes(
    watch: Any,
    values: ValuesLike | None = None,
    *,
    names: Sequence[str] | None = None,
    most: int = 6,
    title: str = "",
) -> Figure:
    """Draw which value each element had after each epoch, an image a parameter.

    Use it to see when elements were decided, and which of them went to and fro. A line of
    the image is an element, its colour the value that it had. The title says in which epoch the
    last element flipped.

    Args:
        watch: The callback `quantal.callbacks.Watch` of a run, or an array of integer codes,
            (epochs + 1, elements).
        values: The list of an array's codes; None where the codes themselves are named.
        names: Names of the elements of a vector, such as the columns of a table.
        most: The number of parameters to draw, the first ones, at least 1.
        title: Text above the figure.

    Returns:
        A matplotlib figure; `figure.savefig("codes.png")` writes it.

    Raises:
        TypeError: `watch` is something else, or codes are no integers.
        ValueError: There is nothing to draw, or a code is not in the list.

    Example:
    >>> figure = plot_codes([[0, 1, 1], [0, 0, 1], [0, 0, 1]], values=[1, -1])
    >>> figure.axes[0].get_title(loc="left")
    '3 elements,  last flip in epoch 1'
    """
    runs = watched(watch, values)
    shown = list(runs.values())[: checked_most(most)]
    if names is not None:
        shown = [_named(run, names) for run in shown]
        _check_named(shown, names)
    heading = heading_of(title, len(runs) - len(shown))
    figure = new_figure((0.4 if heading else 0.1) + ROW_HEIGHT * len(shown), heading)
    for axes, run in zip(figure.subplots(len(shown), squeeze=False).ravel(), shown, strict=True):
        _draw_run(axes, run)
    return figure


def _named(run: WatchedCodes, names: Sequence[str]) -> WatchedCodes:
    """Return a run with the names of its elements, where there are as many."""
    words = tuple(map(str, names))
    if run.codes.shape[1] != len(words):
        return run
    return dataclasses.replace(run, names=words)


def _check_named(runs: Sequence[WatchedCodes], names: Sequence[str]) -> None:
    if not any(run.names for run in runs):
        counts = ", ".join(str(run.codes.shape[1]) for run in runs)
        raise ValueError(
            f"names has {len(names)} names, and there are {counts} elements. Expected a name for "
            "each element of one parameter."
        )


def _draw_run(axes: Any, run: WatchedCodes) -> None:
    """Draw the codes of one parameter: epochs across, elements down."""
    ascending, labels = _list_of(run)
    ranks = run.codes if run.values is None else np.argsort(run.values.order)[run.codes]
    mappable = draw_ranks(axes, ranks.T, ascending)
    draw_color_bar(axes, mappable, labels)
    count = len(run.elements)
    if run.names:
        label_positions(axes.yaxis, run.names, MOST_NAMES)
        axes.tick_params(axis="y", labelsize="small")
    else:
        rows = spaced(count, 6)
        axes.set_yticks(rows, [f"{run.elements[row]:,}" for row in rows])
        axes.set(ylabel="element")
    axes.set(xlabel="epoch")
    last = f"last flip in epoch {run.last_flip}" if run.last_flip else "no flip"
    parts = [as_written(run.path), f"{count:,} elements", last]
    axes.set_title(",  ".join(filter(None, parts)), loc="left", fontsize="medium")


def _list_of(run: WatchedCodes) -> tuple[NDArray[np.float64], list[str]]:
    """Return the ascending list of a run and its labels; codes stand for values without one."""
    if run.values is None:
        codes = np.arange(int(run.codes.max()) + 1, dtype=float)
        return codes, [f"code {int(code)}" for code in codes]
    ascending = run.values.ascending.astype(float)
    return ascending, labels_of(ascending)
