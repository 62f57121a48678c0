"""The scale of a list that fits given numbers best, with the least squared error.

NumPy only. The problem is solved by its structure: the optimal codes are intervals of the
sorted numbers.
"""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from quantal._core.numbers.crossings import Row, best_over_crossings, dots
from quantal._core.numbers.values import Values

MOST_CROSSINGS = 2**22
"""Up to so many crossings of a midpoint every scale is tried; beyond, a sample of the
weights decides where the steps start."""

_LEAST_SAMPLE = 1024
"""A sample has at least so many weights, however long the list is."""

_MOST_STEPS = 100
"""At most so many steps of Lloyd's kind are taken; a few are usual."""

_NUMBERS_AT_ONCE = 2**17
"""Groups are fitted together up to so many crossings: their arrays stay near the processor."""

_MOST_COMPARED = 17
"""For lists up to this length, comparing with each midpoint is faster than a binary search."""


def least_squares_scale(weights: ArrayLike, values: Values) -> float:
    """Return the positive scale `s` that minimises `sum (w - s * nearest(w / s))^2`.

    As `t = 1 / s` grows from 0, each weight crosses the midpoints of the list one by
    one. Between two crossings the codes stay the same and the best error is
    `sum w^2 - (sum w P)^2 / sum P^2`, with the assigned values `P`. So one sweep over the
    sorted crossings sees every possible assignment: n K crossings in all, time
    n K log(n K). Above `MOST_CROSSINGS` the sweep runs over a sample of the weights,
    and the steps `s = sum w P / sum P^2` continue from there over all of them. Weights
    that are scaled listed values give their scale back, to the bit where a float32
    scale exists that reproduces them. Where all weights would lie in the last
    thousandth of a list of many powers of two, the smallest of the equally good scales
    is taken.

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
    return float(least_squares_scales(weights, values, ()))


def least_squares_scales(
    weights: ArrayLike, values: Values, shape: tuple[int, ...]
) -> NDArray[np.float64]:
    """Return the best scale of each part of the weights, as `least_squares_scale` fits one.

    Args:
        weights: Real numbers; NaN and infinities are left out.
        values: The list, or a list for each channel of the weights.
        shape: The shape of the scales: (), or one that broadcasts over the weights.

    Returns:
        float64 of the given shape.

    >>> least_squares_scales([[0.2, -0.1], [0.3, -0.5]], Values("binary"), (2, 1))
    array([[0.15],
           [0.4 ]])
    """
    scales = np.empty(math.prod(shape))
    for groups, rows in _groups(np.asarray(weights), values, shape):
        finite = np.all([np.isfinite(row.weights).all(axis=1) for row in rows], axis=0)
        scales[groups[finite]] = _fitted([Row(row.weights[finite], row.values) for row in rows])
        for index in np.flatnonzero(~finite):
            parts = [Row(weights[index], lists) for weights, lists in rows]
            parts = [Row(part[np.isfinite(part)][None], lists) for part, lists in parts]
            scales[groups[index]] = _fitted(parts)[0]
    return scales.reshape(shape)


def _groups(
    weights: NDArray[Any], values: Values, shape: tuple[int, ...]
) -> Iterator[tuple[NDArray[np.intp], list[Row]]]:
    """Yield the weights of some scales at once, as positions of the scales and their rows.

    The weights are in float64, with a row for each list.
    """
    if not shape:
        shape = (1,) * weights.ndim
    scaled = [axis for axis, size in enumerate(shape) if size != 1]
    positions = np.arange(math.prod(shape)).reshape([shape[axis] for axis in scaled])
    lists, listed = [values], None
    if values.channels is not None:
        values.check_channels(weights.shape)
        lists, listed = [values.moved(row) for row in values.numbers], values.axis % weights.ndim
    if listed in scaled:
        # Each list has its own scales, and its weights are fitted alone.
        axis = scaled.index(listed)
        for index, single in enumerate(lists):
            part = np.take(weights, [index], listed)
            shape_of_part = tuple(1 if a == listed else size for a, size in enumerate(shape))
            for groups, rows in _groups(part, single, shape_of_part):
                yield np.take(positions, index, axis).ravel()[groups], rows
        return
    leading = [*scaled] if listed is None else [*scaled, listed]
    arranged = np.moveaxis(weights, leading, range(len(leading)))
    count = weights.size // max(positions.size * len(lists), 1)
    if len(scaled) != 1:
        arranged = arranged.reshape(positions.size, len(lists), count)
    crossings = count * len(lists) * max(len(values) // 2, 1)
    step = max(_NUMBERS_AT_ONCE // max(crossings, 1), 1)
    for begin in range(0, positions.size, step):
        chunk = np.array(arranged[begin : begin + step], np.float64, order="C")
        chunk = chunk.reshape(len(chunk), len(lists), count)
        rows = [Row(np.ascontiguousarray(chunk[:, i]), single) for i, single in enumerate(lists)]
        yield np.arange(begin, begin + len(chunk)), rows


def _fitted(rows: list[Row]) -> NDArray[np.float64]:
    """Return the best scale of each group, of which the rows hold finite weights."""
    groups = len(rows[0].weights)
    largest = np.max([np.abs(w).max(axis=1, initial=0.0) for w, _ in rows], axis=0)
    if not largest.any() or not any(row.values.numbers.any() for row in rows):
        return np.ones(groups)
    units = np.where(largest > 0, largest, 1.0)
    # In units of the largest weight, so that no square leaves the range of a float.
    rows = [Row(weights / units[:, None], lists) for weights, lists in rows]
    most = max(MOST_CROSSINGS // len(rows[0].values), _LEAST_SAMPLE)
    share = min(1.0, most / max(sum(row.weights.shape[1] for row in rows), 1))
    scales = best_over_crossings([Row(_sample(row.weights, share), row.values) for row in rows])
    usable = (largest > 0) & ~np.isnan(scales)
    rows = [Row(weights[usable], lists) for weights, lists in rows]
    fitted = np.ones(groups)
    fitted[usable] = _descended(rows, scales[usable], units[usable])
    return fitted


def _sample(weights: NDArray[np.float64], share: float) -> NDArray[np.float64]:
    """Return a share of the weights of each group that is spread evenly over their order."""
    if share >= 1:
        return weights
    count = weights.shape[1]
    positions = np.linspace(0, count - 1, max(round(share * count), 1))
    return np.sort(weights, axis=1)[:, positions.round().astype(int)]


def _nearest(rows: list[Row], scales: NDArray[np.float64]) -> list[NDArray[np.float64]]:
    """Return the listed values that stand for the weights at each group's scale."""
    return [_nearest_in_list(weights / scales[:, None], lists) for weights, lists in rows]


def _nearest_in_list(numbers: NDArray[np.float64], values: Values) -> NDArray[np.float64]:
    """Return `values.nearest` in float64, of finite numbers."""
    numbers_in_list = numbers.astype(np.float32)
    ascending, midpoints = values.ascending.astype(float), values.midpoints
    if len(values) > _MOST_COMPARED:
        return ascending[np.searchsorted(midpoints, numbers_in_list, side="right")]
    passed = np.zeros(numbers.shape, np.int8)
    for midpoint in midpoints:
        passed += numbers_in_list >= midpoint
    return ascending.take(passed)


def _errors(
    rows: list[Row], scales: NDArray[np.float64], nearest: list[NDArray[np.float64]]
) -> NDArray[np.float64]:
    """Return the squared error of each group: (groups,)."""
    errors = np.zeros(len(scales))
    for (weights, _), values in zip(rows, nearest, strict=True):
        errors += np.sum((weights - scales[:, None] * values) ** 2, axis=1)
    return errors


def _descended(
    rows: list[Row], scales: NDArray[np.float64], units: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the scales after steps `s = sum w P / sum P^2` as long as the error falls.

    Args:
        rows: The weights in units of the groups' largest ones.
        scales: The first scales in these units, (groups,); not changed.
        units: The largest weight of each group.

    Returns:
        The scales in the units of the weights, as float32 numbers that reproduce them if
        there are any.
    """
    scales = scales.copy()
    nearest = _nearest(rows, scales)
    errors = _errors(rows, scales, nearest)
    active = np.arange(len(scales))
    for _ in range(_MOST_STEPS):
        values = [array[active] for array in nearest]
        moving = [Row(weights[active], lists) for weights, lists in rows]
        products, squares = np.zeros(len(active)), np.zeros(len(active))
        for (weights, _), array in zip(moving, values, strict=True):
            products += dots(weights, array)
            squares += dots(array, array)
        usable = (products > 0) & (squares > 0)
        steps = np.divide(products, squares, out=scales[active], where=usable)
        changed = np.flatnonzero(steps != scales[active])
        active, steps = active[changed], steps[changed]
        if not len(active):
            break
        moving = [Row(weights[changed], lists) for weights, lists in moving]
        values = _nearest(moving, steps)
        moved_errors = _errors(moving, steps, values)
        better = np.flatnonzero(moved_errors < errors[active])
        active = active[better]
        scales[active], errors[active] = steps[better], moved_errors[better]
        for array, moved in zip(nearest, values, strict=True):
            array[active] = moved[better]
    return _reproducing(rows, nearest, scales, units)


def _reproducing(
    rows: list[Row],
    nearest: list[NDArray[np.float64]],
    scales: NDArray[np.float64],
    units: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Return the scales in the weights' units, as float32 numbers that reproduce them if any."""
    weights = np.concatenate([row.weights for row in rows], axis=1) * units[:, None]
    values = np.concatenate(nearest, axis=1)
    scales = scales * units
    groups = np.arange(len(scales))
    index = np.abs(values).argmax(axis=1)
    largest = values[groups, index]
    usable = np.flatnonzero(largest != 0)
    with np.errstate(over="ignore"):
        quotients = (weights[groups, index][usable] / largest[usable]).astype(np.float32)
    weights, values = weights.astype(np.float32), values.astype(np.float32)
    # The quotient itself comes last, and counts most.
    for direction in (np.inf, -np.inf, None):
        candidates = quotients
        if direction is not None:
            candidates = np.nextafter(quotients, np.float32(direction))
        same = usable, candidates
        # A few weights show for most groups that no scale reproduces them.
        for count in (8, None):
            groups, factors = same
            equal = factors[:, None] * values[groups, :count] == weights[groups, :count]
            reproduced = equal.all(axis=1)
            same = groups[reproduced], factors[reproduced]
        scales[same[0]] = same[1]
    return scales


def mean_absolute_scale(weights: ArrayLike, values: Values) -> float:
    """Return `mean(abs(w))` in units of the mean magnitude of the list's nonzero values.

    For ±1 it is XNOR-Net's scale, for ternary BitNet b1.58's. For weights that are all
    zero it is 1.

    >>> mean_absolute_scale([0.2, -0.1, 0.3, -0.4], Values("ternary"))
    0.25
    """
    return float(mean_absolute_scales(weights, values, ()))


def mean_absolute_scales(
    weights: ArrayLike, values: Values, shape: tuple[int, ...]
) -> NDArray[np.float64]:
    """Return the scale of each part of the weights, as `mean_absolute_scale` does of all.

    Args:
        weights: Real numbers.
        values: The list, or a list for each channel of the weights.
        shape: The shape of the scales: (), or one that broadcasts over the weights.

    Returns:
        float64 of the given shape.

    >>> mean_absolute_scales([[0.2, -0.1], [0.3, -0.5]], Values("binary"), (2, 1))
    array([[0.15],
           [0.4 ]])
    """
    scales = np.ones(math.prod(shape))
    for groups, rows in _groups(np.asarray(weights), values, shape):
        if any(row.weights.size for row in rows):
            magnitudes = np.mean(np.abs(np.concatenate([w for w, _ in rows], axis=1)), axis=1)
            unit = float(np.mean([mean_magnitude(lists) for _, lists in rows]))
            scales[groups] = magnitudes / unit
    return np.where(np.isfinite(scales) & (scales > 0), scales, 1.0).reshape(shape)


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
