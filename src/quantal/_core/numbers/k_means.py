"""The K numbers that stand for many with the least squared error, on one axis."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from quantal._core.numbers.checks import checked_list

MOST_CELLS = 2048
"""The cells into which the numbers are gathered before the best K intervals are sought:
time and memory of the dynamic programme grow with their square."""

_MOST_ITERATIONS = 1000
"""At most so many of Lloyd's iterations are run; some tens are usual."""


def k_means(weights: ArrayLike, count: int, keep: ArrayLike = ()) -> NDArray[np.float32]:
    """Return the `count` numbers that stand for the weights with the least squared error.

    In one dimension clusters are intervals of the sorted numbers. The weights are
    gathered into at most `MOST_CELLS` cells, the best intervals of cells come from
    dynamic programming, and Lloyd's iteration refines their ends on all the weights.
    Time `n log n + K MOST_CELLS^2`, memory `n + MOST_CELLS^2`.

    Args:
        weights: Real numbers of any shape; not all of them NaN or infinite.
        count: How many numbers to return, at least 1.
        keep: Numbers that are among them in any case; the others are fitted to what lies
            nearer to them.

    Returns:
        float32 of shape (count,), ascending; shorter where the weights have fewer
        different numbers.

    Raises:
        ValueError: `count` is below 1 or the number of those to keep, or no weight is
            finite.

    Source: the dynamic programme is that of Wang and Song, "Ckmeans.1d.dp", The R
    Journal 2011.

    >>> k_means([1, 1.2, 5, 5.2, 9], 3)
    array([1.1, 5.1, 9. ], dtype=float32)
    """
    if isinstance(count, bool) or not isinstance(count, (int, np.integer)) or count < 1:
        raise ValueError(f"count is {count!r}. Expected an integer of at least 1. Give, say, 16.")
    numbers = np.sort(np.asarray(weights, float).ravel())
    numbers = numbers[np.isfinite(numbers)]
    if not numbers.size:
        raise ValueError(
            "weights holds no finite number. The values are fitted to the weights. Give a "
            "trained weight."
        )
    if np.size(keep):
        return _with_kept(numbers, int(count), keep)
    different = np.unique(numbers.astype(np.float32))
    if len(different) <= count:
        return different
    ends = _lloyd(numbers, _best_intervals(numbers, int(count)))
    # Two means may fall together in float32.
    return np.unique(_means(numbers, ends).astype(np.float32))


def _with_kept(numbers: NDArray[np.float64], count: int, keep: ArrayLike) -> NDArray[np.float32]:
    """Return the numbers to keep, and those that stand best for what is not equal to them."""
    kept = np.unique(checked_list(keep))
    if len(kept) > count:
        raise ValueError(
            f"keep has {len(kept)} numbers, and count is {count}. Expected no more than count. "
            "Give a larger count."
        )
    others = numbers[~np.isin(numbers.astype(np.float32), kept)]
    if len(kept) == count or not others.size:
        return kept
    fitted = k_means(others, count - len(kept)).astype(float)
    for _ in range(_MOST_ITERATIONS):
        centres = np.sort(np.concatenate([kept.astype(float), fitted]))
        inner = np.searchsorted(numbers, (centres[1:] + centres[:-1]) / 2)
        ends = np.concatenate([[0], inner, [len(numbers)]])
        is_free = ~np.isin(centres, kept) & (np.diff(ends) > 0)
        moved = np.array([
            numbers[begin:end].mean()
            for begin, end in zip(ends[:-1][is_free], ends[1:][is_free], strict=True)
        ])  # fmt: skip
        if np.array_equal(moved, fitted):
            break
        fitted = moved
    return np.unique(np.concatenate([kept, fitted.astype(np.float32)]))


def _means(numbers: NDArray[Any], ends: NDArray[np.intp]) -> NDArray[np.float64]:
    filled = np.flatnonzero(np.diff(ends) > 0)
    sums = np.add.reduceat(numbers, ends[:-1][filled])
    return np.asarray(sums / np.diff(ends)[filled])


def _lloyd(numbers: NDArray[np.float64], ends: NDArray[np.intp]) -> NDArray[np.intp]:
    """Move the clusters' ends until each of the sorted numbers is nearest to its mean."""
    for _ in range(_MOST_ITERATIONS):
        means = _means(numbers, ends)
        inner = np.searchsorted(numbers, (means[1:] + means[:-1]) / 2)
        moved = np.concatenate([[0], inner, [len(numbers)]])
        if np.array_equal(moved, ends):
            break
        ends = moved
    return ends


def _best_intervals(numbers: NDArray[np.float64], count: int) -> NDArray[np.intp]:
    """Return the ends of the best `count` intervals of cells of the sorted numbers."""
    edges = _cell_edges(numbers)
    cost = _interval_costs(numbers, edges)
    # total[j]: the least cost of the cells up to edge j in as many intervals as so far.
    total = cost[0].copy()
    starts = []
    for _ in range(min(count, len(edges) - 1) - 1):
        through = total[:, None] + cost
        starts.append(through.argmin(axis=0))
        total = through.min(axis=0)
    end = len(edges) - 1
    ends = [end]
    for start in reversed(starts):
        end = int(start[end])
        ends.append(end)
    return edges[np.array([*ends, 0][::-1])]


def _cell_edges(numbers: NDArray[np.float64]) -> NDArray[np.intp]:
    """Return the edges of cells, as positions in the sorted numbers."""
    if len(numbers) <= MOST_CELLS:
        return np.arange(len(numbers) + 1)
    # Half of the cells have equal counts, half equal widths: neither the middle nor the
    # tails are gathered too coarsely.
    by_count = np.linspace(0, len(numbers), MOST_CELLS // 2 + 1).round().astype(int)
    widths = np.linspace(numbers[0], numbers[-1], MOST_CELLS // 2 + 1)
    by_width = np.searchsorted(numbers, widths)
    return np.unique(np.concatenate([by_count, by_width]))


def _interval_costs(numbers: NDArray[np.float64], edges: NDArray[np.intp]) -> NDArray[np.float64]:
    """Return the squared error around its mean of every interval between two edges.

    An interval from edge i to edge j has the cost `sum x^2 - (sum x)^2 / count`; where
    it is empty or runs backwards, infinity.
    """
    centred = numbers - numbers.mean()
    sums = np.concatenate([[0.0], np.cumsum(centred)])[edges]
    squares = np.concatenate([[0.0], np.cumsum(centred**2)])[edges]
    counts = edges.astype(float)
    lengths = counts[None, :] - counts[:, None]
    with np.errstate(divide="ignore", invalid="ignore"):
        cost = (squares[None, :] - squares[:, None]) - (
            sums[None, :] - sums[:, None]
        ) ** 2 / lengths
    cost[~(lengths > 0)] = np.inf
    return np.asarray(cost)


def k_means_of_channels(
    weights: ArrayLike, axis: int, count: int, keep: ArrayLike = ()
) -> NDArray[np.float32]:
    """Return the `count` numbers for each channel that stand for its weights.

    A channel with too few different numbers has numbers of the whole weight in addition.

    Args:
        weights: Real numbers of any shape.
        axis: The axis of the channels.
        count: How many numbers to return for each.
        keep: Numbers that are among them in any case.

    Returns:
        float32 of shape (channels, K), ascending in each row; K may be below `count`.
    """
    rows = np.moveaxis(np.asarray(weights, float), axis, 0)
    lists = [k_means(row, count, keep) for row in rows]
    length = max(map(len, lists))
    if any(len(entries) < length for entries in lists):
        more = k_means(weights, 2 * length)
        lists = [
            np.sort([*entries, *np.setdiff1d(more, entries)[: length - len(entries)]])
            for entries in lists
        ]
    return np.stack(lists)


def means_by_code(
    entries: NDArray[np.float64], codes: NDArray[np.int32], numbers: NDArray[np.float32]
) -> NDArray[np.float64]:
    """Return the mean of the numbers with each code; the entry itself where no number has it.

    Args:
        entries: The list, (K,).
        codes: A code for each number, (n,).
        numbers: The numbers, (n,).

    >>> means_by_code(np.array([0.0, 1.0, 2.0]), [0, 2, 2], [0.5, 2.0, 3.0])
    array([0.5, 1. , 2.5])
    """
    counts = np.bincount(codes, minlength=len(entries))
    sums = np.bincount(codes, numbers, minlength=len(entries))
    return np.where(counts > 0, sums / np.maximum(counts, 1), entries)
