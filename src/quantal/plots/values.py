"""Draw the values that parameters have, and how often each is used."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from quantal._core.numbers.values import ValuesLike
from quantal.plots._drawing import (
    FEW_LABELS,
    MOST_LABELS,
    ROW_HEIGHT,
    as_written,
    colors_of,
    draw_color_bar,
    draw_ranks,
    ink,
    label_positions,
    label_values,
    labels_of,
    new_figure,
    open_frame,
    spaced,
)
from quantal.plots._matplotlib import Figure
from quantal.plots._sources import Listed, check_listed, checked_most, heading_of, listed_in

MOST_STEMS = 320
"""A longer vector is folded into an image: its stems would be thinner than a pixel."""

TALL_ROW = 3.3
"""Inches of a row with names or many labels."""

TITLE_SIZE = 44
"""Characters above a picture of elements: more would meet the title beside it."""

MOST_NAMES, MOST_NAMES_OF_ROWS = 32, 16
"""So many positions of a vector, and rows of a matrix, have names on an axis."""


def plot_values(
    source: Any,
    values: ValuesLike | None = None,
    *,
    names: Sequence[str] | None = None,
    most: int = 8,
    title: str = "",
) -> Figure:
    """Draw the values that each parameter has, and how often it uses each of its list.

    Use it to see after training what was learned, or whether some values are idle. A
    parameter takes a row: on the left a stem for each position of a vector, or an image
    of a matrix; on the right a bar for each value of its list. A vector of many elements is
    folded into rows. More than two axes are drawn as a matrix with the last axis across.
    Values are those of the list, without a scale, which the title names where it has room.

    Args:
        source: A built model or layer, a parameter, a list of parameters, a result of
            `quantal.search`, or an array of listed numbers such as `layer.kernel`.
        values: The list of an array; None to take the array's different numbers.
        names: Names of the positions of the first axis, such as the columns of a table; the
            parameters with as many positions have them.
        most: The number of parameters to draw, the first ones, at least 1.
        title: Text above the figure.

    Returns:
        A matplotlib figure; `figure.savefig("values.png")` writes it. It belongs to no
        window and to no pyplot state.

    Raises:
        TypeError: `source` is something else.
        ValueError: There is no parameter, `most` is below 1, no parameter has as many positions
            as there are names, or a number of an array is not in the list.

    Example:
    >>> import keras, quantal
    >>> model = keras.Sequential([keras.Input((3,)), quantal.LearnableMultiplier()])
    >>> len(plot_values(model, names=["height", "width", "weight"]).axes)
    2
    """
    listed = listed_in(source, values, names)
    shown = listed[: checked_most(most)]
    for entry in shown:
        check_listed(entry)
    heading = heading_of(title, len(listed) - len(shown))
    heights = [_height_of(entry) for entry in shown]
    figure = new_figure((0.4 if heading else 0.1) + sum(heights), heading)
    axes = figure.subplots(
        len(shown), 2, width_ratios=[2.7, 1], height_ratios=heights, squeeze=False
    )
    for (left, right), entry in zip(axes, shown, strict=True):
        _draw_elements(left, entry)
        _draw_usage(right, entry)
    return figure


def _height_of(listed: Listed) -> float:
    """Return the inches of a parameter's row: names, and many labels, need more of them."""
    has_many_labels = FEW_LABELS < len(listed.values) <= MOST_LABELS
    return TALL_ROW if has_many_labels or listed.names else ROW_HEIGHT


def _draw_elements(axes: Any, listed: Listed) -> None:
    """Draw the values of one parameter's elements."""
    axes.set_title(as_written(listed.title(TITLE_SIZE)), loc="left", fontsize="medium")
    codes = listed.codes
    if codes.size == 0:
        axes.set_axis_off()
    elif codes.ndim < 2 and codes.size <= MOST_STEMS:
        _draw_stems(axes, listed)
    else:
        _draw_image(axes, listed)


def _draw_stems(axes: Any, listed: Listed) -> None:
    """Draw a vector as stems, one for each position."""
    ranks, ascending = listed.ranks.ravel(), listed.ascending
    heights = listed.values.take(listed.codes).ravel().astype(float)
    colors = colors_of(ascending)[ranks]
    reach = float(ascending[-1] - ascending[0]) or abs(float(ascending[0])) or 1.0
    # Zero is where stems start, unless the whole list lies far from it.
    far = min(abs(ascending[0]), abs(ascending[-1])) > 2 * reach
    foot = float(ascending[0] - 0.1 * reach) if far else 0.0
    low = min(float(ascending[0]), float(heights.min()), foot)
    high = max(float(ascending[-1]), float(heights.max()), foot)
    positions = np.arange(len(ranks))
    width = float(np.clip(200 / len(ranks), 0.5, 4))
    axes.vlines(positions, foot, heights, colors=colors, linewidth=width)
    axes.scatter(
        positions, heights, color=colors, s=np.clip(1000 / len(ranks), 4, 36), zorder=3,
        edgecolors=ink(), linewidths=0.4 if len(ranks) <= 100 else 0.0,
    )  # fmt: skip
    axes.axhline(foot, color=ink(), linewidth=0.6)
    label_values(axes.yaxis, ascending, listed.values.channels is not None, high - low)
    axes.set_ylim(low - 0.12 * reach, high + 0.12 * reach)
    axes.set_xlim(-0.8, len(ranks) - 0.2)
    label_positions(axes.xaxis, listed.names, MOST_NAMES)
    if len(ranks) == 1 and not listed.names:
        axes.set_xticks([0])
    _turn_names(axes, listed.names)
    axes.grid(axis="y", alpha=0.3, linewidth=0.6)
    axes.set(xlabel="" if listed.names else "position", ylabel="value")
    open_frame(axes)


def _turn_names(axes: Any, names: Sequence[str]) -> None:
    """Turn names upright where they would meet each other side by side."""
    if not names:
        return
    shown = min(len(names), MOST_NAMES)
    is_long = shown * (max(map(len, names)) + 1) > 54
    axes.tick_params(axis="x", rotation=90 if is_long else 0, labelsize="small")


def _draw_image(axes: Any, listed: Listed) -> None:
    """Draw a matrix, or a folded vector, as an image with a bar of colours."""
    ranks, ascending = listed.ranks, listed.ascending
    if ranks.ndim < 2:
        mappable = _draw_folded(axes, ranks, ascending)
    else:
        mappable = draw_ranks(axes, ranks.reshape(-1, ranks.shape[-1]), ascending)
        axes.set(xlabel=f"axis {ranks.ndim - 1}")
        axes.set(ylabel="axis 0" if ranks.ndim == 2 else "other axes")
        if listed.names and ranks.ndim == 2:
            label_positions(axes.yaxis, listed.names, MOST_NAMES_OF_ROWS)
            axes.tick_params(axis="y", labelsize="small")
            axes.set(ylabel="")
    draw_color_bar(axes, mappable, labels_of(ascending, listed.values.channels is not None))


def _draw_folded(axes: Any, ranks: Any, ascending: Any) -> Any:
    """Draw a long vector in rows, each labelled with the position that it begins with."""
    columns = 20 * int(np.ceil(np.sqrt(2.5 * len(ranks)) / 20))
    rows = -(-len(ranks) // columns)
    filled = np.resize(ranks, (rows, columns))  # The repeated end is not shown.
    is_missing = np.arange(rows * columns).reshape(rows, columns) >= len(ranks)
    mappable = draw_ranks(axes, np.ma.array(filled, mask=is_missing), ascending)
    starts = spaced(rows, 6)
    axes.set_yticks(starts, [f"{row * columns:,}" for row in starts])
    axes.set(xlabel=f"position, {columns} in a row", ylabel="row begins at")
    return mappable


def _draw_usage(axes: Any, listed: Listed) -> None:
    """Draw a bar for each value, as long as the number of elements that have it."""
    axes.set_title("use of each value", loc="left", fontsize="medium")
    counts, ascending = listed.usage, listed.ascending
    rows = np.arange(len(ascending))
    is_short = len(ascending) <= MOST_LABELS
    colors = colors_of(ascending)
    # A bar of a long list would be thinner than a pixel without an edge of its colour.
    axes.barh(
        rows, counts, color=colors, height=0.8 if is_short else 1.0,
        edgecolor=ink() if is_short else colors, linewidth=0.4 if is_short else 0.6,
    )  # fmt: skip
    labelled = spaced(len(ascending), MOST_LABELS if is_short else FEW_LABELS)
    labels = labels_of(ascending, listed.values.channels is not None)
    axes.set_yticks(labelled, [labels[rank] for rank in labelled])
    axes.tick_params(
        axis="y", labelsize="small" if len(ascending) <= FEW_LABELS else "x-small", length=0
    )
    axes.set_ylim(-0.6, len(ascending) - 0.4)
    axes.set_xlim(0, max(int(counts.max()), 1) * (1.35 if is_short else 1.05))
    axes.xaxis.get_major_locator().set_params(integer=True, nbins=3)
    axes.set_xlabel("elements")
    if is_short:
        total = max(int(counts.sum()), 1)
        for row, count in zip(rows, counts, strict=True):
            axes.annotate(
                f"{count / total:.1%}",
                (count, row),
                xytext=(3, 0),
                textcoords="offset points",
                va="center",
                fontsize="x-small",
            )
    open_frame(axes)
