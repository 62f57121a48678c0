"""Scales of blocks: along each axis of a weight, consecutive elements may share a scale.

The shape of such a scale has the number of blocks along each axis: 1 for one scale along the whole
axis, the axis' own size for one at each index, and a divisor of it between. So the shapes of a
weight and of its scale say which elements share one, and no other number has to be kept.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

_MOST_NAMED = 6
"""An error names at most so many sizes of groups that fit."""


def is_blocked(scale: Sequence[int], weight: Sequence[int]) -> bool:
    """Return whether a scale of a shape does not broadcast, but has blocks along some axis.

    >>> is_blocked((2, 5), (6, 5)), is_blocked((1, 5), (6, 5))
    (True, False)
    """
    return any(1 < count < size for count, size in _pairs(scale, weight))


def fits(scale: Sequence[int], weight: Sequence[int]) -> bool:
    """Return whether a scale of a shape belongs to a weight: it broadcasts, or has even blocks."""
    if not scale or len(scale) > len(weight):
        return not scale
    return all(count > 0 and size % count == 0 for count, size in _pairs(scale, weight))


def _pairs(scale: Sequence[int], weight: Sequence[int]) -> list[tuple[int, int]]:
    return list(zip(reversed(scale), reversed(weight), strict=False))


def spread(scales: NDArray[Any], weight: Sequence[int]) -> NDArray[Any]:
    """Return scales of blocks as an array that broadcasts over a weight.

    Args:
        scales: The scales.
        weight: The weight's shape.

    >>> spread(np.array([[1, 2], [3, 4]]), (4, 2)).tolist()
    [[1, 2], [1, 2], [3, 4], [3, 4]]
    """
    offset = len(weight) - scales.ndim
    for axis, count in enumerate(scales.shape):
        if 1 < count < weight[axis + offset]:
            scales = np.repeat(scales, weight[axis + offset] // count, axis)
    return scales


def split(scale: Sequence[int], weight: Sequence[int]) -> tuple[list[int], list[int], list[int]]:
    """Return the shapes of a weight and its scale with an axis more for each axis of blocks.

    With them the scale broadcasts.

    Returns:
        The weight's shape, the scale's, and the position of each axis of the weight in them.

    >>> split((2, 5), (6, 5))
    ([2, 3, 5], [2, 1, 5], [0, 2])
    """
    sizes: list[int] = []
    counts: list[int] = []
    positions = []
    for count, size in zip(scale, weight, strict=True):
        positions.append(len(sizes))
        is_cut = 1 < count < size
        sizes += [count, size // count] if is_cut else [size]
        counts += [count, 1] if is_cut else [count]
    return sizes, counts, positions


def counts_of_groups(
    weight: Sequence[int], inputs: Sequence[int], group: int, name: str
) -> tuple[int, ...]:
    """Return the shape of the scale of each `group` elements along the axes of a weight's inputs.

    The last of these axes runs fastest. Where all inputs together are no more than a group, they
    are one.

    Args:
        weight: The weight's shape.
        inputs: The axes of its inputs, ascending.
        group: How many consecutive elements share a scale.
        name: What messages call the weight.

    Raises:
        ValueError: The group is no whole block along the axes.

    >>> counts_of_groups((256, 5), [0], 128, "dense/kernel")
    (2, 5)
    >>> counts_of_groups((3, 3, 32, 5), [0, 1, 2], 96, "conv/kernel")
    (3, 1, 1, 5)
    """
    counts, total = list(weight), math.prod(weight[axis] for axis in inputs)
    remaining = max(group, total) if total <= group else group
    for axis in reversed(inputs):
        size = weight[axis]
        if total <= group or remaining % size == 0:
            counts[axis], remaining = 1, max(remaining // max(size, 1), 1)
        elif size % remaining == 0:
            counts[axis], remaining = size // remaining, 1
        else:
            sizes = _sizes_that_fit([weight[axis] for axis in inputs], group)
            raise ValueError(
                f"group is {group}, but {name} has {total} inputs (its shape is "
                f"{tuple(weight)}), which it does not divide into equal blocks. Expected a size "
                f"that does. Give {sizes}; discretize takes a scale for each rule."
            )
    return tuple(counts)


def _sizes_that_fit(sizes: Sequence[int], group: int) -> str:
    """Return the sizes of groups nearest to one that fit, as words."""
    whole, fitting = 1, set()
    for size in reversed(sizes):
        fitting |= {whole * part for part in range(1, size + 1) if size % part == 0}
        whole *= size
    nearest = sorted(sorted(fitting, key=lambda size: abs(np.log(size / group)))[:_MOST_NAMED])
    return f"{', '.join(map(str, nearest[:-1]))} or {nearest[-1]}" if nearest[1:] else "1"
