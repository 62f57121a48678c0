"""The state of a scale: its variables, its value, its gradient and its steps."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray

from quantal._core.numbers.fitting import mean_magnitude
from quantal._core.numbers.scale_blocks import is_blocked, split
from quantal._core.numbers.values import Values
from quantal._core.scale import LEAST_RELATIVE, MOST_RELATIVE, Scale, power_steps
from quantal._core.tensors.cheapest_form import step_function
from quantal._core.tensors.constants import Constant, along
from quantal._core.tensors.gradients import as_if, inward
from quantal._core.tensors.plain_torch import is_plain
from quantal._core.tensors.projection import Projection
from quantal._core.tensors.scaled import scaled
from quantal._core.tensors.step_functions import StepFunction
from quantal._core.tensors.torch_scaled import (
    plain_scaled,
    plain_sum_of_magnitudes,
    plain_sum_of_products,
)
from quantal._core.types import Tensor

_SMALLEST_MAGNITUDE = 1e-30
"""The largest magnitude of a list counts as at least this: a list of 0 divides by it."""


class ScaleState:
    """The scale of one parameter has its variables, its value and its gradient here.

    The scale is `start * relative`; latents are in units of `start`.

    Args:
        scale: The method, and what shares a scale.
        values: The list.
        start: float32 variable, not trainable: the scale at the start.
        relative: float32 variable of the same shape, 1 at the start; trainable if the
            scale is learned.
        weight_shape: The weight's shape, for a scale with blocks.
    """

    def __init__(
        self,
        scale: Scale,
        values: Values,
        start: keras.Variable,
        relative: keras.Variable,
        weight_shape: Sequence[int] = (),
    ) -> None:
        self.scale, self.start, self.relative = scale, start, relative
        self._blocked_shape = tuple(weight_shape) if is_blocked(start.shape, weight_shape) else None
        self._values = values
        # Created here, outside any compiler's trace.
        magnitude = mean_magnitude(values)
        self._magnitude = Constant(float(magnitude) if values.channels is None else magnitude)
        self._nearest_power = nearest_powers() if scale.power_of_two else None

    @property
    def is_computed(self) -> bool:
        """Whether each training step computes the scale, and no optimizer learns it."""
        return self.scale.method != "learned"

    def begin(self, scales: NDArray[np.float32]) -> None:
        """Set the scale, as its new start."""
        self.start.assign(scales)
        self.relative.assign(np.ones(self.relative.shape, np.float32))

    def value(self) -> Tensor:
        """Return the scale: float32 tensor that broadcasts over the weight, no gradient."""
        return self.spread(self.compact())

    def compact(self) -> Tensor:
        """Return the scale in its own shape, with one number for each block; no gradient."""
        start, relative = (
            ops.stop_gradient(ops.convert_to_tensor(v)) for v in (self.start, self.relative)
        )
        product = start * _clamped(relative)
        return product if self._nearest_power is None else self._nearest_power(product)

    def spread(self, numbers: Tensor) -> Tensor:
        """Return numbers of the scale's shape so that they broadcast over the weight."""
        if self._blocked_shape is None:
            return numbers
        columns: list[int] = []
        repeated: list[int] = []
        whole: list[int] = []
        for count, size in zip(self.start.shape, self._blocked_shape, strict=True):
            is_cut = 1 < count < size
            columns += [count, 1] if is_cut else [count]
            repeated += [count, size // count] if is_cut else [count]
            whole.append(size if is_cut else count)
        return ops.reshape(ops.broadcast_to(ops.reshape(numbers, columns), repeated), whole)

    def to_list_units(self, numbers: Tensor) -> Tensor:
        """Convert weights in units of the start to weights in units of the scale."""
        return numbers * (1.0 / self._relative_value())

    def _relative_value(self) -> Tensor:
        """Return the scale divided by its start, without gradient."""
        if self._nearest_power is None:
            return self.spread(_clamped(ops.stop_gradient(ops.convert_to_tensor(self.relative))))
        return self.spread(self.compact() / ops.convert_to_tensor(self.start))

    def apply(
        self,
        value: Tensor,
        latent: Tensor,
        projection: Projection,
        elements: Any = None,
        start: Tensor = None,
    ) -> Tensor:
        """Compute `scale * value`, with the gradient to both.

        Args:
            value: The estimator's result, with its gradient.
            latent: The latent in list units, as the estimator saw it.
            projection: The list.
            elements: The number of elements by which a learned scale's gradient is damped, where
                it is not that of `value`: an integer, or a float32 tensor.
            start: A copy of the start, where it may move before the gradient is computed.
        """
        scale, low, high = self.value(), projection.low, projection.high
        if self.scale.method != "learned":
            return scale * value
        elements = math.prod(value.shape) if elements is None else elements
        start = self.start if start is None else start
        damped = self.spread(start * self._damped(elements, projection))
        if keras.config.backend() == "torch" and is_plain(value) and is_plain(latent):
            return plain_scaled(value, scale, latent, damped, low, high)
        if keras.config.backend() == "jax":
            return scaled(value, scale, latent, damped, low, high)
        latent = ops.stop_gradient(latent)
        inside = ops.logical_and(latent >= low, latent <= high)
        slope = ops.stop_gradient(value) - ops.where(inside, latent, 0.0)
        return as_if(scale * value, scale * value + slope * damped)

    def differentiable(self, elements: int, projection: Projection) -> tuple[Tensor, Tensor]:
        """Return the scale and the relative scale, with the true gradient to a learned one.

        The gradient has the damping of LSQ's, so that one learning rate suits both.

        Args:
            elements: The number of elements of the weight.
            projection: The list.
        """
        scale, relative = self.value(), self._relative_value()
        if self.scale.method != "learned":
            return scale, relative
        damped = self._damped(elements, projection)
        of_scale, of_relative = self.spread(self.start * damped), self.spread(damped)
        return as_if(scale, of_scale), as_if(relative, of_relative)

    def one(self) -> Tensor:
        """Return exactly 1, with the gradient to a learned scale that a factor on it has.

        Multiplied with what is multiplied by `value()`, it gives that product the true gradient to
        the relative scale; for powers of two, that of the scale before it is rounded.
        """
        value = _clamped(ops.stop_gradient(ops.convert_to_tensor(self.relative)))
        moving = inward(1.0 * ops.convert_to_tensor(self.relative), LEAST_RELATIVE, MOST_RELATIVE)
        return self.spread(as_if(ops.ones_like(value), moving / value))

    def _damped(self, elements: Any, projection: Projection) -> Tensor:
        """Return the relative scale times LSQ's damping, with the gradient to it."""
        elements_of_scale = elements / max(math.prod(self.relative.shape), 1)
        largest = ops.maximum(ops.abs(projection.low), ops.abs(projection.high))
        damping = 1.0 / ops.sqrt(elements_of_scale * ops.maximum(largest, _SMALLEST_MAGNITUDE))
        # A product: TensorFlow takes no variable itself into a custom gradient.
        relative = inward(1.0 * ops.convert_to_tensor(self.relative), LEAST_RELATIVE, MOST_RELATIVE)
        return damping * relative

    def advance(self, numbers: Tensor, nearest: Callable[[], Tensor]) -> None:
        """Set a computed scale for the next training step.

        It stays where the nearest values or the weights are all 0.

        Args:
            numbers: The weights in units of the start.
            nearest: A function that returns their nearest values.
        """
        if self.scale.method == "least_squares":
            listed = nearest()
            numerator, denominator = (self._of_products(x, listed) for x in (numbers, listed))
        else:
            numerator, denominator = self._of_magnitudes(numbers)
        optimum = numerator / ops.where(denominator > 0, denominator, 1.0)
        usable = ops.logical_and(denominator > 0, numerator > 0)
        relative = ops.convert_to_tensor(self.relative)
        self.relative.assign(ops.where(usable, _clamped(optimum), relative))

    def _of_products(self, one: Tensor, other: Tensor) -> Tensor:
        """Return the sum of products over the elements that share a scale."""
        if self._sums_in_blocks(one) and is_plain(other):
            return plain_sum_of_products(one, other, tuple(self.relative.shape))
        return self._total(one * other)

    def _of_magnitudes(self, numbers: Tensor) -> tuple[Tensor, Tensor]:
        """Return the sums of weights' magnitudes, and of the mean magnitudes of their lists."""
        magnitude, shape = self._magnitude(), tuple(self.relative.shape)
        if self._values.channels is None and self._sums_in_blocks(numbers):
            sharing = math.prod(numbers.shape) / max(math.prod(shape), 1)
            count = ops.full(shape, sharing * magnitude, dtype="float32")
            return plain_sum_of_magnitudes(numbers, shape), count
        if self._values.channels is not None:
            magnitude = along(magnitude, self._values.axis, len(numbers.shape))
        return self._total(ops.abs(numbers)), self._total(ops.ones_like(numbers) * magnitude)

    def _sums_in_blocks(self, numbers: Tensor) -> bool:
        """Return whether PyTorch sums over the elements while they are in the cache."""
        is_blocked = self._blocked_shape is not None
        return keras.config.backend() == "torch" and not is_blocked and is_plain(numbers)

    def _total(self, tensor: Tensor) -> Tensor:
        """Return the sum over the elements that share a scale, in the shape of the scale."""
        shape = counts = tuple(self.relative.shape)
        if self._blocked_shape is not None:
            sizes, columns, _ = split(shape, self._blocked_shape)
            tensor, counts = ops.reshape(tensor, sizes), tuple(columns)
        axes = [a for a in range(len(tensor.shape)) if not counts or counts[a] == 1]
        return ops.reshape(ops.sum(tensor, axis=axes), shape)


def nearest_powers() -> StepFunction:
    """Return `quantal._core.scale.rounded_to_powers` as a function of float32 tensors."""
    return step_function(*power_steps())


def _clamped(relative: Tensor) -> Tensor:
    return ops.minimum(ops.maximum(relative, LEAST_RELATIVE), MOST_RELATIVE)
