"""Pictures of what parameters have chosen, drawn by matplotlib without a window.

Needs matplotlib: pip install "quantal[plots]".
"""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from quantal._core.numbers.values import Values
from quantal._core.parameter import Parameter

try:
    import matplotlib
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import BoundaryNorm, ListedColormap
    from matplotlib.figure import Figure
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        f"{error.name} is not installed. quantal.plots draws with matplotlib. Install it: "
        'pip install "quantal[plots]"',
        name=error.name,
    ) from error

MOST_LABELS = 16
"""Lists up to this length have each value named; of longer ones some are."""


def plot_values(parameters: Sequence[Parameter], *, most: int = 8, title: str = "") -> Figure:
    """Draw the chosen values of each parameter, and how often it uses each value.

    Use it to see after training what was learned, or whether some values are idle. A
    parameter takes a row: on the left a stem for each position of a vector, or an image
    of a matrix; on the right a bar for each value of its list. More than two axes are
    drawn as a matrix with the last axis across.

    Args:
        parameters: Of built layers, as `quantal.parameters_of(model)` gives them.
        most: How many are drawn, the first ones, at least 1.
        title: Above the figure.

    Returns:
        A matplotlib figure; `figure.savefig("values.png")` writes it. It belongs to no
        window and to no pyplot state.

    Raises:
        ValueError: There is no parameter, or `most` is below 1.

    >>> import keras, quantal
    >>> model = keras.Sequential([keras.Input((3,)), quantal.LearnableMultiplier()])
    >>> len(plot_values(quantal.parameters_of(model)).axes)
    2
    """
    if not parameters or most < 1:
        raise ValueError(
            f"There are {len(parameters)} parameters, of which at most {most} are to be drawn. "
            "Expected at least one. Give those of a model with discrete layers, from "
            "quantal.parameters_of."
        )
    shown = list(parameters)[:most]
    figure = Figure(figsize=(11, 0.6 + 2.7 * len(shown)), dpi=120, layout="constrained")
    axes = figure.subplots(len(shown), 2, width_ratios=[3, 1.2], squeeze=False)
    for (left, right), parameter in zip(axes, shown, strict=True):
        _draw(left, right, parameter)
    left_out = len(parameters) - len(shown)
    rest = f"and {left_out} more not drawn" if left_out else ""
    figure.suptitle(", ".join(part for part in (title, rest) if part))
    return figure


def _draw(left: Any, right: Any, parameter: Parameter) -> None:
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
    """One colour for each value in ascending order: blue below zero, grey at it, red above."""
    ascending = values.ascending
    below, above = int(np.sum(ascending < 0)), int(np.sum(ascending > 0))
    places = np.concatenate(
        [
            np.linspace(0.0, 0.35, below),
            np.full(len(values) - below - above, 0.5),
            # From the end, so that a single positive value is as strong as a negative one.
            np.linspace(1.0, 0.65, above)[::-1],
        ]
    )
    if not below or not above:
        return np.asarray(matplotlib.colormaps["viridis"](np.linspace(0.05, 0.9, len(values))))
    return np.asarray(matplotlib.colormaps["coolwarm"](places))


def _spaced(count: int, most: int) -> NDArray[np.intp]:
    """At most `most` positions below `count`, evenly spaced, both ends among them."""
    return np.unique(np.linspace(0, count - 1, min(count, most)).round().astype(np.intp))


def _names(values: Values) -> list[str]:
    """The values in ascending order as short texts, with as many digits as tell them apart."""
    for digits in range(4, 10):
        names = [f"{number:.{digits}g}" for number in values.ascending]
        if len(set(names)) == len(names):
            break
    return [name.replace("-", "\N{MINUS SIGN}") for name in names]


def _apart(numbers: NDArray[np.float64], distance: float) -> list[int]:
    """Positions of ascending numbers that keep a distance: the ends, zero, then the others."""
    chosen: list[int] = []
    for place in [0, len(numbers) - 1, *np.flatnonzero(numbers == 0), *range(len(numbers))]:
        if all(abs(numbers[place] - numbers[other]) >= distance for other in chosen):
            chosen.append(int(place))
    return sorted(set(chosen))


def _draw_stems(axes: Any, values: Values, ranks: NDArray[np.intp]) -> None:
    colors = _colors(values)[ranks]
    ascending = values.ascending.astype(float)
    chosen = ascending[ranks]
    reach = float(ascending[-1] - ascending[0]) or abs(float(ascending[0])) or 1.0
    # Zero is where stems start, unless the whole list lies far from it.
    far = min(abs(ascending[0]), abs(ascending[-1])) > 2 * reach
    foot = float(ascending[0] - 0.1 * reach) if far else 0.0
    low, high = min(float(ascending[0]), foot), max(float(ascending[-1]), foot)
    places = np.arange(len(ranks))
    width = float(np.clip(320 / len(ranks), 0.5, 5))
    axes.vlines(places, foot, chosen, colors=colors, linewidth=width)
    axes.scatter(places, chosen, color=colors, s=np.clip(1600 / len(ranks), 3, 40), zorder=3)
    axes.axhline(foot, color="black", linewidth=0.6)
    if len(values) <= MOST_LABELS:
        labelled, names = _apart(ascending, 0.09 * (high - low)), _names(values)
        axes.set_yticks(ascending[labelled], [names[rank] for rank in labelled])
    axes.set_ylim(low - 0.12 * reach, high + 0.12 * reach)
    axes.set_xlim(-0.8, len(ranks) - 0.2)
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.grid(axis="y", alpha=0.3, linewidth=0.6)
    axes.set(xlabel="position", ylabel="value")


def _draw_image(axes: Any, values: Values, ranks: NDArray[np.intp], dimensions: int) -> None:
    colors = ListedColormap(_colors(values))
    norm = BoundaryNorm(np.arange(len(values) + 1) - 0.5, len(values))
    axes.imshow(ranks, cmap=colors, norm=norm, aspect="auto", interpolation="nearest")
    for axis in (axes.xaxis, axes.yaxis):
        axis.get_major_locator().set_params(integer=True)
    axes.set(xlabel=f"axis {dimensions - 1}", ylabel="axis 0" if dimensions == 2 else "other axes")
    labelled = _spaced(len(values), MOST_LABELS if len(values) <= MOST_LABELS else 9)
    bar = axes.figure.colorbar(ScalarMappable(norm, colors), ax=axes, ticks=labelled, pad=0.02)
    names = _names(values)
    bar.ax.set_yticklabels([names[rank] for rank in labelled])
    bar.ax.tick_params(length=0, labelsize="small")
    bar.ax.minorticks_off()


def _draw_usage(axes: Any, values: Values, counts: NDArray[np.int64]) -> None:
    axes.set_title("how often each value is used", loc="left", fontsize="medium")
    places, total = np.arange(len(values)), max(int(counts.sum()), 1)
    is_short = len(values) <= MOST_LABELS
    axes.barh(places, counts, color=_colors(values), height=0.8 if is_short else 1.0)
    labelled = _spaced(len(values), MOST_LABELS if is_short else 9)
    names = _names(values)
    axes.set_yticks(labelled, [names[rank] for rank in labelled])
    axes.tick_params(axis="y", labelsize="small", length=0)
    axes.set_ylim(-0.6, len(values) - 0.4)
    axes.set_xlim(0, max(int(counts.max()), 1) * (1.25 if is_short else 1.05))
    axes.xaxis.get_major_locator().set_params(integer=True, nbins=4)
    axes.set_xlabel("elements")
    if is_short:
        for place, count in zip(places, counts, strict=True):
            axes.annotate(
                f"{count / total:.1%}",
                (count, place),
                xytext=(3, 0),
                textcoords="offset points",
                va="center",
                fontsize="x-small",
            )
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
