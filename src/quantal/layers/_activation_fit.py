"""A batch of inputs says which scale of an activation suits it."""

from typing import Any

import numpy as np
from keras import ops

from quantal._core.tensors.projection import Projection
from quantal._core.types import Tensor

_CANDIDATES, _RATIO = 32, 2.0**-0.25
"""A fit tries so many scales, each this much smaller than the one before: down to 1/215 of the
scale at which nothing lies beyond the list. The last step finds the optimum between them."""

_SHARE_BEYOND = 0.001
"""The 99.9th percentile: this share of the inputs may lie beyond the list's ends."""


class Batch:
    """A batch of inputs says which scale suits it.

    Args:
        inputs: The batch: float32.
        weights: How often each input counts: float32 tensor that broadcasts over them.
        projection: The list.
        shape: The scale's shape.
    """

    def __init__(
        self, inputs: Tensor, weights: Tensor, projection: Projection, shape: tuple[int, ...]
    ) -> None:
        self._inputs, self._weights, self._projection = inputs, weights, projection
        self._shape = shape
        rank = len(inputs.shape)
        self._axes = [axis for axis in range(rank) if not shape or shape[axis] == 1]

    def _total(self, tensor: Tensor) -> Tensor:
        """Return the weighted sum over the inputs that share a scale."""
        return ops.reshape(ops.sum(tensor * self._weights, axis=self._axes), self._shape)

    def _covering(self) -> Tensor:
        """Return for each input the smallest scale at which it lies within the list's ends."""
        low, high = self._projection.low, self._projection.high
        above = _ratio(self._inputs, high, high > 0)
        below = _ratio(self._inputs, low, low < 0)
        return ops.maximum(above, below) * ops.cast(self._weights > 0, "float32")

    def fitted(self) -> Tensor:
        """Return the scale with the least squared error."""
        largest = ops.reshape(ops.max(self._covering(), axis=self._axes), self._shape)
        safe = ops.where(largest > 0, largest, 1.0)
        numbers = self._inputs / safe

        def evaluate(index: Tensor, best: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
            candidate = ops.power(_RATIO, ops.cast(index, "float32"))
            nearest = candidate * self._projection.nearest(numbers / candidate)
            error = self._total(ops.square(numbers - nearest))
            is_better = error < best[0]
            return ops.where(is_better, error, best[0]), ops.where(is_better, candidate, best[1])

        first = ops.full_like(largest, np.inf), ops.ones_like(largest)
        _, relative = ops.fori_loop(0, _CANDIDATES, evaluate, first)
        return ops.where(largest > 0, self.improved(relative * safe), 0.0)

    def improved(self, scale: Tensor) -> Tensor:
        """Return the best scale for the values that are nearest at this scale."""
        nearest = self._projection.nearest(self._inputs / scale)
        numerator, denominator = self._total(self._inputs * nearest), self._total(nearest * nearest)
        is_usable = ops.logical_and(numerator > 0, denominator > 0)
        return ops.where(is_usable, numerator / ops.where(is_usable, denominator, 1.0), scale)

    def mean_absolute(self, magnitude: Any) -> Tensor:
        """Return the mean magnitude of the inputs over that of the list's nonzero values."""
        total = self._total(ops.ones_like(self._inputs) * magnitude)
        return self._total(ops.abs(self._inputs)) / ops.where(total > 0, total, 1.0)

    def percentile(self) -> Tensor:
        """Return the smallest scale at which all but a share of the inputs lie within the list."""
        rank = len(self._inputs.shape)
        others = [axis for axis in range(rank) if axis not in self._axes]
        covering = ops.transpose(self._covering(), self._axes + others)
        channels = int(np.prod(self._shape))
        ascending = ops.sort(ops.reshape(covering, (-1, channels)), axis=0)
        count = ops.reshape(self._total(ops.ones_like(self._inputs)), (1, channels))
        beyond = ops.cast(ops.floor(count * _SHARE_BEYOND), "int32")
        position = ops.shape(ascending)[0] - 1 - beyond
        return ops.reshape(ops.take_along_axis(ascending, position, axis=0), self._shape)


def _ratio(inputs: Tensor, end: Any, is_beyond_zero: Any) -> Tensor:
    """Return inputs over an end of the list; 0 where that end does not lie beyond 0."""
    if isinstance(end, float):
        return inputs / end if is_beyond_zero else ops.zeros_like(inputs)
    return ops.where(is_beyond_zero, inputs / ops.where(is_beyond_zero, end, 1.0), 0.0)
