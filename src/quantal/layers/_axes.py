"""Axes of an input along which each index has a number of its layer's."""

from collections.abc import Sequence
from typing import Any

import numpy as np


def checked_axis(axis: Any, expected: str, advice: str) -> int | tuple[int, ...]:
    """Return an axis, or several, as a layer's constructor keeps them.

    Args:
        axis: What the user gave.
        expected: What was expected, for the message.
        advice: How to fix it, for the message.

    Raises:
        TypeError: It is no integer, and no tuple or list of integers.
    """
    axes = list(axis) if isinstance(axis, (tuple, list)) else [axis]
    if not axes or any(isinstance(a, bool) or not isinstance(a, (int, np.integer)) for a in axes):
        raise TypeError(f"axis is {axis!r}. Expected {expected}. {advice}")
    return tuple(int(a) for a in axes) if isinstance(axis, (tuple, list)) else int(axis)


def axes_of_input(
    axis: int | Sequence[int], input_shape: Sequence[int | None], kept: str, advice: str
) -> list[int]:
    """Return the axes of an input along which each index has a number, as positive integers.

    Args:
        axis: One axis or several, counted from the end where negative.
        input_shape: The shape of the input, with the batch.
        kept: What each index has, for the message: "a scale".
        advice: Another way, for the message.

    Raises:
        ValueError: The input has no such axes, or no fixed size along them.
    """
    rank, shape = len(input_shape), tuple(input_shape)
    given = [axis] if isinstance(axis, int) else list(axis)
    axes = sorted(number + rank if number < 0 else number for number in given)
    if rank < 2:
        raise ValueError(
            f"axis is {axis} for an input of shape {shape}, which has no axis but that of the "
            f"batch. Expected one from rank 2 on. Add an axis to the input{advice}."
        )
    if not (axes[0] > 0 and axes[-1] < rank) or len(set(axes)) < len(axes):
        raise ValueError(
            f"axis is {axis} for an input of shape {shape}. Expected different axes from 1 to "
            f"{rank - 1} (or -{rank - 1} to -1): axis 0 is the batch. Give the axes along which "
            f"each index has {kept}{advice}."
        )
    if None in [shape[number] for number in axes]:
        raise ValueError(
            f"axis is {axis} for an input of shape {shape}, which has no fixed size there. "
            f"Expected one: each index has {kept}. Fix the size in the Input, or choose another "
            "axis."
        )
    return axes
