"""Draw what the lists of a menu cost, and which one each kernel got."""

from typing import Any

from quantal.plots._drawing import ROW_HEIGHT, as_written, line_style, new_figure, open_frame
from quantal.plots._matplotlib import Figure
from quantal.plots._sources import parameters_in


def plot_choices(source: Any, *, title: str = "") -> Figure:
    """Draw what each list of a menu takes and costs, and which one each kernel got.

    Use it after `discretize` with a budget. A kernel is a line from its smallest list to its
    largest, with a point for each list and a ring around the chosen one.

    Args:
        source: A model that `quantal.discretize(..., values=menu)` returned, a layer of it, or
            a list of its parameters. Those that did not go by the menu are left out.
        title: Text above the figure.

    Returns:
        A matplotlib figure; `figure.savefig("choices.png")` writes it.

    Raises:
        TypeError: `source` is something else, such as an array.
        ValueError: No parameter went by a menu.

    Example:
    >>> import keras, numpy as np, quantal
    >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4)])
    >>> x = np.random.default_rng(0).normal(size=(64, 8)).astype("float32")
    >>> menu = ["binary", "ternary", "powers_of_two:4"]
    >>> new = quantal.discretize(model, bits=8, values=menu, data=x, verbose=0)
    >>> len(plot_choices(new).axes[0].lines)
    2
    """
    parameters = parameters_in(source)
    choices = [(p.path, p.choice) for p in parameters if p.choice is not None]
    if not choices:
        raise ValueError(
            f"None of {len(parameters)} parameters was chosen from a menu. Expected those of a "
            "model that quantal.discretize returned for a budget."
        )
    figure = new_figure(2 * ROW_HEIGHT, title)
    axes = figure.subplots()
    for index, (path, choice) in enumerate(choices):
        options = sorted(choice.options, key=lambda option: option.bytes)
        sizes = [option.bytes / 1e3 for option in options]
        style = line_style(index)
        axes.plot(sizes, [o.loss for o in options], marker=".", label=as_written(path), **style)
        chosen = choice.option.bytes / 1e3, choice.option.loss
        axes.plot(*chosen, "o", markersize=10, fillstyle="none", color=style["color"])
    axes.set_xscale("log")
    axes.set_xlabel("kB of the kernel")
    axes.set_ylabel("loss with this kernel alone on the list")
    axes.grid(alpha=0.3, linewidth=0.6)
    open_frame(axes)
    figure.legend(loc="outside right upper", fontsize="small")
    return figure
