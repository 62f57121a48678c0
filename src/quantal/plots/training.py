"""Draw how a run went: its loss, its metrics, and how many values flipped."""

from collections.abc import Collection
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quantal.plots._drawing import (
    ROW_HEIGHT,
    as_written,
    line_style,
    new_figure,
    open_frame,
    shortened,
)
from quantal.plots._histories import Line, history_of
from quantal.plots._matplotlib import Figure
from quantal.plots._watched import watched

_OF_WATCH = ("flips", "distance", "latent_steps", "entropy", "share")
"""The numbers that `quantal.callbacks.Watch` adds to a run's logs; a slash follows each where it
is that of one parameter."""

MOST_METRICS = 4
"""So many metrics are drawn, the first ones."""

MOST_LINES = 6
"""So many parameters' flips are drawn as lines, the first ones."""

MOST_INSIDE = 3
"""A legend of so many lines stands among them; a longer one would cover them."""


def plot_training(history: Any, watch: Any = None, *, title: str = "") -> Figure:
    """Draw the loss and the metrics of a run over its epochs, and how many values flipped.

    Use it after `fit`, with the callback `quantal.callbacks.Watch` for the flips. Validation is
    drawn dashed. Where flips have ended and the loss is still high, training no longer changes
    the listed values.

    Args:
        history: What `fit` returned, its dict, or the path of a file that Keras's `CSVLogger`
            wrote.
        watch: The `Watch` of the run, for the flips of each parameter; without it the share of
            all elements is drawn, where the history has it.
        title: Text above the figure.

    Returns:
        A matplotlib figure; `figure.savefig("training.png")` writes it.

    Raises:
        TypeError: `history` or `watch` is something else.
        ValueError: There are no numbers.
        OSError: The file cannot be read.

    Example:
    >>> figure = plot_training({"loss": [0.9, 0.4], "val_loss": [1.0, 0.6], "flips": [0.2, 0.1]})
    >>> [axes.get_ylabel() for axes in figure.axes]
    ['loss', 'flips']
    """
    lines = history_of(history)
    metrics = _metrics_among(lines)
    flips = _flips_of(lines, watch)
    count = len(metrics) + bool(flips)
    if not count:
        raise ValueError(
            f"history has {', '.join(lines)}. Expected a loss, a metric or flips. Give what "
            "model.fit returned."
        )
    columns = 1 if count == 1 else 2
    rows = -(-count // columns)
    figure = new_figure((0.4 if title else 0.1) + ROW_HEIGHT * rows, title)
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes, name in zip(panels, metrics, strict=False):
        both = {"training": lines.get(name), "validation": lines.get(f"val_{name}")}
        _draw_lines(axes, {key: line for key, line in both.items() if line is not None}, name)
    if flips:
        axes = panels[len(metrics)]
        _draw_lines(axes, flips, "flips", panels[count] if count < len(panels) else None)
        axes.yaxis.set_major_formatter(lambda share, _: f"{100 * share:.3g} %")
        axes.set_ylim(bottom=0)
    for axes in panels[count:]:
        axes.set_axis_off()
    return figure


def _metrics_among(lines: dict[str, Line]) -> list[str]:
    """Return the names of what is drawn in a panel each: the loss, and the first metrics."""
    names = {name.removeprefix("val_"): None for name in lines}
    metrics = [
        name
        for name in names
        if name not in ("loss", "learning_rate") and name.split("/")[0] not in _OF_WATCH
    ]
    return [*(["loss"] if "loss" in names else []), *metrics[:MOST_METRICS]]


def _flips_of(lines: dict[str, Line], watch: Any) -> dict[str, Line]:
    """Return the flips of all elements, and of the first parameters where they are known."""
    flips = {"all": lines["flips"]} if "flips" in lines else {}
    each = {
        name.removeprefix("flips/"): line
        for name, line in lines.items()
        if name.startswith("flips/")
    }
    if watch is not None:
        epochs = max((line.epochs for line in lines.values()), key=len)
        each = {
            path: Line(epochs if len(epochs) == len(run.flips) else _counted(run.flips), run.flips)
            for path, run in watched(watch).items()
        }
    if len(each) > 1 or not flips:
        prefix = _common_prefix(each)
        first = list(each.items())[:MOST_LINES]
        flips |= {path.removeprefix(prefix): line for path, line in first}
    return flips


def _common_prefix(paths: Collection[str]) -> str:
    """Return the name of the model where all paths begin with it, and have more parts after it."""
    starts = {path.partition("/")[0] for path in paths}
    is_model = len(starts) == 1 and all(path.count("/") > 1 for path in paths)
    return f"{starts.pop()}/" if is_model else ""


def _counted(numbers: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.arange(1.0, len(numbers) + 1)


def _draw_lines(axes: Any, lines: dict[str, Line], name: str, free: Any = None) -> None:
    """Draw lines over epochs; a short run has a point for each epoch.

    Args:
        axes: The panel.
        lines: The lines by their labels.
        name: The label of the vertical axis.
        free: A panel without lines, which takes a long legend; None where there is none.
    """
    for index, (label, line) in enumerate(lines.items()):
        style = line_style(index)
        if label == "validation":
            style["linestyle"] = (0, (5, 1.5))
        marker = "o" if len(line.epochs) <= 30 else ""
        axes.plot(
            line.epochs, line.numbers, label=as_written(shortened(label, 24)), marker=marker,
            markersize=3, linewidth=1.4, **style,
        )  # fmt: skip
    axes.set(xlabel="epoch", ylabel=as_written(name))
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.grid(axis="y", alpha=0.3, linewidth=0.6)
    handles, style = axes.get_legend_handles_labels(), {"fontsize": "small", "frameon": False}
    if len(lines) > MOST_INSIDE and free is not None:
        free.legend(*handles, **style, loc="center left", title=name)
    elif len(lines) > MOST_INSIDE:
        axes.figure.legend(*handles, **style, loc="outside lower center", ncols=3, title=name)
    elif len(lines) > 1:
        axes.legend(fontsize="small", framealpha=0.0)
    open_frame(axes)
