"""The scale of an activation starts from the first training batch, and then learns or follows."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import ops
from numpy.typing import ArrayLike

from quantal._core.numbers.fitting import mean_magnitude
from quantal._core.numbers.values import Values
from quantal._core.scale import Scale
from quantal._core.scale_state import ScaleState
from quantal._core.tensors.constants import Constant
from quantal._core.tensors.projection import Projection
from quantal._core.types import Tensor

_CANDIDATES, _RATIO = 32, 2.0**-0.25
"""A fit tries so many scales, each this much smaller than the one before: down to 1/215 of the
scale at which nothing lies beyond the list. The last step finds the optimum between them."""

_SHARE_BEYOND = 0.001
"""The 99.9th percentile: this share of the inputs may lie beyond the list's ends."""

_SLOWEST_RATE = 0.01
"""A running scale is the mean of all batches at first, and then of about the last hundred."""

_SMALLEST = float(np.finfo(np.float32).tiny)
_LARGEST = 1.0 / _SMALLEST
"""A scale and its reciprocal are normal float32 numbers, which every processor keeps."""

AddVariable = Callable[..., keras.Variable]
"""A layer's `add_weight`."""


class ActivationScale:
    """The scale of an activation has its variables here, and what moves them in training.

    Args:
        scale: The method.
        values: The list.
        shape: The scale's shape: () or one that broadcasts over a batch of inputs.
        rank: The rank of the inputs.
        add_variable: The layer's `add_weight`.
    """

    def __init__(
        self,
        scale: Scale,
        values: Values,
        shape: tuple[int, ...],
        rank: int,
        add_variable: AddVariable,
    ) -> None:
        def variable(name: str, shape: tuple[int, ...], first: str, trains: bool) -> Any:
            return add_variable(
                name=name,
                shape=shape,
                initializer=first,
                dtype="float32",
                trainable=trains,
                autocast=False,
            )

        self._shape = shape
        self._method = scale.method
        # All that moves in the forward pass is not trainable: Keras's trainer on JAX would lose it.
        self._start = variable("scale_start", shape, "ones", False)
        self._relative = variable("scale", shape, "ones", scale.method == "learned")
        self._batches = variable("scale_batches", (), "zeros", False)
        self._state = ScaleState(scale, values, self._start, self._relative)
        magnitude = mean_magnitude(values)
        if values.channels is not None:
            sizes = [1] * rank
            sizes[values.axis] = values.channels
            magnitude = magnitude.reshape(sizes)
        # Created here, outside any compiler's trace.
        self._magnitude = Constant(float(magnitude) if values.channels is None else magnitude)

    def value(self) -> Tensor:
        """Return the scale: float32 tensor that broadcasts over a batch of inputs, no gradient."""
        return self._state.value()

    def apply(self, value: Tensor, numbers: Tensor, projection: Projection) -> Tensor:
        """Compute `scale * value`, with LSQ's gradient to a learned scale.

        Args:
            value: The estimator's result, with its gradient.
            numbers: The inputs in units of the scale.
            projection: The list.
        """
        # A layer that is called again in the same step moves the start; PyTorch assigns in place.
        start = 1.0 * ops.convert_to_tensor(self._start)
        return self._state.apply(value, numbers, projection, _features(numbers), start)

    def set(self, scale: ArrayLike) -> None:
        """Set the scale, so that the first training batch does not.

        Args:
            scale: A positive number, or numbers that broadcast to the scale's shape.
        """
        try:
            scales = np.broadcast_to(np.asarray(scale, np.float32), self._shape)
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"scale is {scale!r}. Expected a positive number, or numbers that broadcast to the "
                f"shape {self._shape}. Give a number for each factor of the layer."
            ) from error
        if not np.all((scales >= _SMALLEST) & (scales <= _LARGEST)):
            raise ValueError(
                f"scale is {scale!r}. Expected positive numbers from {_SMALLEST:.2g} to "
                f"{_LARGEST:.2g}. Give, for example, the largest input divided by the list's "
                "largest value."
            )
        self._state.begin(scales)
        self._batches.assign(1.0)

    def observe(
        self, inputs: Tensor, weights: Tensor, projection: Projection, fits_all: bool = False
    ) -> None:
        """Move the scale by a training batch.

        A batch without a number that says anything, such as one of zeros or an empty one, changes
        nothing. A channel without one starts at the mean of the others.

        Args:
            inputs: The batch: float32.
            weights: How often each input counts: float32 tensor that broadcasts over them.
            projection: The list.
            fits_all: Whether also the fits of later batches count, and not of the first alone.
        """
        if 0 in inputs.shape:
            return
        batch = _Batch(ops.stop_gradient(inputs), weights, projection, self._shape)
        batches, start = (ops.convert_to_tensor(v) for v in (self._batches, self._start))
        is_first = batches < 0.5
        rate: Tensor
        if fits_all and self._method in ("learned", "least_squares"):
            estimate, rate = batch.fitted(), 1.0 / (batches + 1.0)
        elif self._method == "learned":
            estimate = ops.cond(is_first, batch.fitted, lambda: start)
            rate = 1.0
        else:
            estimate = {
                "least_squares": lambda: ops.cond(
                    is_first, batch.fitted, lambda: batch.improved(start)
                ),
                "mean_absolute": lambda: batch.mean_absolute(self._magnitude()),
                "percentile": batch.percentile,
            }[self._method]()
            rate = ops.maximum(1.0 / (batches + 1.0), _SLOWEST_RATE)
        is_usable = ops.logical_and(estimate >= _SMALLEST, estimate <= _LARGEST)
        shares = ops.cast(is_usable, "float32")
        count = ops.sum(shares)
        mean = ops.sum(ops.where(is_usable, estimate, 0.0)) / ops.maximum(count, 1.0)
        moved = start + rate * (estimate - start)
        # Rounding is not to move what is there already.
        moved = ops.where(is_first, estimate, moved)
        otherwise = ops.where(ops.logical_and(is_first, count > 0), mean, start)
        self._start.assign(ops.where(is_usable, moved, otherwise))
        self._batches.assign(batches + ops.cast(count > 0, "float32"))


class _Batch:
    """A batch of inputs says which scale suits it."""

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


def _features(numbers: Tensor) -> Any:
    """Return how many numbers each sample of a batch has: an integer, or a float32 tensor."""
    sizes = numbers.shape[1:]
    if None not in sizes:
        return int(np.prod(sizes))
    return ops.cast(ops.prod(ops.stack(list(ops.shape(numbers)[1:]))), "float32")
