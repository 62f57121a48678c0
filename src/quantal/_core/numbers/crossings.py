"""The best scale over every assignment that a scale can lead to: one sweep over crossings.

As `t = 1 / s` grows from 0, each weight crosses the midpoints of its list one by one.
Many groups of weights, each with a scale of its own, are swept at once.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from quantal._core.numbers.values import Values

_ZERO_SQUARES = 1e-12
"""A sum of squares this small, relative to the largest value's square, counts as zero:
it is a rounding error."""

_TINY = 1e-30
"""A number that stands for a weight which is tiny relative to the scale."""

_EQUAL_GAINS = 1e-11
"""Gains that differ by less than this share are equal: sums have rounding errors."""

_FARTHEST = 2**10
"""Where the largest weight lies further than this below the list's largest value, an
optimizer's first step of a thousandth of the list would overrun all weights."""

_SAME_OPTIMUM = 2**0.5
"""Scales within this factor are of one optimum, and the one with the largest gain is taken."""


class Row(NamedTuple):
    """A row is weights that share a list, of each of several groups.

    Attributes:
        weights: float64, (groups, n).
        values: The list.
    """

    weights: NDArray[np.float64]
    values: Values


class _Crossings(NamedTuple):
    """Crossings are when weights cross midpoints, and what this adds to the sums.

    Attributes:
        times: `midpoint / w`, (groups, crossings); infinite where a weight crosses none.
        products: The changes of `w P`, in the same shape.
        squares: The changes of `P^2`, in the same shape.
        ranks: The order of crossings at the same time: integers below twice the count of
            crossings, in the same shape.
        positions: The crossing that has each rank, (2 * crossings,).
    """

    times: NDArray[np.float64]
    products: NDArray[np.float64]
    squares: NDArray[np.float64]
    ranks: NDArray[np.int64]
    positions: NDArray[np.int64]


def best_over_crossings(rows: list[Row]) -> NDArray[np.float64]:
    """Return the best scale of each group over all crossings: (groups,).

    It is NaN where every assignment is zero. A list of many powers of two has scales, far
    apart, that are as good as each other. If the first one puts all weights into the
    last thousandth of the list, the smallest is taken: the weights then meet the largest
    values.

    Args:
        rows: Rows of the same groups with a list each, in units of the largest weight.
    """
    starts = [_start_of_sweep(row) for row in rows]
    product, square = np.zeros((2, len(rows[0].weights)))
    for row, start in zip(rows, starts, strict=True):
        product += dots(row.weights, start)
        square += dots(start, start)
    crossings = _joined([_crossings(row) for row in rows])
    times, order = _sorted_times(crossings)
    products = _sums(product, crossings.products, order)
    squares = _sums(square, crossings.squares, order)
    largest = max(float(np.abs(row.values.numbers).max()) for row in rows)
    # Only states between two crossings at different times are real.
    usable = np.empty(products.shape, bool)
    usable[:, 0] = True
    if times.shape[1]:
        np.greater(times[:, 1:], times[:, :-1], out=usable[:, 1:-1])
        usable[:, -1] = np.isfinite(times[:, -1])
    usable &= products > 0
    usable &= squares > _ZERO_SQUARES * largest**2
    # Where a state is usable its gain is positive.
    gains = products**2
    gains *= usable
    gains /= np.where(usable, squares, 1.0)
    return _best_scales(gains, products, squares, _FARTHEST / largest)


def dots(left: NDArray[np.float64], right: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the scalar product of each row with the same row of another array: (rows,)."""
    return np.asarray((left[:, None, :] @ right[:, :, None])[:, 0, 0])


def _best_scales(
    gains: NDArray[np.float64],
    products: NDArray[np.float64],
    squares: NDArray[np.float64],
    farthest: float,
) -> NDArray[np.float64]:
    """Return the scale with the largest gain of each group; NaN where there is none.

    Above `farthest` only the smallest of equally good scales will do.
    """
    groups = np.arange(len(gains))
    best = gains.argmax(axis=1)
    usable = gains[groups, best] > 0
    scales = np.full(len(gains), np.nan)
    np.divide(products[groups, best], squares[groups, best], out=scales, where=usable)
    for group in np.flatnonzero(scales > farthest):
        row = gains[group]
        states = np.flatnonzero(row >= row[best[group]] * (1 - _EQUAL_GAINS))
        candidates = products[group, states] / squares[group, states]
        near = candidates < _SAME_OPTIMUM * candidates.min()
        scales[group] = candidates[near][row[states[near]].argmax()]
    return scales


def _joined(parts: list[_Crossings]) -> _Crossings:
    """Return the crossings of several rows as those of one."""
    if len(parts) == 1:
        return parts[0]
    offsets = np.cumsum([0, *(part.times.shape[1] for part in parts[:-1])])
    ranks = [part.ranks + 2 * offset for part, offset in zip(parts, offsets, strict=True)]
    positions = [part.positions + offset for part, offset in zip(parts, offsets, strict=True)]
    return _Crossings(
        np.concatenate([part.times for part in parts], axis=1),
        np.concatenate([part.products for part in parts], axis=1),
        np.concatenate([part.squares for part in parts], axis=1),
        np.concatenate(ranks, axis=1),
        np.concatenate(positions),
    )


def _sums(
    first: NDArray[np.float64], changes: NDArray[np.float64], order: NDArray[np.intp]
) -> NDArray[np.float64]:
    """Return a sum of each group before all changes and after each: (groups, changes + 1)."""
    sums = np.zeros((len(changes), changes.shape[1] + 1))
    np.cumsum(changes.ravel().take(order), axis=1, out=sums[:, 1:])
    sums += first[:, None]
    return sums


def _sorted_times(crossings: _Crossings) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return the times of each group in order, and their positions in the flat array.

    Numbers are sorted several times faster than positions by numbers. So the last bits of
    the times give way to the ranks, and groups in which these bits matter are sorted again.
    """
    times, ranks = crossings.times, crossings.ranks
    groups, count = times.shape
    offsets = np.arange(groups)[:, None] * count
    mask = np.uint64((1 << max(2 * count - 1, 0).bit_length()) - 1)
    # Positive floats are in the order of their bits.
    keys = times.view(np.uint64) & ~mask
    keys |= ranks.view(np.uint64)
    keys.sort(axis=1)
    keys &= mask
    order = crossings.positions.take(keys.view(np.int64))
    order += offsets
    ordered = times.ravel().take(order)
    for group in np.flatnonzero((ordered[:, 1:] < ordered[:, :-1]).any(axis=1)):
        order[group] = np.lexsort((ranks[group], times[group])) + offsets[group]
        ordered[group] = times.ravel().take(order[group])
    return ordered, order


def _start_of_sweep(row: Row) -> NDArray[np.float64]:
    """Return the values assigned to weights that are tiny relative to the scale."""
    weights, values = row
    if (values.midpoints == 0).any():
        # At the midpoint 0 the weight's sign decides, however small the weight.
        index = int(np.flatnonzero(values.midpoints == 0)[0])
        below, above = values.ascending.astype(float)[index : index + 2]
        return np.where(weights < 0, below, above)
    below, zero, above = values.nearest([-_TINY, 0, _TINY]).astype(float)
    return np.where(weights < 0, below, np.where(weights > 0, above, zero))


def _crossings(row: Row) -> _Crossings:
    """Return the crossings of a row: its weights by the midpoints of their sign."""
    weights, values = row
    midpoints, ascending = values.midpoints.astype(float), values.ascending.astype(float)
    # Midpoints from zero outwards, with the steps of the value's square.
    above, below = midpoints > 0, midpoints < 0
    steps, growth = np.diff(ascending), np.diff(ascending**2)
    upwards = midpoints[above], steps[above], growth[above]
    downwards = tuple(a[below][::-1] for a in (-midpoints, steps, -growth))
    magnitudes, negative = np.abs(weights)[:, None, :], (weights < 0)[:, None, :]
    if all(map(np.array_equal, upwards, downwards)):
        times, steps, growth = (array[:, None] for array in upwards)
    else:
        times, steps, growth = (
            np.where(negative, *_padded(down, up, never))
            for up, down, never in zip(upwards, downwards, (np.inf, 0, 0), strict=True)
        )
    with np.errstate(divide="ignore"):
        times = times / magnitudes
    # At one time, crossings of positive weights come first, then by ascending midpoints.
    numbers = np.arange(times[0].size).reshape(times.shape[1:])
    ranks_of_negative = numbers.size + numbers[::-1]
    positions = np.concatenate([numbers.ravel(), numbers[::-1].ravel()])
    shape = len(weights), numbers.size
    return _Crossings(
        times.reshape(shape),
        (steps * magnitudes).reshape(shape),
        np.broadcast_to(growth, times.shape).reshape(shape),
        np.where(negative, ranks_of_negative, numbers).reshape(shape),
        positions,
    )


def _padded(
    down: NDArray[np.float64], up: NDArray[np.float64], never: float
) -> list[NDArray[np.float64]]:
    """Return numbers of both directions for each midpoint, in the length of the longer one."""
    count = max(len(down), len(up))
    return [np.pad(a, (0, count - len(a)), constant_values=never)[:, None] for a in (down, up)]
