"""Turn a rounding to a list into integer arithmetic: thresholds, or a multiplier and a shift."""

import math

import numpy as np
from numpy.typing import NDArray

from quantal._core.numbers.values import Values
from quantal._export.graph.steps import Floats
from quantal._export.integer.meaning import Meaning
from quantal._export.integer.steps import Integers, Range, Requantization, Thresholds

FEW_LEVELS = 16
"""Lists of at most so many levels are reached by thresholds, which agree to the bit."""

_BITS = 30
"""A multiplier has so many bits below its highest one, so that it fits an int32."""
_ROOM = 2.0**62
"""Products and addends stay below it, so that their sum fits an int64."""


def codes_of(numbers: Floats, levels: Floats, scale: Floats) -> Integers:
    """Return the positions of the nearest levels, as the layer DiscreteActivation takes them.

    Numbers are multiplied by 1 / scale in float32, and compared with midpoints that are rounded
    to float32; on a midpoint the larger level is the nearest.

    Args:
        numbers: Shape (..., a multiple of the scale's length).
        levels: Shape (K,), rising.
        scale: Shape (period,), above 0.
    """
    with np.errstate(over="ignore"):
        factors = np.tile(_reciprocal(scale), numbers.shape[-1] // len(scale))
        ratios = numbers.astype(np.float32) * factors
    return np.searchsorted(Values(levels).midpoints, ratios, side="right")


def _reciprocal(scale: Floats) -> NDArray[np.float32]:
    """Return what the layer multiplies by: 1 / scale, rounded to float32."""
    return np.float32(1) / scale.astype(np.float32)


def thresholds_of(
    meaning: Meaning, bounds: Range, levels: Floats, scale: Floats, integers: Integers
) -> Thresholds:
    """Return the thresholds of integers, by bisection on the float function itself.

    Args:
        meaning: What the integers stand for; monotone.
        bounds: The integers that can occur.
        levels: The levels of the list, shape (K,), rising.
        scale: The scale of the list, shape (period,).
        integers: The integers that stand for the levels, shape (K,).
    """
    period = math.lcm(meaning.period, len(scale))
    steps = np.arange(1, len(levels))

    def reached(candidates: Integers) -> "np.ndarray[tuple[int, ...], np.dtype[np.bool_]]":
        # Shape (levels - 1, period): one candidate for each threshold of each channel.
        codes = codes_of(meaning.numbers(candidates.astype(np.float64)), levels, scale)
        return codes >= steps[:, None]

    falling = np.resize(meaning.falling, period)
    sign = np.where(falling, -1, 1)
    # The smallest of `sign * integer` that reaches a threshold lies from below to above.
    first, last = (
        np.where(falling, -bounds.high, bounds.low),
        np.where(falling, -bounds.low, bounds.high),
    )
    below = np.tile(first, (len(steps), 1)).astype(np.int64)
    above = np.tile(last + 1, (len(steps), 1)).astype(np.int64)
    while (below < above).any():
        middle = (below + above) // 2
        inside = middle < above
        is_reached = reached(middle * sign) & inside
        above = np.where(is_reached, middle, above)
        below = np.where(is_reached | ~inside, below, middle + 1)
    return Thresholds((above * sign).T, falling, integers)


def requantization_of(
    meaning: Meaning, bounds: Range, levels: Floats, scale: Floats, integers: Integers
) -> Requantization | None:
    """Return multipliers and shifts that round integers to an even grid; None where they cannot.

    They can where the levels lie at every integer from the first to the last, and the integers
    stand for an affine map that is clipped alike in all channels.

    Args:
        meaning: What the integers stand for.
        bounds: The integers that can occur.
        levels: The levels of the list, shape (K,), rising.
        scale: The scale of the list, shape (period,).
        integers: The integers that stand for the levels, shape (K,).
    """
    clipped = meaning.clipped
    if clipped is None or (np.diff(integers) != 1).any():
        return None
    step = (levels[-1] - levels[0]) / (integers[-1] - integers[0])
    period = math.lcm(len(clipped.factor), len(scale))
    to_steps = np.resize(_reciprocal(scale).astype(np.float64) / step, period)
    # A level is its integer times the step, as `multiples_of` made it.
    limits = np.array(
        [
            codes_of(np.resize(ends, (1, period)), levels, scale)[0]
            for ends in (clipped.low, clipped.high)
        ]
    )
    if (limits != limits[:, :1]).any():
        return None
    low, high = (int(integers[code]) for code in limits[:, 0])
    factor, offset = (np.resize(numbers, period) * to_steps for numbers in clipped[:2])
    return fixed_point(factor, offset, bounds, Range(low, high))


def fixed_point(factor: Floats, offset: Floats, bounds: Range, results: Range) -> Requantization:
    """Return `round(factor * x + offset)` for each channel as multiplier, addend and shift.

    A factor that is a power of two has the multiplier 1 or -1 and is exact: it is a shift alone.

    Args:
        factor: Shape (period,).
        offset: Shape (period,).
        bounds: The integers x that can occur.
        results: The smallest and the largest result.
    """
    largest = max(abs(bounds.low), abs(bounds.high), 1)
    parts = [_one_channel(f, o, largest) for f, o in zip(factor, offset, strict=True)]
    multiplier, addend, shift = (
        np.array(numbers, np.int64) for numbers in zip(*parts, strict=True)
    )
    return Requantization(multiplier, addend, shift, results.low, results.high)


def _one_channel(factor: float, offset: float, largest: int) -> tuple[int, int, int]:
    """Return multiplier, addend and shift of one channel."""
    size = abs(factor) * largest + abs(offset) + 1
    # The highest shift at which the multiplier has its bits, and all sums have room.
    shift = min(62, math.floor(math.log2(_ROOM / size)))
    if factor:
        shift = min(shift, _BITS - math.frexp(factor)[1] + 1)
    if shift < 0:
        raise OverflowError
    multiplier = round(math.ldexp(factor, shift))
    while shift and multiplier % 2 == 0 and multiplier:
        multiplier, shift = multiplier // 2, shift - 1
    if not multiplier:
        shift = 0
    return multiplier, math.floor(math.ldexp(offset + 0.5, shift)), shift
