"""Draw accuracy against bytes, with the front of the best."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from quantal.plots._drawing import LINES, as_written, ink, new_figure, open_frame, shortened
from quantal.plots._matplotlib import EngFormatter, Figure, LogLocator, NullFormatter

Point = tuple[str, float, float]
"""A point is a label, a number of bytes and a score."""

HEIGHT = 4.2
"""Inches of the figure."""


class Group(NamedTuple):
    """A group is what points of one label have in common, such as the seeds of one list.

    Attributes:
        label: The label.
        bytes: The mean of the bytes.
        score: The mean of the scores.
        lowest: The lowest score.
        highest: The highest one.
    """

    label: str
    bytes: float
    score: float
    lowest: float
    highest: float


def plot_sizes(
    points: Mapping[str, tuple[float, float]] | Sequence[Point],
    *,
    measure: str = "accuracy",
    maximize: bool = True,
    title: str = "",
) -> Figure:
    """Draw what models reach against the bytes that they take, and the front of the best.

    Use it to choose a list: no other point is both smaller and better than one of the front.
    Points of the same label, such as the seeds of one list, are drawn as their mean with a bar
    from the lowest to the highest; the front is that of the means.

    Args:
        points: Bytes and score by label, `{"ternary": (5200, 0.91)}`, or triples of label, bytes
            and score; at least one. Bytes are positive, such as those of the file that
            `quantal.save` wrote.
        measure: The name of the score.
        maximize: Whether a high score is good; False for a loss.
        title: Text above the figure.

    Returns:
        A matplotlib figure; `figure.savefig("sizes.png")` writes it.

    Raises:
        TypeError: `points` is something else.
        ValueError: There is no point, bytes are not positive, or a number is not finite.

    Example:
    >>> figure = plot_sizes({"float": (40_000, 0.93), "ternary": (3_000, 0.91)})
    >>> figure.axes[0].get_xscale()
    'log'
    """
    groups = groups_of(points)
    front = front_of(groups, maximize)
    figure = new_figure(HEIGHT, title)
    axes = figure.subplots()
    sizes = np.array([group.bytes for group in groups])
    scores = np.array([group.score for group in groups])
    spread = np.array([(g.score - g.lowest, g.highest - g.score) for g in groups]).T
    is_best = np.isin(np.arange(len(groups)), front)
    axes.set_xscale("log")
    axes.step(sizes[front], scores[front], where="post", color=LINES[0], linewidth=1.2, zorder=1)
    if spread.any():
        axes.errorbar(sizes, scores, spread, fmt="none", ecolor=ink(), elinewidth=0.8, alpha=0.6)
    axes.scatter(sizes[is_best], scores[is_best], s=36, color=LINES[0], label="front", zorder=3)
    axes.scatter(
        sizes[~is_best], scores[~is_best], s=30, facecolors="none", edgecolors=LINES[1], zorder=2
    )
    axes.set(xlabel="bytes", ylabel=as_written(measure))
    _frame_bytes(axes, sizes)
    axes.grid(alpha=0.3, linewidth=0.6)
    axes.margins(y=0.12)
    open_frame(axes)
    _label(figure, axes, groups, [*front, *np.flatnonzero(~is_best)], maximize)
    return figure


def groups_of(points: Any) -> list[Group]:
    """Return the points of each label, in the order of their bytes."""
    by_label: dict[str, list[tuple[float, float]]] = {}
    try:
        is_named = isinstance(points, Mapping)
        triples = [(label, *pair) for label, pair in points.items()] if is_named else points
        for label, size, score in triples:
            by_label.setdefault(str(label), []).append((float(size), float(score)))
    except (TypeError, ValueError) as error:
        raise TypeError(
            f"points is {points!r}. Expected bytes and score by label, such as "
            "{'ternary': (5200, 0.91)}, or triples of label, bytes and score."
        ) from error
    if not by_label:
        raise ValueError("There are no points. Expected at least one label, bytes and score.")
    for label, pairs in by_label.items():
        if not (np.isfinite(pairs).all() and min(size for size, _ in pairs) > 0):
            raise ValueError(
                f"The point {label!r} has the bytes and scores {pairs}. Expected positive bytes "
                "and finite scores. Leave out runs that diverged."
            )
    groups = []
    for label, pairs in by_label.items():
        sizes, scores = np.array(pairs).T
        groups.append(Group(label, sizes.mean(), scores.mean(), scores.min(), scores.max()))
    return sorted(groups, key=lambda group: (group.bytes, group.label))


def front_of(groups: Sequence[Group], maximize: bool = True) -> list[int]:
    """Return the indices of the groups that no other one is both smaller and better than.

    >>> points = [("a", 1, 0.5), ("b", 2, 0.4), ("c", 3, 0.9)]
    >>> front_of(groups_of(points))
    [0, 2]
    """
    sign = 1.0 if maximize else -1.0
    best, front = -np.inf, []
    for index in sorted(
        range(len(groups)), key=lambda i: (groups[i].bytes, -sign * groups[i].score)
    ):
        if sign * groups[index].score > best:
            best = sign * groups[index].score
            front.append(index)
    return front


def _frame_bytes(axes: Any, sizes: NDArray[np.float64]) -> None:
    """Write bytes as kB and MB, at round numbers, and leave room for labels."""
    low, high = float(sizes.min()), float(sizes.max())
    room = max(high / low, 4.0) ** 0.15
    axes.set_xlim(low / room**1.6, high * room**1.6)
    is_wide = high / low > 100
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0,) if is_wide else (1.0, 2.0, 5.0)))
    axes.xaxis.set_major_formatter(EngFormatter(unit="B"))
    axes.xaxis.set_minor_formatter(NullFormatter())


_OFFSETS = (
    (-7, 6, "right", "bottom"), (-7, 0, "right", "center"), (0, 9, "center", "bottom"),
    (7, -6, "left", "top"), (0, -9, "center", "top"), (7, 6, "left", "bottom"),
    (-7, -6, "right", "top"), (7, 0, "left", "center"), (-9, 20, "right", "bottom"),
    (9, -20, "left", "top"), (9, 20, "left", "bottom"), (-9, -20, "right", "top"),
)  # fmt: skip
"""Where a label may stand: points to the right and up from its point, and how it is aligned. The
first are those that a front that rises to the right leaves free; one that falls is its mirror."""

_MIRRORED = {"bottom": "top", "top": "bottom", "center": "center"}


def _label(
    figure: Figure, axes: Any, groups: Sequence[Group], order: Sequence[int], rises: bool
) -> None:
    """Name the points where names overlap neither each other nor points, the front first."""
    figure.draw_without_rendering()
    frame = axes.get_window_extent()
    points = axes.transData.transform([(group.bytes, group.score) for group in groups])
    boxes: list[Any] = []
    for index in order:
        group = groups[index]
        for x, y, horizontal, vertical in _OFFSETS:
            if not rises:
                y, vertical = -y, _MIRRORED[vertical]
            text = axes.annotate(
                as_written(shortened(group.label, 28)), (group.bytes, group.score), (x, y),
                textcoords="offset points", ha=horizontal, va=vertical, fontsize="small",
            )  # fmt: skip
            box = text.get_window_extent().padded(1.5)
            is_free = not any(box.overlaps(other) for other in boxes)
            is_free &= not any(box.contains(*point) for i, point in enumerate(points) if i != index)
            if is_free and frame.contains(*box.min) and frame.contains(*box.max):
                boxes.append(box)
                break
            text.remove()
