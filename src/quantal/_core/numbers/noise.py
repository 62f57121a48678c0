"""The noise of a list is a standard deviation for each value: it is checked, named and written."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Deviations = NDArray[np.float32]


def checked_noise(noise: Any, shape: tuple[int, ...]) -> NDArray[np.float32] | None:
    """Return the standard deviations of a list's values, read-only; None where all are 0.

    Args:
        noise: None, a number, one for each value, or one for each value of each channel.
        shape: The shape of the list, (K,) or (channels, K), which the result has, too.

    Raises:
        TypeError: It is no real number and no array of them.
        ValueError: A number is negative or not finite, or the shape is another.
    """
    if noise is None:
        return None
    expected = f"Expected a standard deviation, or {shape[-1]} of them, one for each value"
    try:
        numbers = np.asarray(noise, np.float32)
    except (TypeError, ValueError) as error:
        raise TypeError(f"noise is {noise!r}. {expected}. Give 0.02, for example.") from error
    if numbers.shape not in {(), shape, shape[-1:]}:
        raise ValueError(
            f"noise has the shape {numbers.shape}. {expected}: the list has the shape {shape}."
        )
    if not (np.isfinite(numbers) & (numbers >= 0)).all():
        raise ValueError(
            f"noise is {noise!r}. {expected}, each finite and at least 0. Give 0 for a value "
            "that is exact."
        )
    deviations = np.array(np.broadcast_to(numbers, shape))
    deviations.flags.writeable = False
    return deviations if deviations.any() else None


def noise_name(noise: Deviations) -> str:
    """Return what the noise of a list is called on a line: its deviation, or their range."""
    low, high = float(noise.min()), float(noise.max())
    return f"noise {high:g}" if low == high else f"noise {low:g} to {high:g}"


def noise_config(noise: Deviations) -> Any:
    """Return one float for all deviations where they are equal, else the list of them."""
    rows = [[float(str(number)) for number in row] for row in np.atleast_2d(noise)]
    if (noise == noise.flat[0]).all():
        return rows[0][0]
    return rows[0] if noise.ndim == 1 or (noise == noise[0]).all() else rows


def is_same_noise(one: Deviations | None, other: Deviations | None) -> bool:
    """Return whether two lists have the same noise, or neither has any."""
    if one is None or other is None:
        return one is other
    return np.array_equal(one, other)
