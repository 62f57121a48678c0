"""A picture shows what lists reach over the bytes that they take."""

from collections.abc import Sequence
from typing import Any

from quantal._sweep.cell import SweepCell

_INCHES = (7.0, 4.6)
"""The size of the figure."""


def draw(cells: Sequence[SweepCell], metric: str, maximize: bool) -> Any:
    """Draw the mean metric over the mean bytes, with the spread from seed to seed.

    Args:
        cells: What each list with each estimator and learning rate has reached.
        metric: The metric's name.
        maximize: Whether more of it is better.

    Returns:
        A matplotlib figure.

    Raises:
        ImportError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError(
            "matplotlib is not installed. picture draws with it. Run "
            "pip install 'quantal[sweep]', or use to_frame."
        ) from error
    figure = Figure(figsize=_INCHES, dpi=120, layout="constrained")
    axes = figure.subplots()
    for cell in cells:
        if cell.scores:
            axes.errorbar(cell.bytes, cell.mean, cell.spread, marker="o", capsize=3)
            axes.annotate(cell.values, (cell.bytes, cell.mean))
    axes.set_xscale("log")
    axes.set_xlabel("bytes of the file")
    axes.set_ylabel(metric)
    return figure
