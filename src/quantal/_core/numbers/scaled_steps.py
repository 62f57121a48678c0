"""The steps of a scaled list: where the nearest value changes, with the scale multiplied in."""

import numpy as np
from numpy.typing import NDArray

from quantal._core.numbers.values import Values


def scaled_steps(
    values: Values, scale: NDArray[np.float32], rank: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return where a discrete activation steps, and to what, with the scale multiplied in.

    `scale * nearest(x * (1 / scale))`, computed in float32 product by product, is the level whose
    index is the number of thresholds that are at most `x`, for every float32 number but subnormal
    ones.

    Args:
        values: The list, or lists per channel.
        scale: float32: the scale, as it broadcasts over the inputs.
        rank: The rank of the inputs.

    Returns:
        float32 thresholds, shape (K - 1, ...), the smallest inputs that get the next level; and
        levels, shape (K, ...). The other axes broadcast over the inputs.
    """
    midpoints = _first(values.midpoints, values, rank)
    return _smallest_inputs(midpoints, scale), scaled_levels(values, scale, rank)


def scaled_levels(values: Values, scale: NDArray[np.float32], rank: int) -> NDArray[np.float32]:
    """Return the numbers that a discrete activation gives: the list in order, times the scale.

    Args:
        values: The list, or lists per channel.
        scale: float32: the scale, as it broadcasts over the inputs.
        rank: The rank of the inputs.

    Returns:
        float32, shape (K, ...). The other axes broadcast over the inputs.
    """
    return (_first(values.ascending, values, rank) * scale).astype(np.float32)


def _first(numbers: NDArray[np.float32], values: Values, rank: int) -> NDArray[np.float32]:
    """Return numbers of a list with their own axis in front, and axes that broadcast behind it."""
    sizes = [1] * rank
    if values.channels is None:
        return numbers.reshape(-1, *sizes)
    sizes[values.axis] = values.channels
    return numbers.T.reshape(-1, *sizes)


def _smallest_inputs(
    midpoints: NDArray[np.float32], scale: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Return the smallest float32 numbers that, times 1 over the scale, reach the midpoints."""
    factor = np.float32(1.0) / scale
    midpoints, factor = np.broadcast_arrays(midpoints, factor)
    result = np.asarray(midpoints / factor, np.float32)
    infinity = np.float32(np.inf)
    # At 0 products may vanish, and not every processor keeps subnormal numbers.
    moves = midpoints != 0
    # A quotient is off by an ulp or so; each pass moves those that are off by one more.
    while np.any(is_low := moves & (result * factor < midpoints)):
        result = np.where(is_low, np.nextafter(result, infinity), result)
    while np.any(is_high := moves & (np.nextafter(result, -infinity) * factor >= midpoints)):
        result = np.where(is_high, np.nextafter(result, -infinity), result)
    return result
