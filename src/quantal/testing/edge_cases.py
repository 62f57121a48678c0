"""Numbers for which the nearest value of a list is easily missed."""

import numpy as np
from numpy.typing import NDArray

from quantal._core.numbers.values import Values, ValuesLike

SPREAD = 100
"""So many edge cases are random numbers: some between any two values of a short list."""

ROUND_LENGTH = 1024
"""The cases are repeated up to a multiple of this, so that compilers meet few shapes."""

SMALLEST_SPAN = 1e-30
"""The width around a list of one value, whose ends coincide."""


def edge_cases(values: ValuesLike, seed: int = 0) -> NDArray[np.float32]:
    """Return numbers for which the nearest value of a list is easily missed.

    They are the listed values, the midpoints and their float32 neighbours, numbers between
    and far beyond, zeros of both signs, infinities and NaN. No subnormal numbers: some
    processors read them as zero.

    Args:
        values: The list.
        seed: The same seed draws the same numbers between and beyond.

    Returns:
        A float32 vector.

    Example:
    >>> import numpy as np
    >>> np.isin([1, -1, 0, np.inf], edge_cases([1, -1])).all()
    np.True_
    """
    values = Values.get(values)
    random = np.random.default_rng(seed)
    largest = np.finfo(np.float32).max
    near = np.concatenate([values.numbers, values.midpoints])
    span = max(values.high - values.low, abs(values.high), SMALLEST_SPAN)
    spread = values.low + min(span, float(largest) / 4) * random.uniform(-0.5, 1.5, SPREAD)
    numbers = np.concatenate(
        [
            near,
            np.nextafter(near, np.float32(np.inf)),
            np.nextafter(near, np.float32(-np.inf)),
            np.clip(spread, -float(largest), float(largest)).astype(np.float32),
            np.array([0.0, -0.0, largest, -largest, np.inf, -np.inf, np.nan], np.float32),
        ]
    )
    is_subnormal = (np.abs(numbers) < np.finfo(np.float32).smallest_normal) & (numbers != 0)
    numbers = numbers[~is_subnormal]
    return np.resize(numbers, -(-numbers.size // ROUND_LENGTH) * ROUND_LENGTH)
