"""Draw the values that parameters have, and how often each is used."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from quantal._core.numbers.values import Values
from quantal._core.parameter import Parameter
from quantal.plots._drawing import ROW_HEIGHT, WIDTH, check_parameters
from quantal.plots._matplotlib import (
    BoundaryNorm,
    Figure,
    ListedColormap,
    ScalarMappable,
    matplotlib,
)

MOST_LABELS = 16
"""The longest list of which every value has a label; more labels would overlap."""

FEW_LABELS = 9
"""So many values of a longer list have a label."""

LABEL_DISTANCE = 0.09
"""The smallest distance between two labels, as a share of the axis: a line of text."""

TITLE_HEIGHT = 0.6
"""Inches of the title."""


def plot_values(parameters: Sequence[Parameter], *, most: int = 8, title: str = "") -> Figure:
    """Draw the values that each parameter has, and how often it uses each of its list.

    Use it to see after training what was learned, or whether some values are idle. A
    parameter takes a row: on the left a stem for each position of a vector, or an image
    of a matrix; on the right a bar for each value of its list. More than two axes are
    drawn as a matrix with the last axis across.

    Args:
        parameters: Parameters of built layers, as `quantal.parameters_of(model)` returns.
        most: The number of parameters to draw, the first ones, at least 1.
        title: Text above the figure.

    Returns:
        A matplotlib figure; `figure.savefig("values.png")` writes it. It belongs to no
        window and to no pyplot state.

    Raises:
        TypeError: `parameters` is something else, such as a model.
        ValueError: There is no parameter, or `most` is below 1.

    Example:
    >>> import keras, quantal
    >>> model = keras.Sequential([keras.Input((3,)), quantal.LearnableMultiplier()])
    >>> len(plot_values(quantal.parameters_of(model)).axes)
    2
    """
    check_parameters(parameters)
    if not parameters or most < 1:
        raise ValueError(
            f"There are {len(parameters)} parameters, of which at most {most} are to be drawn. "
            "Expected at least one of each. Give those that quantal.parameters_of returns for "
            "a model with discrete layers."
        )
    shown = list(parameters)[:most]
    size = (WIDTH, TITLE_HEIGHT + ROW_HEIGHT * len(shown))
    figure = Figure(figsize=size, dpi=120, layout="constrained")
    axes = figure.subplots(len(shown), 2, width_ratios=[3, 1.2], squeeze=False)
    for (left, right), parameter in zip(axes, shown, strict=True):
        _draw(left, right, parameter)
    left_out = len(parameters) - len(shown)
    rest = f"and {left_out} more not drawn" if left_out else ""
    figure.suptitle(", ".join(part for part in (title, rest) if part))
    return figure


def _draw(left: Any, right: Any, parameter: Parameter) -> None:
    """Draw one parameter: its values on the left, their usage on the right."""
    values = parameter.values
    codes = keras.ops.convert_to_numpy(parameter.codes)
    ranks = np.argsort(values.order)[codes]
    size = " × ".join(map(str, parameter.shape)) or "1"
    left.set_title(f"{parameter.path}   ({size})", loc="left", fontsize="medium")
    if codes.size == 0:
        left.set_axis_off()
    elif codes.ndim < 2:
        _draw_stems(left, values, ranks.ravel())
    else:
        _draw_image(left, values, ranks.reshape(-1, codes.shape[-1]), codes.ndim)
    _draw_usage(right, values, values.usage(codes)[values.order])


def _colors(values: Values) -> NDArray[np.float64]:
    """Return a colour for each value in ascending order: blue below zero, grey, red above."""
    ascending = values.ascending
    below, above = int(np.sum(ascending < 0)), int(np.sum(ascending > 0))
    shades = np.concatenate(
        [
            np.linspace(0.0, 0.35, below),
            np.full(len(values) - below - above, 0.5),
            # From the end, so that a single positive value is as strong as a negative one.
            np.linspace(1.0, 0.65, above)[::-1],
        ]
    )
    if not below or not above:
        return np.asarray(matplotlib.colormaps["viridis"](np.linspace(0.05, 0.9, len(values))))
    return np.asarray(matplotlib.colormaps["coolwarm"](shades))


def _spaced(count: int, most: int) -> NDArray[np.intp]:
    """Return at most `most` positions below `count`, evenly spaced, both ends among them."""
    return np.unique(np.linspace(0, count - 1, min(count, most)).round().astype(np.intp))


def _names(values: Values) -> list[str]:
    """Return the values in ascending order as short texts, each different from the others."""
    for digits in range(4, 10):
        names = [f"{number:.{digits}g}" for number in values.ascending]
        if len(set(names)) == len(names):
            break
    return [name.replace("-", "\N{MINUS SIGN}") for name in names]


def _thinned(numbers: NDArray[np.float64], distance: float) -> list[int]:
    """Return positions of ascending numbers that keep a distance from each other.

    The ends come first, then zero, then the others in order.
    """
    kept: list[int] = []
    for index in [0, len(numbers) - 1, *np.flatnonzero(numbers == 0), *range(len(numbers))]:
        if all(abs(numbers[index] - numbers[other]) >= distance for other in kept):
            kept.append(int(index))
    return sorted(set(kept))


def _draw_stems(axes: Any, values: Values, ranks: NDArray[np.intp]) -> None:
    """Draw a vector as stems, one for each position."""
    colors = _colors(values)[ranks]
    ascending = values.ascending.astype(float)
    heights = ascending[ranks]
    reach = float(ascending[-1] - ascending[0]) or abs(float(ascending[0])) or 1.0
    # Zero is where stems start, unless the whole list lies far from it.
    far = min(abs(ascending[0]), abs(ascending[-1])) > 2 * reach
    foot = float(ascending[0] - 0.1 * reach) if far else 0.0
    low, high = min(float(ascending[0]), foot), max(float(ascending[-1]), foot)
    positions = np.arange(len(ranks))
    width = float(np.clip(320 / len(ranks), 0.5, 5))
    axes.vlines(positions, foot, heights, colors=colors, linewidth=width)
    axes.scatter(positions, heights, color=colors, s=np.clip(1600 / len(ranks), 3, 40), zorder=3)
    axes.axhline(foot, color="black", linewidth=0.6)
    if len(values) <= MOST_LABELS:
        labelled, names = _thinned(ascending, LABEL_DISTANCE * (high - low)), _names(values)
        axes.set_yticks(ascending[labelled], [names[rank] for rank in labelled])
    axes.set_ylim(low - 0.12 * reach, high + 0.12 * reach)
    axes.set_xlim(-0.8, len(ranks) - 0.2)
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.grid(axis="y", alpha=0.3, linewidth=0.6)
    axes.set(xlabel="position", ylabel="value")


def _draw_image(axes: Any, values: Values, ranks: NDArray[np.intp], dimensions: int) -> None:
    """Draw a matrix as an image, with a bar of colours that names the values."""
    colors = ListedColormap(_colors(values))
    norm = BoundaryNorm(np.arange(len(values) + 1) - 0.5, len(values))
    axes.imshow(ranks, cmap=colors, norm=norm, aspect="auto", interpolation="nearest")
    for axis in (axes.xaxis, axes.yaxis):
        axis.get_major_locator().set_params(integer=True)
    axes.set(xlabel=f"axis {dimensions - 1}", ylabel="axis 0" if dimensions == 2 else "other axes")
    labelled = _spaced(len(values), MOST_LABELS if len(values) <= MOST_LABELS else FEW_LABELS)
    bar = axes.figure.colorbar(ScalarMappable(norm, colors), ax=axes, ticks=labelled, pad=0.02)
    names = _names(values)
    bar.ax.set_yticklabels([names[rank] for rank in labelled])
    bar.ax.tick_params(length=0, labelsize="small")
    bar.ax.minorticks_off()


def _draw_usage(axes: Any, values: Values, counts: NDArray[np.int64]) -> None:
    """Draw a bar for each value, as long as the number of elements that have it."""
    axes.set_title("how often each value is used", loc="left", fontsize="medium")
    rows = np.arange(len(values))
    is_short = len(values) <= MOST_LABELS
    axes.barh(rows, counts, color=_colors(values), height=0.8 if is_short else 1.0)
    labelled = _spaced(len(values), MOST_LABELS if is_short else FEW_LABELS)
    names = _names(values)
    axes.set_yticks(labelled, [names[rank] for rank in labelled])
    axes.tick_params(axis="y", labelsize="small", length=0)
    axes.set_ylim(-0.6, len(values) - 0.4)
    axes.set_xlim(0, max(int(counts.max()), 1) * (1.25 if is_short else 1.05))
    axes.xaxis.get_major_locator().set_params(integer=True, nbins=4)
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
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
