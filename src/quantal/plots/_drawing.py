"""What pictures share: their size, colours, the labels of lists, and axes of elements."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quantal.plots._matplotlib import (
    BoundaryNorm,
    Figure,
    LinearSegmentedColormap,
    ListedColormap,
    ScalarMappable,
    matplotlib,
)

WIDTH, ROW_HEIGHT = 7.0, 2.3
"""Inches of a figure, and of each parameter's row: text is readable where 600 pixels show it."""

DPI = 150
"""Pixels of an inch."""

MOST_LABELS = 16
"""The longest list of which every value has a label; more labels would overlap."""

FEW_LABELS = 9
"""So many values of a longer list have a label."""

LABEL_DISTANCE = 0.09
"""The smallest distance between two labels, as a share of the axis: a line of text."""

LINES = ("#2c6fbb", "#d1661e", "#4a9a6a", "#a06cc4", "#b08a1c", "#7c7c7c")
"""The colours of lines: three apart on light and on dark, and for all kinds of colour blindness
by their lightness; further lines have other dashes, too."""

DASHES: tuple[Any, ...] = ("-", (0, (5, 1.5)), (0, (1.5, 1.2)), (0, (5, 1.5, 1.5, 1.5)))
"""Dashes tell lines apart without their colours."""

_BELOW, _ZERO, _ABOVE = "#2a6fc4", "#c9c9c9", "#cf5a14"
"""Below zero is blue, above it orange: these two are apart for all kinds of colour blindness."""

_ONE_SIDED = ("#26456e", "#3a87b7", "#e3c567")
"""The colours of a list whose values have one sign, from dark to light."""


def new_figure(height: float, title: str = "", width: float = WIDTH) -> Figure:
    """Return an empty figure that belongs to no window."""
    figure = Figure(figsize=(width, height), dpi=DPI, layout="constrained")
    if title:
        figure.suptitle(title, fontsize="large")
    return figure


def ink() -> Any:
    """Return the colour of text and axes."""
    return matplotlib.rcParams["text.color"]


def colors_of(ascending: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return a colour for each value in ascending order: blue below zero, grey, orange above."""
    below, above = int(np.sum(ascending < 0)), int(np.sum(ascending > 0))
    length = len(ascending)
    if not below or not above:
        shades = LinearSegmentedColormap.from_list("one sided", _ONE_SIDED)
        return np.asarray(shades(np.linspace(0.0, 1.0, length) if length > 1 else [0.4]))
    shades = LinearSegmentedColormap.from_list("two sided", (_BELOW, _ZERO, _ABOVE))
    positions = np.concatenate(
        [
            np.linspace(0.0, 0.36, below),
            np.full(length - below - above, 0.5),
            # From the end, so that a single positive value is as strong as a negative one.
            np.linspace(1.0, 0.64, above)[::-1],
        ]
    )
    return np.asarray(shades(positions))


def line_style(index: int) -> dict[str, Any]:
    """Return the colour and the dashes of a line among several."""
    round_, color = divmod(index, len(LINES))
    return {"color": LINES[color], "linestyle": DASHES[round_ % len(DASHES)]}


def spaced(count: int, most: int) -> NDArray[np.intp]:
    """Return at most `most` positions below `count`, evenly spaced, both ends among them."""
    return np.unique(np.linspace(0, count - 1, min(count, most)).round().astype(np.intp))


def labels_of(ascending: NDArray[np.float64], are_means: bool = False) -> list[str]:
    """Return values as short texts, each different from the others.

    Args:
        ascending: The values.
        are_means: Whether they stand for lists that differ from channel to channel.
    """
    labels = [f"{number:.9g}" for number in ascending]
    for digits in range(2 if are_means else 4, 10):
        short = [f"{number:.{digits}g}" for number in ascending]
        if len(set(short)) == len(short):
            labels = short
            break
    mark = "≈ " if are_means else ""
    return [mark + label.replace("-", "\N{MINUS SIGN}") for label in labels]


def thinned(numbers: NDArray[np.float64], distance: float) -> list[int]:
    """Return positions of ascending numbers that keep a distance from each other.

    The ends come first, then zero, then the others in order.
    """
    kept: list[int] = []
    for index in [0, len(numbers) - 1, *np.flatnonzero(numbers == 0), *range(len(numbers))]:
        if all(abs(numbers[index] - numbers[other]) >= distance for other in kept):
            kept.append(int(index))
    return sorted(set(kept))


def label_values(axis: Any, ascending: NDArray[np.float64], are_means: bool, high: float) -> None:
    """Label an axis of values with those of the list, as many as do not overlap.

    Args:
        axis: matplotlib's x or y axis.
        ascending: The list.
        are_means: As in `labels_of`.
        high: The length of the axis, in units of the list.
    """
    if len(ascending) <= MOST_LABELS:
        kept, labels = thinned(ascending, LABEL_DISTANCE * high), labels_of(ascending, are_means)
        axis.set_ticks(ascending[kept], [labels[rank] for rank in kept])


def label_positions(axis: Any, names: Sequence[str], most: int) -> None:
    """Label an axis of positions with names, at most so many, or with whole numbers."""
    if not names:
        axis.get_major_locator().set_params(integer=True)
        return
    positions = range(0, len(names), -(-len(names) // most))
    axis.set_ticks(positions, [as_written(shortened(names[position])) for position in positions])


def as_written(words: str) -> str:
    """Return words of the user's as matplotlib draws them as they are: `$` begins no formula."""
    return words.replace("$", r"\$")


def shortened(name: str, size: int = 18) -> str:
    """Return a name of at most `size` characters; an ellipsis stands for its middle.

    Names of features begin with their column and end in what tells them apart.
    """
    if len(name) <= size:
        return name
    tail = size // 2
    return f"{name[: size - 1 - tail]}…{name[-tail:]}"


def draw_ranks(axes: Any, ranks: NDArray[np.intp], ascending: NDArray[np.float64]) -> Any:
    """Draw a matrix of ranks as an image, and return what a bar of colours needs."""
    colors = ListedColormap(colors_of(ascending))
    norm = BoundaryNorm(np.arange(len(ascending) + 1) - 0.5, len(ascending))
    axes.imshow(ranks, cmap=colors, norm=norm, aspect="auto", interpolation="nearest")
    for axis in (axes.xaxis, axes.yaxis):
        axis.get_major_locator().set_params(integer=True)
    return ScalarMappable(norm, colors)


def draw_color_bar(axes: Any, mappable: Any, labels: Sequence[str]) -> None:
    """Draw a bar of colours beside an image, with the names of the values."""
    labelled = spaced(len(labels), MOST_LABELS if len(labels) <= MOST_LABELS else FEW_LABELS)
    bar = axes.figure.colorbar(mappable, ax=axes, ticks=labelled, pad=0.02, aspect=18)
    bar.ax.set_yticklabels([labels[rank] for rank in labelled])
    bar.ax.tick_params(length=0, labelsize="x-small" if len(labels) > FEW_LABELS else "small")
    bar.ax.minorticks_off()


def open_frame(axes: Any) -> None:
    """Leave only the left and lower line of a frame."""
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
