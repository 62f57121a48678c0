"""A list for given numbers: the scale, or the K values, that lose least.

NumPy only. Both are least-squares problems on one axis, and both are solved by their
structure: the optimal codes are intervals of the sorted numbers.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from quantal._core.numbers.values import Values

MOST_CROSSINGS = 2**22
"""Crossings of a midpoint up to which every scale is tried; beyond, a sample decides
where to start."""


def least_squares_scale(weights: ArrayLike, values: Values) -> float:
    """The positive scale `s` that minimises `sum (w - s * nearest(w / s))^2`.

    As `t = 1 / s` grows from 0, each weight crosses the midpoints of the list one by
    one. Between two crossings the codes stand still and the best error is
    `sum w^2 - (sum w P)^2 / sum P^2`, with the chosen values `P`; so one sweep over the
    sorted crossings sees every possible choice: n K crossings in all, time
    n K log(n K). Above `MOST_CROSSINGS` the sweep runs over a sample of the weights,
    and the steps `s = sum w P / sum P^2` go on from there over all of them. Weights
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
    rows = [(row[np.isfinite(row)], lists) for row, lists in _rows(weights, values)]
    largest = max((float(np.abs(row).max(initial=0.0)) for row, _ in rows), default=0.0)
    if largest == 0 or not values.numbers.any():
        return 1.0
    # In units of the largest weight, so that no square leaves the range of a float.
    rows = [(row / largest, lists) for row, lists in rows]
    count = sum(row.size for row, _ in rows)
    most = max(MOST_CROSSINGS // len(values), 1024)
    share = min(1.0, most / count)
    scale = _swept([(_sample(row, share), lists) for row, lists in rows])
    if scale is None:
        return 1.0

    def chosen(scale: float) -> list[NDArray[np.float64]]:
        return [lists.nearest(row / scale).astype(float) for row, lists in rows]

    def error(scale: float) -> float:
        return sum(
            float(np.sum((row - scale * picked) ** 2))
            for (row, _), picked in zip(rows, chosen(scale), strict=True)
        )

    best = (error(scale), scale)
    for _ in range(100):
        picked = chosen(scale)
        product = sum(float(row @ p) for (row, _), p in zip(rows, picked, strict=True))
        square = sum(float(p @ p) for p in picked)
        if product <= 0 or square == 0 or product / square == scale:
            break
        scale = product / square
        if error(scale) >= best[0]:
            break
        best = (error(scale), scale)
    return _exact(rows, chosen(best[1]), best[1], largest)


def _rows(weights: ArrayLike, values: Values) -> list[tuple[NDArray[np.float64], Values]]:
    """The weights in float64, flat, with their list: one pair, or one for each channel."""
    weights = np.asarray(weights, float)
    if values.channels is None:
        return [(weights.ravel(), values)]
    rows = np.moveaxis(weights, values.axis, 0)
    return [
        (row.ravel(), values.moved(numbers))
        for row, numbers in zip(rows, values.numbers, strict=True)
    ]


def _sample(weights: NDArray[np.float64], share: float) -> NDArray[np.float64]:
    if share >= 1:
        return weights
    ranks = np.linspace(0, weights.size - 1, max(round(share * weights.size), 1))
    return np.sort(weights)[ranks.round().astype(int)]


def _exact(
    rows: list[tuple[NDArray[np.float64], Values]],
    chosen: list[NDArray[np.float64]],
    scale: float,
    largest: float,
) -> float:
    """The scale, or the float32 number beside it that reproduces all the weights."""
    weights = np.concatenate([row for row, _ in rows]) * largest
    picked = np.concatenate(chosen)
    at = int(np.abs(picked).argmax())
    if picked[at]:
        candidate = np.float32(weights[at] / picked[at])
        for near in (candidate, *np.nextafter(candidate, np.array([-np.inf, np.inf], np.float32))):
            if np.array_equal(near * picked.astype(np.float32), weights.astype(np.float32)):
                return float(near)
    return scale * largest


def _swept(rows: list[tuple[NDArray[np.float64], Values]]) -> float | None:
    """The best scale over all crossings; None where every choice is zero."""
    times, products, squares = [], [], []
    product, square = 0.0, 0.0
    for weights, values in rows:
        midpoints, ascending = values.midpoints.astype(float), values.ascending.astype(float)
        below, above = ascending[:-1], ascending[1:]
        for side, passed, near, far in (
            (weights[weights > 0], midpoints > 0, below, above),
            (weights[weights < 0], midpoints < 0, above, below),
        ):
            near, far = near[passed], far[passed]
            times.append(np.divide.outer(midpoints[passed], side).ravel())
            products.append(np.multiply.outer(far - near, side).ravel())
            squares.append(np.repeat(far**2 - near**2, side.size))
        start = values.nearest(np.sign(weights) * 1e-30).astype(float)
        if (values.midpoints == 0).any():
            # At the midpoint 0 the weight's sign decides, however small the weight.
            at = int(np.flatnonzero(values.midpoints == 0)[0])
            start = np.where(weights < 0, ascending[at], ascending[at + 1])
        product += float(weights @ start)
        square += float(start @ start)
    time = np.concatenate(times)
    order = np.argsort(time, kind="stable")
    all_products = product + np.concatenate([[0.0], np.concatenate(products)[order].cumsum()])
    all_squares = square + np.concatenate([[0.0], np.concatenate(squares)[order].cumsum()])
    # Only states between two crossings at different times are real.
    real = np.array([True])
    if time.size:
        real = np.concatenate([[True], time[order][1:] > time[order][:-1], [True]])
    # Beside the largest value's square, a sum this small is what rounding left of zero.
    largest = max(float(np.abs(values.numbers).max()) for _, values in rows)
    usable = real & (all_products > 0) & (all_squares > 1e-12 * largest**2)
    if not usable.any():
        return None
    gain = np.where(usable, all_products**2 / np.where(usable, all_squares, 1.0), -np.inf)
    best = int(gain.argmax())
    return float(all_products[best] / all_squares[best])


def mean_absolute_scale(weights: ArrayLike, values: Values) -> float:
    """`mean(abs(w))` in units of the mean magnitude of the list's nonzero values.

    For ±1 that is XNOR-Net's scale, for ternary BitNet b1.58's. 1.0 for weights that
    are all zero.

    >>> mean_absolute_scale([0.2, -0.1, 0.3, -0.4], Values("ternary"))
    0.25
    """
    mean = float(np.mean(np.abs(np.asarray(weights, float)))) if np.size(weights) else 0.0
    scale = mean / float(np.mean(mean_magnitude(values)))
    return scale if np.isfinite(scale) and scale > 0 else 1.0


def mean_magnitude(values: Values) -> NDArray[np.float32]:
    """Of the nonzero values, for each channel that has a list: float32, shape () or (channels,).

    >>> float(mean_magnitude(Values([-1, 0, 0.5])))
    0.75
    """
    magnitudes = np.abs(values.numbers.astype(float))
    count = np.maximum((magnitudes > 0).sum(axis=-1), 1)
    mean = magnitudes.sum(axis=-1) / count
    return np.asarray(np.where(mean > 0, mean, 1.0), np.float32)
