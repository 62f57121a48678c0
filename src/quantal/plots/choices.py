"""Draw what the lists of a menu cost, and which one each kernel got."""

from collections.abc import Sequence

from quantal._core.parameter import Parameter
from quantal.plots._drawing import ROW_HEIGHT, WIDTH, check_parameters
from quantal.plots._matplotlib import Figure


def plot_choices(parameters: Sequence[Parameter], *, title: str = "") -> Figure:
    """Draw what each list of a menu takes and costs, and which one each kernel got.

    Use it after `discretize` with a budget. A kernel is a line from its smallest list to its
    largest, with a point for each list and a ring around the chosen one.

    Args:
        parameters: Parameters of a model that `quantal.discretize(..., values=menu)` returned.
            Those that did not go by the menu are left out.
        title: Text above the figure.

    Returns:
        A matplotlib figure; `figure.savefig("choices.png")` writes it.

    Raises:
        TypeError: `parameters` is something else, such as a model.
        ValueError: No parameter went by a menu.

    Example:
    >>> import keras, numpy as np, quantal
    >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4)])
    >>> x = np.random.default_rng(0).normal(size=(64, 8)).astype("float32")
    >>> menu = ["binary", "ternary", "powers_of_two:4"]
    >>> new = quantal.discretize(model, bits=8, values=menu, data=x, verbose=0)
    >>> len(plot_choices(quantal.parameters_of(new)).axes[0].lines)
    2
    """
    check_parameters(parameters)
    choices = [(p.path, p.choice) for p in parameters if p.choice is not None]
    if not choices:
        raise ValueError(
            f"None of {len(parameters)} parameters was chosen from a menu. Expected those of a "
            "model that quantal.discretize returned for a budget."
        )
    figure = Figure(figsize=(WIDTH, 2 * ROW_HEIGHT), dpi=120, layout="constrained")
    axes = figure.subplots()
    for path, choice in choices:
        options = sorted(choice.options, key=lambda option: option.bytes)
        sizes = [option.bytes / 1e3 for option in options]
        (line,) = axes.plot(sizes, [o.loss for o in options], ".-", label=path)
        chosen = choice.option.bytes / 1e3, choice.option.loss
        axes.plot(*chosen, "o", markersize=11, fillstyle="none", color=line.get_color())
    axes.set_xscale("log")
    axes.set_xlabel("kB of the kernel")
    axes.set_ylabel("loss with this kernel alone on the list")
    axes.legend(fontsize="small")
    figure.suptitle(title)
    return figure
