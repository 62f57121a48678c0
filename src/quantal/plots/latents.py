"""Draw where the latents of parameters lie between the values of their lists."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from quantal._core.numbers.values import ValuesLike
from quantal.plots._drawing import (
    MOST_LABELS,
    ROW_HEIGHT,
    as_written,
    colors_of,
    ink,
    labels_of,
    new_figure,
    open_frame,
    thinned,
)
from quantal.plots._matplotlib import Figure
from quantal.plots._sources import Listed, checked_most, heading_of, listed_in

BINS_OF_A_GAP, MOST_BINS = 16, 160
"""The bars between two values, and all of them at most."""

TITLE_SIZE = 68
"""Characters above a picture."""

MOST_BEYOND = 0.75
"""The picture reaches so many gaps beyond the ends of the list at most."""


def plot_latents(
    source: Any, values: ValuesLike | None = None, *, most: int = 8, title: str = ""
) -> Figure:
    """Draw how many latents lie where between the values of their list.

    Use it to see whether training has decided: latents near a value are settled, latents near
    a dotted boundary flip next. The latents are those that the layer computes with, in the units
    of the list, each in the colour of its nearest value. The distance between neighbouring values
    is drawn alike for all.

    Args:
        source: A built model or layer, a parameter, a list of parameters, or an array of latents
            in the units of its list.
        values: The list, for an array.
        most: The number of parameters to draw, the first ones, at least 1.
        title: Text above the figure.

    Returns:
        A matplotlib figure; `figure.savefig("latents.png")` writes it.

    Raises:
        TypeError: `source` is something else.
        ValueError: There is no parameter, or `most` is below 1.

    Example:
    >>> figure = plot_latents([0.9, -0.2, -1.1], values=[1, -1])
    >>> [label.get_text() for label in figure.axes[0].get_xticklabels()]
    ['−1', '1']
    """
    listed = listed_in(source, values)
    shown = listed[: checked_most(most)]
    heading = heading_of(title, len(listed) - len(shown))
    figure = new_figure((0.4 if heading else 0.1) + ROW_HEIGHT * len(shown), heading)
    for axes, entry in zip(figure.subplots(len(shown), squeeze=False).ravel(), shown, strict=True):
        _draw_latents(axes, entry)
    return figure


def _draw_latents(axes: Any, listed: Listed) -> None:
    """Draw a histogram of one parameter's latents, in gaps of its list."""
    ascending, length = listed.ascending, len(listed.values)
    gaps, ranks = in_gaps(listed).ravel(), listed.ranks.ravel()
    low, high = -MOST_BEYOND, length - 1 + MOST_BEYOND
    outside = float(np.mean((gaps < low) | (gaps > high))) if gaps.size else 0.0
    count = min(int(BINS_OF_A_GAP * (high - low)), MOST_BINS)
    edges = np.linspace(low, high, count + 1)
    clipped = np.clip(gaps, low, high)
    colors, foot = colors_of(ascending), np.zeros(count)
    for rank in np.unique(ranks):
        heights, _ = np.histogram(clipped[ranks == rank], edges)
        # One outline, since seams would be seen between bars.
        bins = np.flatnonzero(heights)
        part = slice(bins[0], bins[-1] + 1)
        axes.stairs(
            (foot + heights)[part], edges[part.start : part.stop + 1], baseline=foot[part].copy(),
            fill=True, color=colors[rank], linewidth=0,
        )  # fmt: skip
        foot += heights
    _label_gaps(axes, listed)
    note = f",  {outside:.1%} beyond the ends" if outside > 0.0005 else ""
    title = as_written(listed.title(TITLE_SIZE - len(note)))
    axes.set_title(f"{title}{note}", loc="left", fontsize="medium")
    axes.set_xlim(low, high)
    axes.set_ylim(0, max(float(foot.max()), 1.0) * 1.08)
    axes.yaxis.get_major_locator().set_params(integer=True, nbins=5)
    axes.set(xlabel="latent, labelled with the values of the list", ylabel="elements")
    open_frame(axes)


def in_gaps(listed: Listed) -> NDArray[np.float64]:
    """Return the latents in gaps of their list: the value of rank r is r, a boundary r + 1/2.

    Beyond the ends of the list the last gap continues.
    """
    ascending, latents = listed.values.ascending.astype(float), listed.latents.astype(float)
    if ascending.ndim == 1:
        return _in_gaps_of(ascending, latents)
    axis = listed.values.axis
    rows = [_in_gaps_of(*row) for row in zip(ascending, np.moveaxis(latents, axis, 0), strict=True)]
    return np.moveaxis(np.stack(rows), 0, axis)


def _in_gaps_of(ascending: NDArray[np.float64], latents: NDArray[np.float64]) -> Any:
    if len(ascending) == 1:
        return latents - ascending[0]
    gaps = np.maximum(np.diff(ascending), np.finfo(np.float32).tiny)
    inside = np.interp(latents, ascending, np.arange(len(ascending)))
    below = np.minimum(latents - ascending[0], 0.0) / gaps[0]
    above = np.maximum(latents - ascending[-1], 0.0) / gaps[-1]
    return inside + below + above


def _label_gaps(axes: Any, listed: Listed) -> None:
    """Draw a line at each value and a dotted one at each boundary, and name the values."""
    length = len(listed.values)
    ranks = np.arange(length, dtype=float)
    if length <= MOST_LABELS:
        for rank, color in zip(ranks, colors_of(listed.ascending), strict=True):
            axes.axvline(rank, color=color, linewidth=1.2, zorder=0)
        for rank in ranks[:-1]:
            axes.axvline(rank + 0.5, color=ink(), linewidth=0.8, linestyle=":", alpha=0.7)
    labelled = thinned(ranks, max((length - 1) * 0.085, 0.5))
    labels = labels_of(listed.ascending, listed.values.channels is not None)
    axes.set_xticks(ranks[labelled], [labels[rank] for rank in labelled])
