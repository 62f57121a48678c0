"""The scale fit of one weight at a time, as it was first written: what faster forms must equal."""

from typing import NamedTuple

import numpy as np

MOST_CROSSINGS = 2**22
_LEAST_SAMPLE = 1024
_MOST_STEPS = 100
_ZERO_SQUARES = 1e-12


class Row(NamedTuple):
    """A row is weights that share a list: all of them, or those of one channel."""

    weights: np.ndarray
    values: object

    def nearest(self, scale):
        """Return the listed values that stand for the weights at this scale."""
        return self.values.nearest(self.weights / scale).astype(float)


def least_squares_scale(weights, values):
    """Return the positive scale that minimises `sum (w - s * nearest(w / s))^2`."""
    rows = [Row(row[np.isfinite(row)], lists) for row, lists in _rows(weights, values)]
    largest = max((float(np.abs(row.weights).max(initial=0.0)) for row in rows), default=0.0)
    if largest == 0 or not values.numbers.any():
        return 1.0
    # In units of the largest weight, so that no square leaves the range of a float.
    rows = [Row(weights / largest, lists) for weights, lists in rows]
    most = max(MOST_CROSSINGS // len(values), _LEAST_SAMPLE)
    share = min(1.0, most / sum(row.weights.size for row in rows))
    scale = _best_over_crossings([Row(_sample(row.weights, share), row.values) for row in rows])
    if scale is None:
        return 1.0
    scale = _descended(rows, scale)
    return _reproducing(rows, scale, largest)


def _rows(weights, values):
    """Return the weights in float64, flat, with their list: one row, or one for each channel."""
    weights = np.asarray(weights, float)
    if values.channels is None:
        return [Row(weights.ravel(), values)]
    rows = np.moveaxis(weights, values.axis, 0)
    return [
        Row(row.ravel(), values.moved(numbers))
        for row, numbers in zip(rows, values.numbers, strict=True)
    ]


def _sample(weights, share):
    """Return a share of the weights that is spread evenly over their order."""
    if share >= 1:
        return weights
    positions = np.linspace(0, weights.size - 1, max(round(share * weights.size), 1))
    return np.sort(weights)[positions.round().astype(int)]


def _descended(rows, scale):
    """Return the scale after steps `s = sum w P / sum P^2` as long as the error falls."""

    def error(scale):
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


def _reproducing(rows, scale, largest):
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


def _best_over_crossings(rows):
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


def _start_of_sweep(weights, values):
    """Return the values assigned to weights that are tiny relative to the scale."""
    if not (values.midpoints == 0).any():
        return values.nearest(np.sign(weights) * _TINY).astype(float)
    # At the midpoint 0 the weight's sign decides, however small the weight.
    ascending = values.ascending.astype(float)
    index = int(np.flatnonzero(values.midpoints == 0)[0])
    return np.where(weights < 0, ascending[index], ascending[index + 1])


_TINY = 1e-30


def _crossings(weights, values):
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
