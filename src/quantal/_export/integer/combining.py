"""Bring integers with scales of their own to one scale, where arrays are added or joined."""

import math
from collections.abc import Sequence

import numpy as np

from quantal._export.graph.steps import Concatenate, Floats, Repetition, Slopes, Softmax
from quantal._export.integer.meaning import Affine, Map, Meaning
from quantal._export.integer.multiples import multiples_of
from quantal._export.integer.steps import Integers, Range

_BITS = 28
"""Sums of rescaled integers take so many bits, which leaves an int32 room for several."""
_EXACT = 2**12
"""Integer factors up to it are taken as they are."""


def common_sum(
    affines: Sequence[Affine], signs: Floats, bounds: Sequence[Range]
) -> tuple[Integers, Meaning]:
    """Return integer factors for arrays that are added up, and what the sum stands for.

    They are exact where the scales are small integers times one step, as scales that are powers
    of two are. Else the step is a fine one, and factors are rounded to `_BITS` bits.

    Args:
        affines: What the integers of each array stand for.
        signs: What each array is multiplied by besides, shape (arrays,).
        bounds: The smallest and the largest integer of each array.

    Returns:
        Factors, shape (arrays, period), and the meaning of the sum.
    """
    period = math.lcm(*(len(affine.factor) for affine in affines))
    factors = np.stack(
        [sign * np.resize(a.factor, period) for a, sign in zip(affines, signs, strict=True)]
    )
    offset = sum(sign * np.resize(a.offset, period) for a, sign in zip(affines, signs, strict=True))
    multiples = multiples_of(factors)
    if multiples is not None and np.abs(multiples.integers).max() <= _EXACT:
        integers, step = multiples.integers, multiples.step
    else:
        sizes = [max(abs(each.low), abs(each.high), 1) for each in bounds]
        largest = float((np.abs(factors) * np.array(sizes)[:, None]).sum(axis=0).max())
        step = 2.0 ** math.ceil(math.log2(largest / 2**_BITS))
        integers = np.rint(factors / step).astype(np.int64)
    return integers, Meaning((Affine(np.full(period, step), np.asarray(offset, np.float64)),))


def joined_meaning(affines: Sequence[Affine], step: Concatenate) -> Meaning | None:
    """Return what joined integers stand for; None where scales do not repeat along the parts."""
    if len({(a.factor[0], a.offset[0]) for a in affines}) == 1 and all(map(_is_uniform, affines)):
        return Meaning((affines[0],))
    if any(
        length % len(affine.factor) for affine, length in zip(affines, step.lengths, strict=True)
    ):
        return None
    factor, offset = (
        np.concatenate([np.resize(a[part], n) for a, n in zip(affines, step.lengths, strict=True)])
        for part in (0, 1)
    )
    return Meaning((Affine(factor, offset),))


def moved_meaning(
    meaning: Meaning,
    indices: "np.ndarray[tuple[int, ...], np.dtype[np.intp]]",
    lengths: Sequence[int],
) -> Meaning:
    """Return what copied integers stand for.

    Args:
        meaning: What the integers stood for before.
        indices: The index that each result copies, shape (size,).
        lengths: The shape of the results.
    """
    if meaning.period == 1:
        return meaning
    # Channels mostly stay on the last axis; where they do not, each number has a map of its own.
    channels = indices % meaning.period
    period = (
        lengths[-1]
        if (channels.reshape(-1, lengths[-1]) == channels[: lengths[-1]]).all()
        else len(channels)
    )

    def moved(numbers: Floats) -> Floats:
        return np.resize(numbers, meaning.period)[channels[:period]]

    def moved_map(each: Map) -> Map:
        if isinstance(each, Affine):
            return Affine(moved(each.factor), moved(each.offset))
        return each._replace(slopes=moved(each.slopes)) if isinstance(each, Slopes) else each

    return Meaning(tuple(map(moved_map, meaning.maps)))


def keeps_rows(meaning: Meaning, indices: "np.ndarray[tuple[int, ...], np.dtype[np.intp]]") -> bool:
    """Return whether the rows of each softmax are copied as they are.

    Args:
        meaning: What the integers stood for before.
        indices: The index that each result copies, shape (size,).
    """
    rows = [each.row for each in meaning.maps if isinstance(each, Softmax)]
    return all(
        len(indices) % row == 0
        and bool((indices % row == np.arange(len(indices)) % row).all())
        and bool((np.ptp(indices.reshape(-1, row) // row, axis=1) == 0).all())
        for row in rows
    )


def repeated_affine(affine: Affine, repetition: Repetition) -> Affine:
    """Return what the integers of a value stand for that is read again and again.

    Args:
        affine: What they stand for before.
        repetition: How they are read.
    """
    repeat, period = repetition
    if _is_uniform(affine):
        return Affine(affine.factor[:1], affine.offset[:1])
    if repeat == 1:
        return affine
    return Affine(*(np.repeat(np.resize(numbers, period), repeat) for numbers in affine))


def _is_uniform(affine: Affine) -> bool:
    return bool(
        (affine.factor == affine.factor[0]).all() and (affine.offset == affine.offset[0]).all()
    )


def total_of(factors: Integers, bounds: list[Range]) -> Range:
    """Return the smallest and the largest weighted sum, also before all are added."""
    ends = [_ends(factor, each) for factor, each in zip(factors, bounds, strict=True)]
    return Range(sum(min(e.low, 0) for e in ends), sum(max(e.high, 0) for e in ends))


def _ends(factor: Integers, bounds: Range) -> Range:
    products = np.stack([factor * bounds.low, factor * bounds.high])
    return Range(int(products.min()), int(products.max()))
