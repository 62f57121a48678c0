"""Draw what an estimator shows of a latent, and the gradient that it gives it."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quantal._core.numbers.values import Values, ValuesLike
from quantal.plots._drawing import (
    LINES,
    MOST_LABELS,
    WIDTH,
    ink,
    label_values,
    labels_of,
    new_figure,
    open_frame,
    thinned,
)
from quantal.plots._matplotlib import Figure

STEPS = 2000
"""The length of the run whose beginning, middle and end are drawn of an estimator with a pace."""

SHARES = {"start of training": 0.0, "middle": 0.5, "end": 1.0}
"""The moments of the run that are drawn."""

DRAWS = 1000
"""So many times an estimator with random numbers is drawn from."""

POINTS = 400
"""Latents along the axis, besides those at the steps."""

LINE_WIDTHS = {1: (1.8,), 3: (2.8, 2.0, 1.2)}
"""Points, by the number of lines: one that another one covers is seen below it."""

PUSHED_DOWN: Any = (0, (3, 1.5))
"""The dashes of the factor of gradients that push a latent down."""

COLUMN, HEIGHT = 3.6, 3.8
"""Inches of a column of pictures, and of the figure."""


Function = Callable[[Any], Any]
"""A function from a float32 tensor of latents to the numbers that the forward pass sees."""


@dataclasses.dataclass(frozen=True)
class Curve:
    """A curve is what a function of the latent shows and passes back, over an axis of latents.

    Attributes:
        label: Its name; empty for the only one.
        value: What the forward pass shows, (points,): the mean of random ones.
        spread: The standard deviation of what it shows; zeros without random numbers.
        up: The factor of gradients that push the latent up, (points,): their mean.
        down: The factor of those that push it down.
    """

    label: str
    value: NDArray[np.float64]
    spread: NDArray[np.float64]
    up: NDArray[np.float64]
    down: NDArray[np.float64]


def plot_estimator(estimator: Any, values: ValuesLike = (1.0, -1.0), *, title: str = "") -> Figure:
    """Draw what an estimator shows of a latent in training, and the gradient that it passes.

    Use it to compare estimators, and to see why a function does not learn: where the factor
    is 0, no gradient arrives. Above is the value of the forward pass over the latent; below the
    factor by which the gradient at the value reaches the latent, for gradients that push it up,
    and dashed for those that push it down, where the two differ. An estimator that is soft at
    first is drawn at the start, in the middle and at the end of a paced run of 2,000 steps; one
    that draws random numbers by its mean and standard deviation.

    Args:
        estimator: An estimator or its name, a function of a tensor of latents, or several of
            them by the titles of their columns.
        values: The list.
        title: Text above the figure.

    Returns:
        A matplotlib figure; `figure.savefig("estimator.png")` writes it.

    Raises:
        TypeError: `estimator` is something else.
        ValueError: An estimator is not known, or there are lists per channel.

    Example:
    >>> from keras import ops
    >>> figure = plot_estimator({"sign": ops.sign, "straight-through": "straight_through"})
    >>> len(figure.axes)
    4
    """
    parsed = values if isinstance(values, Values) else Values(values)
    if parsed.channels is not None:
        raise ValueError(
            f"values is {parsed!r}. Expected one list. Draw the list of one channel: "
            "values=values.numbers[0]."
        )
    columns = dict(estimator) if isinstance(estimator, Mapping) else {"": estimator}
    if not columns:
        raise ValueError("There is no estimator. Expected at least one.")
    latents = _axis_of(parsed)
    curves = [curves_of(entry, parsed, latents) for entry in columns.values()]
    width = max(WIDTH if len(columns) > 1 else 5.0, COLUMN * len(columns) * 0.75)
    figure = new_figure(HEIGHT + 0.3 * bool(title), title, width)
    panels = figure.subplots(2, len(columns), sharex=True, sharey="row", squeeze=False)
    for (above, below), name, drawn in zip(panels.T, columns, curves, strict=True):
        above.set_title(name, fontsize="medium", loc="left")
        _draw_values(above, parsed, latents, drawn)
        _draw_factors(below, parsed, latents, drawn)
    panels[0, 0].set(ylabel="value")
    panels[1, 0].set(ylabel="gradient, times")
    highest = max(max(curve.up.max(), curve.down.max()) for drawn in curves for curve in drawn)
    lowest = min(min(curve.up.min(), curve.down.min()) for drawn in curves for curve in drawn)
    panels[1, 0].set_ylim(min(lowest, 0.0) - 0.15, max(highest, 1.0) + 0.15)
    return figure


def curves_of(estimator: Any, values: Values, latents: NDArray[np.float32]) -> list[Curve]:
    """Return what an estimator, or a function of latents, shows and passes back."""
    from keras import ops

    from quantal._core.estimator import Estimator
    from quantal._core.tensors.distributed import whole_array
    from quantal._core.tensors.projection import projection_of
    from quantal.estimators import registry
    from quantal.estimators.mean_field import MeanField

    if callable(estimator) and not isinstance(estimator, (Estimator, type)):
        return [_curve("", estimator, latents)]
    resolved: Any = registry.get(estimator)
    curves = []
    for label, state in _states_of(resolved).items():

        def shown(latent: Any, state: Any = state) -> Any:
            return resolved(latent, values, training=True, state=state, seed=0)

        curves.append(_curve(label, shown, latents, DRAWS if resolved.random else 1))
    if isinstance(resolved, MeanField):
        _, variance = resolved.moments(ops.convert_to_tensor(latents), projection_of(values))
        spread = np.sqrt(whole_array(variance))
        curves = [dataclasses.replace(curve, spread=spread) for curve in curves]
    return curves


def _states_of(estimator: Any) -> dict[str, Any]:
    """Return the states that are drawn of an estimator, by their names."""
    from keras import ops

    from quantal.estimators._pace import INITIAL_STATE

    initial = estimator.initial_state
    if initial is None or tuple(initial[: len(INITIAL_STATE)]) != INITIAL_STATE:
        return {"": None}
    states = {}
    for label, share in SHARES.items():
        numbers = np.array(initial, np.float32)
        # The step and the end of a pace, and the number of moves of an estimator with steps.
        numbers[:3] = (share * STEPS, STEPS, share * STEPS)[: len(numbers)]
        states[label] = ops.convert_to_tensor(numbers)
    return states


def _curve(label: str, function: Function, latents: NDArray[np.float32], draws: int = 1) -> Curve:
    from keras import ops

    from quantal._core.tensors.backend import gradient_of
    from quantal._core.tensors.distributed import whole_array

    drawn = np.tile(latents, (draws, 1))
    values = whole_array(function(ops.convert_to_tensor(drawn)))
    if np.shape(values) != drawn.shape:
        raise ValueError(
            f"The function gave the shape {np.shape(values)[1:]} for {latents.shape} latents. "
            "Expected a number for each latent."
        )

    def factor(sign: float) -> Any:
        gradient = gradient_of(lambda latent: sign * function(latent), drawn)
        return np.zeros(len(latents)) if gradient is None else sign * gradient.mean(axis=0)

    # A loss that falls with the value pushes the latent up.
    factors = [factor(-1.0), factor(1.0)]
    up, down = (np.asarray(factor, float) for factor in factors)
    return Curve(label, values.mean(axis=0), values.std(axis=0), up, down)


def _axis_of(values: Values) -> NDArray[np.float32]:
    """Return latents from below the list to above it, both sides of each boundary among them."""
    reach = (values.high - values.low) or max(abs(values.low), 1.0)
    even = np.linspace(values.low - 0.4 * reach, values.high + 0.4 * reach, POINTS)
    steps = values.midpoints
    ends = np.array([values.low, values.high])
    latents = np.concatenate([even, steps, np.nextafter(steps, np.float32(-np.inf)), ends])
    return np.unique(latents.astype(np.float32))


def _draw_values(axes: Any, values: Values, latents: Any, curves: list[Curve]) -> None:
    """Draw the forward pass, over lines at the values of the list."""
    ascending = values.ascending.astype(float)
    if len(values) <= MOST_LABELS:
        for value in ascending:
            axes.axhline(value, color=ink(), linewidth=0.5, alpha=0.25)
    for curve, color, width in zip(curves, LINES, LINE_WIDTHS[len(curves)], strict=False):
        if curve.spread.any():
            axes.fill_between(
                latents, curve.value - curve.spread, curve.value + curve.spread, color=color,
                alpha=0.18, linewidth=0,
            )  # fmt: skip
        axes.plot(
            latents,
            curve.value,
            color=color,
            linewidth=width,
            label=curve.label,
        )
    low, high = float(latents[0]), float(latents[-1])
    label_values(axes.yaxis, ascending, False, high - low)
    if len(curves) > 1:
        axes.legend(fontsize="small", framealpha=0.0)
    open_frame(axes)


def _draw_factors(axes: Any, values: Values, latents: Any, curves: list[Curve]) -> None:
    """Draw the factors of gradients, over dotted lines at the boundaries."""
    ascending, reach = values.ascending.astype(float), float(latents[-1] - latents[0])
    if len(values) <= MOST_LABELS:
        for boundary in values.midpoints:
            axes.axvline(boundary, color=ink(), linewidth=0.8, linestyle=":", alpha=0.5)
    axes.axhline(0, color=ink(), linewidth=0.6)
    are_two = False
    for curve, color, width in zip(curves, LINES, LINE_WIDTHS[len(curves)], strict=False):
        axes.plot(latents, curve.up, color=color, linewidth=width, zorder=3)
        if not np.allclose(curve.up, curve.down, atol=1e-5):
            are_two = True
            axes.plot(
                latents,
                curve.down,
                color=color,
                linewidth=width,
                linestyle=(0, (3, 1.5)),
                zorder=3,
            )
    if are_two:
        for label, style in (("pushed up", "-"), ("pushed down", PUSHED_DOWN)):
            axes.plot([], [], color=ink(), linestyle=style, label=label)
        axes.legend(fontsize="small", framealpha=0.0)
    if len(values) <= MOST_LABELS:
        kept, labels = thinned(ascending, 0.14 * reach), labels_of(ascending)
        axes.set_xticks(ascending[kept], [labels[rank] for rank in kept])
    axes.set(xlabel="latent", xlim=(float(latents[0]), float(latents[-1])))
    open_frame(axes)
