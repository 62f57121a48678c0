"""The scale of a list that fits given numbers best, with the least squared error.

NumPy only. The problem is solved by its structure: the optimal codes are intervals of the
sorted numbers.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from quantal._core.numbers.values import Values

MOST_CROSSINGS = 2**22
"""Up to so many crossings of a midpoint every scale is tried; beyond, a sample of the
weights decides where the steps start."""

_LEAST_SAMPLE = 1024
"""A sample has at least so many weights, however long the list is."""

_MOST_STEPS = 100
"""At most so many steps of Lloyd's kind are taken; a few are usual."""

_ZERO_SQUARES = 1e-12
"""A sum of squares this small, relative to the largest value's square, counts as zero:
it is a rounding error."""


class _Row(NamedTuple):
    """A row is weights that share a list: all of them, or those of one channel."""

    weights: NDArray[np.float64]
    values: Values

    def nearest(self, scale: float) -> NDArray[np.float64]:
        """Return the listed values that stand for the weights at this scale."""
        return self.values.nearest(self.weights / scale).astype(float)


def least_squares_scale(weights: ArrayLike, values: Values) -> float:
    """Return the positive scale `s` that minimises `sum (w - s * nearest(w / s))^2`.

    As `t = 1 / s` grows from 0, each weight crosses the midpoints of the list one by
    one. Between two crossings the codes stay the same and the best error is
    `sum w^2 - (sum w P)^2 / sum P^2`, with the assigned values `P`. So one sweep over the
    sorted crossings sees every possible assignment: n K crossings in all, time
    n K log(n K). Above `MOST_CROSSINGS` the sweep runs over a sample of the weights,
    and the steps `s = sum w P / sum P^2` continue from there over all of them. Weights
    that are scaled listed values give their scale back, to the bit where a float32
    scale exists that reproduces them.

    Args:
        weights: Real numbers of any shape; NaN and infinities are left out.
        values: The list, or a list for each channel of the weights.

    Returns:
        The scale; 1.0 where no positive scale is better than another, as for weights
        that are all zero.

    Source: the sweep generalises the optimal ternary scale of Li, Zhang, Liu, "Ternary
    Weight Networks", 2016, and the closed form mean(abs(w)) of ±1 in Rastegari et al.,
    "XNOR-Net", ECCV 2016, to any list.

    >>> least_squares_scale([0.2, -0.1, 0.3, -0.4], Values("binary"))
    0.25
    """
    rows = [_Row(row[np.isfinite(row)], lists) for row, lists in _rows(weights, values)]
    largest = max((float(np.abs(row.weights).max(initial=0.0)) for row in rows), default=0.0)
    if largest == 0 or not values.numbers.any():
        return 1.0
    # In units of the largest weight, so that no square leaves the range of a float.
    rows = [_Row(weights / largest, lists) for weights, lists in rows]
    most = max(MOST_CROSSINGS // len(values), _LEAST_SAMPLE)
    share = min(1.0, most / sum(row.weights.size for row in rows))
    scale = _best_over_crossings([_Row(_sample(row.weights, share), row.values) for row in rows])
    if scale is None:
        return 1.0
    scale = _descended(rows, scale)
    return _reproducing(rows, scale, largest)


def _rows(weights: ArrayLike, values: Values) -> list[_Row]:
    """Return the weights in float64, flat, with their list: one row, or one for each channel."""
    weights = np.asarray(weights, float)
    if values.channels is None:
        return [_Row(weights.ravel(), values)]
    rows = np.moveaxis(weights, values.axis, 0)
    return [
        _Row(row.ravel(), values.moved(numbers))
        for row, numbers in zip(rows, values.numbers, strict=True)
    ]


def _sample(weights: NDArray[np.float64], share: float) -> NDArray[np.float64]:
    """Return a share of the weights that is spread evenly over their order."""
    if share >= 1:
        return weights
    positions = np.linspace(0, weights.size - 1, max(round(share * weights.size), 1))
    return np.sort(weights)[positions.round().astype(int)]


def _descended(rows: list[_Row], scale: float) -> float:
    """Return the scale after steps `s = sum w P / sum P^2` as long as the error falls."""

    def error(scale: float) -> float:
        return sum(float(np.sum((row.weights - scale * row.nearest(scale)) ** 2)) for row in rows)

    least, best = error(scale), scale
    for _ in range(_MOST_STEPS):
        nearest = [row.nearest(scale) for row in rows]
        product = sum(float(row.weights @ p) for row, p in zip(rows, nearest, strict=True))
        square = sum(float(p @ p) for p in nearest)
        if product <= 0 or square == 0 or product / square == scale:
            break
        scale = product / square
        if error(scale) >= least:
            break
        least, best = error(scale), scale
    return best


def _reproducing(rows: list[_Row], scale: float, largest: float) -> float:
    """Return the scale in the weights' units, as a float32 number that reproduces them if any.

    Args:
        rows: The weights in units of `largest`.
        scale: Their scale in these units.
        largest: The largest weight.
    """
    weights = np.concatenate([row.weights for row in rows]) * largest
    nearest = np.concatenate([row.nearest(scale) for row in rows])
    index = int(np.abs(nearest).argmax())
    if nearest[index]:
        quotient = np.float32(weights[index] / nearest[index])
        neighbours = np.nextafter(quotient, np.array([-np.inf, np.inf], np.float32))
        for candidate in (quotient, *neighbours):
            product = candidate * nearest.astype(np.float32)
            if np.array_equal(product, weights.astype(np.float32)):
                return float(candidate)
    return scale * largest


def _best_over_crossings(rows: list[_Row]) -> float | None:
    """Return the best scale over all crossings; None where every assignment is zero."""
    # Sums over the weights: of w P and of P^2, for a huge scale and at each crossing.
    product, square = 0.0, 0.0
    times, products, squares = [], [], []
    for weights, values in rows:
        start = _start_of_sweep(weights, values)
        product += float(weights @ start)
        square += float(start @ start)
        for crossing in _crossings(weights, values):
            times.append(crossing[0])
            products.append(crossing[1])
            squares.append(crossing[2])
    time = np.concatenate(times)
    order = np.argsort(time, kind="stable")
    all_products = product + np.concatenate([[0.0], np.concatenate(products)[order].cumsum()])
    all_squares = square + np.concatenate([[0.0], np.concatenate(squares)[order].cumsum()])
    # Only states between two crossings at different times are real.
    real = np.array([True])
    if time.size:
        real = np.concatenate([[True], time[order][1:] > time[order][:-1], [True]])
    largest = max(float(np.abs(values.numbers).max()) for _, values in rows)
    usable = real & (all_products > 0) & (all_squares > _ZERO_SQUARES * largest**2)
    if not usable.any():
        return None
    gain = np.where(usable, all_products**2 / np.where(usable, all_squares, 1.0), -np.inf)
    best = int(gain.argmax())
    return float(all_products[best] / all_squares[best])


def _start_of_sweep(weights: NDArray[np.float64], values: Values) -> NDArray[np.float64]:
    """Return the values assigned to weights that are tiny relative to the scale."""
    if not (values.midpoints == 0).any():
        return values.nearest(np.sign(weights) * _TINY).astype(float)
    # At the midpoint 0 the weight's sign decides, however small the weight.
    ascending = values.ascending.astype(float)
    index = int(np.flatnonzero(values.midpoints == 0)[0])
    return np.where(weights < 0, ascending[index], ascending[index + 1])


_TINY = 1e-30


def _crossings(
    weights: NDArray[np.float64], values: Values
) -> list[tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]]:
    """Return when weights cross midpoints, and what this adds to the sums, for either sign.

    Returns:
        Pairs of crossings by positive and by negative weights, each as the times
        `midpoint / w`, the changes of `w P`, and the changes of `P^2`.
    """
    midpoints, ascending = values.midpoints.astype(float), values.ascending.astype(float)
    below, above = ascending[:-1], ascending[1:]
    crossings = []
    for side, passed, near, far in (
        (weights[weights > 0], midpoints > 0, below, above),
        (weights[weights < 0], midpoints < 0, above, below),
    ):
        near, far = near[passed], far[passed]
        crossings.append(
            (
                np.divide.outer(midpoints[passed], side).ravel(),
                np.multiply.outer(far - near, side).ravel(),
                np.repeat(far**2 - near**2, side.size),
            )
        )
    return crossings


def mean_absolute_scale(weights: ArrayLike, values: Values) -> float:
    """Return `mean(abs(w))` in units of the mean magnitude of the list's nonzero values.

    For ±1 it is XNOR-Net's scale, for ternary BitNet b1.58's. For weights that are all
    zero it is 1.

    >>> mean_absolute_scale([0.2, -0.1, 0.3, -0.4], Values("ternary"))
    0.25
    """
    mean = float(np.mean(np.abs(np.asarray(weights, float)))) if np.size(weights) else 0.0
    scale = mean / float(np.mean(mean_magnitude(values)))
    return scale if np.isfinite(scale) and scale > 0 else 1.0


def mean_magnitude(values: Values) -> NDArray[np.float32]:
    """Return the mean magnitude of a list's nonzero values: float32, shape () or (channels,).

    For a list of zero alone it is 1.

    >>> float(mean_magnitude(Values([-1, 0, 0.5])))
    0.75
    """
    magnitudes = np.abs(values.numbers.astype(float))
    count = np.maximum((magnitudes > 0).sum(axis=-1), 1)
    mean = magnitudes.sum(axis=-1) / count
    return np.asarray(np.where(mean > 0, mean, 1.0), np.float32)
