"""Draw the beam of a line of antenna elements, finely where it is steep."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quantal.plots._drawing import LINES, ink, new_figure, open_frame
from quantal.plots._matplotlib import Figure
from quantal.plots._sources import listed_in, numbers_of, vector_of_result

HEIGHT = 1.6
"""Inches of a beam."""

POINTS_OF_A_LOBE = 16
"""Where the drawing begins: a beam of n elements has n lobes over a period."""

FLATNESS = 0.1
"""Decibels: an interval of angles is halved while its middle is farther from the straight line."""

SHARPEST = 1e-3
"""Degrees: the narrowest interval that is halved."""

BELOW = 5.0
"""Decibels below the floor down to which the curve is followed: it leaves the picture steeply."""

MOST_TERMS = 2_000_000
"""So many terms are summed at once, which takes some 32 MB."""


def plot_beam(
    vectors: Any, *, spacing: float = 0.5, floor: float = -40.0, title: str = ""
) -> Figure:
    """Draw the beam of a line of antenna elements, in dB against all elements in phase.

    The beam towards the angle t is `|sum_n w_n exp(2 pi i spacing n sin t)|`. It is drawn at as
    many angles as its curve needs, so that narrow lobes and nulls are not cut off.

    Args:
        vectors: The elements' factors, (n,), real or complex, or several by name; a result of
            `quantal.search` and a model's or layer's listed values do as well. Multiply them with
            measured errors beforehand.
        spacing: The distance between neighbouring elements, in wavelengths, positive.
        floor: The lowest level that is drawn, in dB, below 0.
        title: Text above the figure.

    Returns:
        A matplotlib figure; `figure.savefig("beam.svg")` writes it.

    Raises:
        TypeError: A vector is no array of numbers.
        ValueError: A vector is empty, zero, not finite or has more than one axis; the spacing is
            not positive, or the floor not below 0.

    Example:
    >>> figure = plot_beam({"in phase": [1, 1, 1, 1], "one bit": [1, 1, -1, -1]})
    >>> figure.axes[0].get_title(loc="left")
    'in phase:  0.00 dB at 0.0°'
    """
    if not spacing > 0 or not floor < 0:
        raise ValueError(
            f"spacing is {spacing} and floor is {floor}. Expected a positive spacing in "
            "wavelengths and a floor below 0 dB."
        )
    beams = _vectors_in(vectors)
    figure = new_figure((0.4 if title else 0.2) + 0.3 + HEIGHT * len(beams), title)
    rows = figure.subplots(len(beams), 1, sharex=True, sharey=True, squeeze=False).ravel()
    for axes, (name, vector) in zip(rows, beams.items(), strict=True):
        angles, decibels = beam_of(vector, spacing, floor)
        axes.plot(angles, decibels, color=LINES[0], linewidth=0.9)
        axes.axhline(0, color=ink(), linewidth=0.6, linestyle=":")
        peak = int(np.argmax(decibels))
        # Adding 0 turns a rounded -0 into 0.
        words = f"{round(decibels[peak], 2) + 0.0:.2f} dB at {round(angles[peak], 1) + 0.0:.1f}°"
        words = words.replace("-", "\N{MINUS SIGN}")
        heading = f"{name}:  {words}" if name else words
        axes.set_title(heading, loc="left", fontsize="medium")
        axes.grid(axis="y", alpha=0.3, linewidth=0.6)
        open_frame(axes)
    rows[-1].set(xlabel="angle in degrees", xlim=(-90, 90), xticks=range(-80, 81, 20))
    rows[-1].set_ylim(floor, 2)
    figure.supylabel("dB against all in phase", fontsize="medium")
    return figure


def beam_of(
    vector: NDArray[Any], spacing: float = 0.5, floor: float = -40.0
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return angles in degrees and the beam in dB there, at as many as its curve needs.

    Args:
        vector: Complex numbers, (n,), not all zero.
        spacing: Wavelengths between neighbours.
        floor: The lowest level of the picture.
    """
    phases = 2j * np.pi * spacing * np.arange(len(vector))
    largest = np.abs(vector).sum()
    rows = max(MOST_TERMS // len(vector), 1)

    def decibels_at(angles: NDArray[np.float64]) -> NDArray[np.float64]:
        sines = np.sin(np.deg2rad(angles))
        parts = [
            np.abs(np.exp(np.outer(sines[i : i + rows], phases)) @ vector)
            for i in range(0, len(sines), rows)
        ]
        levels = np.concatenate(parts) / largest
        return 20 * np.log10(np.maximum(levels, 10 ** ((floor - BELOW) / 20)))

    periods = max(2 * spacing, 1.0)
    count = int(np.ceil(POINTS_OF_A_LOBE * len(vector) * periods)) + 1
    angles = np.rad2deg(np.arcsin(np.linspace(-1, 1, count)))
    decibels = decibels_at(angles)
    is_open = np.ones(count - 1, bool)
    while is_open.any():
        left = np.flatnonzero(is_open)
        middles = (angles[left] + angles[left + 1]) / 2
        levels = decibels_at(middles)
        straight = (decibels[left] + decibels[left + 1]) / 2
        is_curved = np.abs(levels - straight) > FLATNESS
        is_curved &= angles[left + 1] - angles[left] > SHARPEST
        left, middles, levels = left[is_curved], middles[is_curved], levels[is_curved]
        angles = np.insert(angles, left + 1, middles)
        decibels = np.insert(decibels, left + 1, levels)
        # Halves and their neighbours are looked at again: a middle may be straight by chance.
        is_open = np.zeros(len(angles) - 1, bool)
        halves = left + np.arange(len(left))
        for index in (halves - 1, halves, halves + 1, halves + 2):
            is_open[np.clip(index, 0, len(is_open) - 1)] = True
    return angles, decibels


def _vectors_in(source: Any) -> dict[str, NDArray[Any]]:
    """Return the vectors to draw by their names."""
    if isinstance(source, Mapping):
        return {str(name): _checked(vector, str(name)) for name, vector in source.items()}
    if vector_of_result(source) is not None:
        return {"": _checked(source, "the vector")}
    if not isinstance(source, np.ndarray) and type(source).__module__.split(".")[0] != "builtins":
        listed = listed_in(source)
        return {e.path: _checked(e.values.take(e.codes), e.path) for e in listed}
    return {"": _checked(source, "the vector")}


def _checked(source: Any, name: str) -> NDArray[Any]:
    try:
        vector = np.asarray(numbers_of(source))
    except (TypeError, ValueError):
        vector = np.asarray(None)
    if vector.dtype.kind not in "biufc":
        raise TypeError(
            f"{name} is {source!r}. Expected an array of real or complex numbers, one for each "
            "element of the antenna."
        )
    if vector.ndim != 1 or not np.isfinite(vector).all() or not np.abs(vector).any():
        raise ValueError(
            f"{name} has the shape {vector.shape}. Expected a vector of finite numbers, not all "
            "of them zero."
        )
    return vector
