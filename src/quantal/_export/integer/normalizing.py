"""Turn the normalization of a sample by its own numbers into integer arithmetic."""

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from quantal._export.graph.steps import Normalize
from quantal._export.integer.layer_steps import Normalized
from quantal._export.integer.meaning import Affine
from quantal._export.integer.rounding import fixed_point
from quantal._export.integer.steps import Range, Requantization

_BITS = 62
"""Squares, and differences that are moved up, stay below two to this power: int64 holds them."""
_FRACTION = 24
"""Results have so many bits behind the point at most: as a float32 near 1 has."""
_LEAST_FRACTION = 12
"""Results with fewer bits would differ from Keras's by more than a rounding."""
_LEAST_SPREAD = 8
"""Squares are moved up by so many bits at least, so that a small root has digits, too."""
_SUM_BITS = range(26, 15, -1)
"""The sum of a group's magnitudes takes so many bits where they are rescaled: the most that fit."""


class FineScale(NamedTuple):
    """Integers of several scales or offsets are brought to one fine scale.

    Attributes:
        rounding: How they are.
        scale: What a result 1 stands for.
        bounds: The smallest and the largest result.
    """

    rounding: Requantization
    scale: float
    bounds: Range


def normalized(step: Normalize, scale: float, bounds: Range) -> Normalized | None:
    """Return a normalization of integers; None where an int64 does not hold it.

    Args:
        step: The normalization of floats.
        scale: What an integer 1 stands for, above 0.
        bounds: The smallest and the largest integer.
    """
    count = step.positions * step.width
    largest = max(abs(bounds.low), abs(bounds.high), 1)
    unit = step.kind == "unit"
    epsilon = step.epsilon / scale**2 * (1 if unit else count**2)
    # Differences of the standard kind are from -count * largest to it, twice at most.
    differences = largest if unit else 2 * count * largest
    power = count * largest**2 * (1 if unit else count)
    spread = _BITS - 1 - math.ceil(math.log2(power + epsilon + 1))
    spread -= spread % 2
    if spread < _LEAST_SPREAD:
        return None
    # The quotient is at most the root of the count, and the result an int32.
    fraction = min(_FRACTION, 29 - math.ceil(math.log2(count) / 2))
    fraction = min(fraction, _BITS - 2 - math.ceil(math.log2(differences)) - spread // 2)
    if fraction < _LEAST_FRACTION:
        return None
    return Normalized(step, round(math.ldexp(epsilon, spread)), spread, fraction + spread // 2)


def fraction_of(step: Normalized) -> int:
    """Return how many bits the results of a normalization have behind the point."""
    return step.shift - step.spread // 2


def bounds_of_normalized(step: Normalized) -> Range:
    """Return the smallest and the largest result."""
    count = 1 if step.normalize.kind == "unit" else step.normalize.positions * step.normalize.width
    # The root is rounded down: by an eighth at most, where the integers differ at all.
    end = math.ceil(1.25 * math.sqrt(count) * 2 ** fraction_of(step)) + 1
    return Range(-end, end)


def fine_scales(affine: Affine, bounds: Range, count: int) -> Iterator[FineScale]:
    """Yield fine scales for integers of several scales or offsets, the finest first.

    Args:
        affine: What the integers stand for.
        bounds: The smallest and the largest integer.
        count: How many are added up.
    """
    ends = [affine.factor * end + affine.offset for end in bounds]
    largest = float(np.max(np.abs(ends))) or 1.0
    for bits in _SUM_BITS:
        scale = 2.0 ** (math.ceil(math.log2(largest)) - max(bits - math.ceil(math.log2(count)), 1))
        results = Range(int(np.min(ends) / scale) - 1, int(np.max(ends) / scale) + 1)
        rounding = fixed_point(affine.factor / scale, affine.offset / scale, bounds, results)
        yield FineScale(rounding, scale, results)
