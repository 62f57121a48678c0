"""The codes of a kernel whose outputs lose least on given inputs, for any list. NumPy only.

A kernel W of shape (inputs, outputs) on a list becomes `s V`, with listed values V and scales s. On
inputs x with the second moment `H = mean(x x')` its outputs lose `trace(E' H E)`, with the
difference `E = W - s V`. For each output it is a nearest-point problem. Three steps lower the loss:

1. GPTQ's update: inputs in the order of falling variance; each weight is rounded to its nearest
   value, and the weights of the inputs behind it make up for what that lost.
2. Coordinate descent: a weight goes to the value that is best with all others as they are.
3. The scale goes to its optimum `sum V (H W) / sum V (H V)`.

The last two never raise the loss. A kernel whose inputs come in groups (grouped and depthwise
convolutions) has a matrix and a moment for each: arrays are (groups, inputs, outputs) here.

Sources: Frantar, Ashkboos, Hoefler, Alistarh, "GPTQ", ICLR 2023; the descent after it: Behdin et
al., "QuantEase", 2023.
"""

import dataclasses
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from quantal._core.numbers.values import Values

Floats = NDArray[np.float64]

DAMPING = 0.01
"""This share of the mean variance of an input is added to each: GPTQ's own choice."""
_BLOCK = 128
"""So many inputs are corrected together: what changes in them reaches the others by one product."""
_ROUNDS = 4
"""Rounds of descent and scale."""
_SWEEPS = 3
"""Sweeps of coordinate descent in a round."""


class Calibration(NamedTuple):
    """A calibration says how well a listed weight does on samples.

    Attributes:
        error: The distance of the weight's outputs to those of the trained weight, relative to
            their own size; None where the weight was not calibrated.
        note: Why it was not; empty where it was.
    """

    error: float | None
    note: str = ""


@dataclasses.dataclass(frozen=True)
class ListedElements:
    """The elements of a kernel have one list, or each element that of its channel.

    Args:
        values: The list, or lists per channel.
        channels: The channel of each element, (groups, inputs, outputs), for lists per channel.
    """

    values: Values
    channels: NDArray[np.intp] | None = None

    def ranks(self, numbers: Floats, row: int) -> NDArray[np.intp]:
        """Return the ranks of the values nearest to numbers (groups, outputs) of one input."""
        rounded = numbers.astype(np.float32)
        if self.channels is None:
            return np.searchsorted(self.values.midpoints, rounded, side="right")
        midpoints = self.values.midpoints[self.channels[:, row]]
        return np.sum(rounded[..., None] >= midpoints, axis=-1)

    def take(self, ranks: NDArray[np.intp], row: int | None = None) -> Floats:
        """Return the values of some ranks, of one input or of all."""
        ascending = self.values.ascending.astype(float)
        if self.channels is None:
            return ascending[ranks]
        channels = self.channels if row is None else self.channels[:, row]
        return ascending[channels, ranks]

    def codes(self, ranks: NDArray[np.intp]) -> NDArray[np.int32]:
        """Return the codes of the ranks of all elements."""
        order = self.values.order
        return order[ranks] if self.channels is None else order[self.channels, ranks]

    def reordered(self, order: NDArray[np.intp]) -> "ListedElements":
        """Return the elements with their inputs in another order, (groups, inputs)."""
        channels = None if self.channels is None else _reordered(self.channels, order)
        return ListedElements(self.values, channels)


@dataclasses.dataclass(frozen=True)
class Scales:
    """Scales multiply the values of the elements that share one.

    Args:
        numbers: The scales, (count,).
        shared: The position of each element's scale, (groups, inputs, outputs).
        is_fitted: Whether they may move; where they differ between the inputs of one output they
            never do.
        power_of_two: Whether they are powers of two.
    """

    numbers: Floats
    shared: NDArray[np.intp]
    is_fitted: bool = True
    power_of_two: bool = False

    def of_elements(self) -> Floats:
        """Return the scale of each element."""
        return self.numbers[self.shared]

    def moved(self, numbers: Floats) -> "Scales":
        """Return the scales with other numbers."""
        return dataclasses.replace(self, numbers=numbers)

    def reordered(self, order: NDArray[np.intp]) -> "Scales":
        """Return the scales with the inputs in another order, (groups, inputs)."""
        return dataclasses.replace(self, shared=_reordered(self.shared, order))

    def fitted(self, products: Floats, squares: Floats) -> Floats:
        """Return the best scales, or the present ones where there is none.

        Args:
            products: `V (H W)` of each output, (groups, outputs).
            squares: `V (H V)` of each output.
        """
        shared = self.shared[:, 0]
        if not self.is_fitted or (self.shared != shared[:, None]).any():
            return self.numbers
        count = len(self.numbers)
        above, below = (
            np.bincount(shared.ravel(), array.ravel(), minlength=count)
            for array in (products, squares)
        )
        usable = (above > 0) & (below > 0)
        best = np.where(usable, above / np.where(usable, below, 1.0), self.numbers)
        if self.power_of_two:
            best = 2.0 ** np.round(np.log2(best))
        return best.astype(np.float32).astype(float)


class Calibrated(NamedTuple):
    """A calibrated kernel has codes, scales, and for each weight where it would rather be.

    Attributes:
        codes: The codes, (groups, inputs, outputs).
        scales: The scales, (count,).
        wishes: The best number of each weight with all others as they are, in units of the list:
            the value of its code is the nearest one, and the distance says how sure it is.
        loss: The loss of the outputs, `trace(E' H E)`, without damping.
        size: The same of `E = W`.
    """

    codes: NDArray[np.int32]
    scales: Floats
    wishes: Floats
    loss: float
    size: float

    @property
    def error(self) -> float:
        """The root of the loss relative to the outputs' own size; 0 where they are all zero."""
        return float(np.sqrt(max(self.loss, 0.0) / self.size)) if self.size > 0 else 0.0


def calibrated(
    weights: Floats,
    moment: Floats,
    elements: ListedElements,
    scales: Scales,
    damping: float = DAMPING,
) -> Calibrated:
    """Return the codes and scales of a kernel whose outputs lose little on given inputs.

    Args:
        weights: The kernel, (groups, inputs, outputs).
        moment: The second moment of the inputs of each group, (groups, inputs, inputs).
        elements: The lists.
        scales: The scales to begin with; those that lose least of the weights are a good start.
        damping: The share of the mean variance that is added to each input's.

    >>> values = Values([-1, 1])
    >>> moment = np.array([[[1.0, 0.9], [0.9, 1.0]]])
    >>> scales = Scales(np.ones(1), np.zeros((1, 2, 1), int), is_fitted=False)
    >>> result = calibrated(np.full((1, 2, 1), 0.2), moment, ListedElements(values), scales)
    >>> result.codes.ravel().tolist(), round(result.error, 2)
    ([1, 0], 1.52)
    """
    damped_moment = damped(moment, damping)
    order = np.argsort(-np.diagonal(damped_moment, axis1=1, axis2=2), axis=1, kind="stable")
    rounding = _Rounding(
        np.take_along_axis(weights, order[..., None], 1),
        np.take_along_axis(
            np.take_along_axis(damped_moment, order[..., None], 1), order[:, None], 2
        ),
        elements.reordered(order),
        scales.reordered(order),
    )
    rounding.descend()
    back = np.argsort(order, axis=1)
    ranks, wishes = (_reordered(array, back) for array in (rounding.ranks, rounding.wishes()))
    numbers = rounding.scales.numbers
    difference = weights - scales.moved(numbers).of_elements() * elements.take(ranks)
    loss, size = (
        float(np.vdot(array, np.matmul(moment, array))) for array in (difference, weights)
    )
    return Calibrated(elements.codes(ranks), numbers, wishes, loss, size)


class _Rounding:
    """The state of a descent: ranks and scales, inputs in the order of falling variance."""

    def __init__(
        self, weights: Floats, moment: Floats, elements: ListedElements, scales: Scales
    ) -> None:
        self.weights, self.moment, self.elements, self.scales = weights, moment, elements, scales
        self.ranks = self._with_update()
        self._keep_nearest()

    def descend(self) -> None:
        """Lower the loss by sweeps and new scales until nothing changes, or for some rounds."""
        for _ in range(_ROUNDS):
            for _ in range(_SWEEPS):
                if not self._sweep():
                    break
            if not self._fit_scales():
                break

    def wishes(self) -> Floats:
        """Return the best number of each weight with all others as they are, in list units.

        Where its nearest value is another than the weight's own, it is the own one.
        """
        values, factors = self.elements.take(self.ranks), self.scales.of_elements()
        pull = np.matmul(self.moment, self.weights - factors * values)
        wishes = values + pull / (_diagonal(self.moment)[..., None] * factors)
        for row in range(wishes.shape[1]):
            other = self.elements.ranks(wishes[:, row], row) != self.ranks[:, row]
            wishes[:, row][other] = values[:, row][other]
        return wishes

    def _with_update(self) -> NDArray[np.intp]:
        """Return the ranks after GPTQ's update, block by block."""
        upper = np.swapaxes(_cholesky(np.linalg.inv(self.moment)), 1, 2)
        factors, weights = self.scales.of_elements(), self.weights.copy()
        ranks = np.zeros(weights.shape, np.intp)
        for begin in range(0, weights.shape[1], _BLOCK):
            end = min(begin + _BLOCK, weights.shape[1])
            errors = np.zeros_like(weights[:, begin:end])
            for row in range(begin, end):
                ranks[:, row] = self.elements.ranks(weights[:, row] / factors[:, row], row)
                listed = factors[:, row] * self.elements.take(ranks[:, row], row)
                error = (weights[:, row] - listed) / upper[:, row, row, None]
                errors[:, row - begin] = error
                behind = upper[:, row, row + 1 : end, None]
                weights[:, row + 1 : end] -= behind * error[:, None]
            weights[:, end:] -= np.matmul(np.swapaxes(upper[:, begin:end, end:], 1, 2), errors)
        return ranks

    def _keep_nearest(self) -> None:
        """Take the nearest values where the update has lost more than they do."""
        numbers, nearest = self.weights / self.scales.of_elements(), np.zeros_like(self.ranks)
        for row in range(numbers.shape[1]):
            nearest[:, row] = self.elements.ranks(numbers[:, row], row)
        is_worse = self._losses(self.ranks) > self._losses(nearest)
        self.ranks = np.where(is_worse[:, None], nearest, self.ranks)

    def _losses(self, ranks: NDArray[np.intp]) -> Floats:
        """Return the loss of each output, (groups, outputs)."""
        difference = self.weights - self.scales.of_elements() * self.elements.take(ranks)
        return np.sum(difference * np.matmul(self.moment, difference), axis=1)

    def _sweep(self) -> bool:
        """Move each weight once to its best value, and return whether any has moved."""
        factors = self.scales.of_elements()
        pull = np.matmul(self.moment, self.weights - factors * self.elements.take(self.ranks))
        variances = _diagonal(self.moment)
        has_moved = False
        for begin in range(0, self.weights.shape[1], _BLOCK):
            block = slice(begin, min(begin + _BLOCK, self.weights.shape[1]))
            within, moved = self.moment[:, block, block], np.zeros_like(pull[:, block])
            for row in range(block.start, block.stop):
                local = row - begin
                value, factor = self.elements.take(self.ranks[:, row], row), factors[:, row]
                wish = value + pull[:, row] / (variances[:, row, None] * factor)
                ranks = self.elements.ranks(wish, row)
                if (ranks == self.ranks[:, row]).all():
                    continue
                has_moved = True
                self.ranks[:, row] = ranks
                moved[:, local] = factor * (self.elements.take(ranks, row) - value)
                pull[:, block] -= within[:, :, local, None] * moved[:, local, None]
            if moved.any():
                pull[:, block.stop :] -= np.matmul(self.moment[:, block.stop :, block], moved)
        return has_moved

    def _fit_scales(self) -> bool:
        """Move the scales to their optimum, where that lowers the loss; return whether it did."""
        values = self.elements.take(self.ranks)
        weighed = np.matmul(self.moment, values)
        products, squares = np.sum(weighed * self.weights, 1), np.sum(weighed * values, 1)
        numbers = self.scales.fitted(products, squares)
        shared = self.scales.shared[:, 0]

        def losses(numbers: Floats) -> Floats:
            factors = numbers[shared]
            each = factors * (factors * squares - 2 * products)
            sums = np.bincount(shared.ravel(), each.ravel(), minlength=len(numbers))
            return sums.astype(np.float64, copy=False)

        if numbers is self.scales.numbers:
            return False
        better = losses(numbers) < losses(self.scales.numbers)
        self.scales = self.scales.moved(np.where(better, numbers, self.scales.numbers))
        return bool(better.any())


def _diagonal(moment: Floats) -> Floats:
    return np.diagonal(moment, axis1=1, axis2=2)


def damped(moment: Floats, damping: float = DAMPING) -> Floats:
    """Return a moment plus a share of its mean variance; one of zeros becomes the identity."""
    mean = _diagonal(moment).mean(axis=1)
    ridge = np.where(mean > 0, damping * mean, 1.0)
    return moment + ridge[:, None, None] * np.eye(moment.shape[1])


def _cholesky(matrix: NDArray[Any]) -> Floats:
    """Return the lower factor of an inverse moment that is symmetric up to roundings."""
    symmetric = (matrix + np.swapaxes(matrix, 1, 2)) / 2
    return np.linalg.cholesky(symmetric).astype(np.float64, copy=False)


def _reordered(array: NDArray[Any], order: NDArray[np.intp]) -> NDArray[Any]:
    """Return an array (groups, inputs, outputs) with its inputs in another order."""
    return np.take_along_axis(array, order[..., None], 1)
