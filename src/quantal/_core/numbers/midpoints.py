"""Midpoints between the values of a list say which value is nearest, exactly in float32."""

import numpy as np
from numpy.typing import NDArray

from quantal._core.numbers.checks import SMALLEST_NORMAL

Floats = NDArray[np.float32]


def exact_midpoints(ascending: Floats) -> Floats:
    """Return, for each value but the smallest, the smallest float32 number nearest to it.

    Args:
        ascending: A list in ascending order along the last axis, (..., K).

    Returns:
        The midpoints to lower neighbours, rounded up to float32: (..., K - 1).
    """
    numbers = ascending.astype(float)
    below, above = numbers[..., :-1], numbers[..., 1:]
    total = below + above
    # What the sum of two doubles lost to rounding, exactly (Knuth's two-sum).
    shadow = total - below
    lost = (below - (total - shadow)) + (above - shadow)
    middle = (total / 2).astype(np.float32)
    too_low = (middle < total / 2) | ((middle == total / 2) & (lost > 0))
    middle = np.where(too_low, np.nextafter(middle, np.float32(np.inf)), middle)
    # Processors may read numbers below the smallest normal one as zero.
    safe = np.where(middle > 0, np.float32(SMALLEST_NORMAL), np.float32(0))
    return np.where(np.abs(middle) < SMALLEST_NORMAL, safe, middle)


def rounded_midpoints(ascending: Floats) -> Floats:
    """Return the midpoints of a list as training computes them anew: rounded to nearest.

    Args:
        ascending: A list in ascending order along the last axis, (..., K).
    """
    low, high = ascending[..., :-1], ascending[..., 1:]
    middle = low * np.float32(0.5) + high * np.float32(0.5)
    return np.where(middle > low, middle, high)


def nearest_codes(order: NDArray[np.int32], midpoints: Floats, x: Floats) -> NDArray[np.int32]:
    """Return the codes of the values nearest to numbers; NaN has that of the smallest value.

    Args:
        order: The codes in ascending order of their values, (K,).
        midpoints: The midpoints of the list, (K - 1,).
        x: The numbers, of any shape.
    """
    count = np.searchsorted(midpoints, x, side="right")
    return order[np.where(np.isnan(x), 0, count)]
