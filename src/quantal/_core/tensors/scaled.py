"""A scaled value with the gradient of a learned scale, in XLA's programs of JAX.

As `ScaleState.apply` has it in general, XLA writes the numbers of a sum into memory before it adds
them. A weight of four million numbers then takes three times as much memory between, which a
processor asks the system for in each step: a step took four times as long.
"""

from typing import Any

from keras import ops

from quantal._core.tensors.backend import custom_gradient
from quantal._core.tensors.computed_once import computed_once
from quantal._core.types import Tensor

_PARTS = 8
"""A sum adds so many parts number by number first: XLA does that where it computes them."""

_FEWEST_ELEMENTS = 2**16
"""From so many elements on the memory between costs more than the parts do."""


def scaled(
    value: Tensor, scale: Tensor, latent: Tensor, damped: Tensor, low: Any, high: Any
) -> Tensor:
    """Return `scale * value` with LSQ's gradient.

    The gradient to `damped` is the sum, over the elements that share a scale, of the gradient
    times `value - latent`, or times `value` where the latent lies outside [low, high].

    Args:
        value: A tensor.
        scale: A tensor that broadcasts over it; no gradient.
        latent: A tensor in the shape of `value`; no gradient.
        damped: A tensor in the shape of `scale`.
        low: The lower end: a float, or a tensor that broadcasts; no gradient.
        high: The upper end, alike.
    """

    @custom_gradient
    def product(*tensors: Tensor) -> Any:
        value, scale, latent, damped, low, high = tensors

        def gradient(upstream: Tensor) -> tuple[Tensor, ...]:
            inside = ops.logical_and(latent >= low, latent <= high)
            slope = value - ops.where(inside, latent, 0.0)
            to_damped = _summed(upstream * slope, tuple(damped.shape))
            others = (ops.zeros_like(tensor) for tensor in (scale, latent, low, high))
            zero_scale, zero_latent, zero_low, zero_high = others
            return scale * upstream, zero_scale, zero_latent, to_damped, zero_low, zero_high

        return scale * value, gradient

    return product(value, scale, latent, damped, *map(ops.convert_to_tensor, (low, high)))


def _summed(tensor: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Return the sum of all elements, or over the axes whose length is 1 in `shape`."""
    axes = [axis for axis in range(len(tensor.shape)) if not shape or shape[axis] == 1]
    divisible = [axis for axis in axes if tensor.shape[axis] % _PARTS == 0]
    if divisible and tensor.size >= _FEWEST_ELEMENTS:
        first, *others = ops.split(tensor, _PARTS, axis=divisible[0])
        for part in others:
            first = first + part
        tensor = computed_once(first, in_training=False)
    return ops.reshape(ops.sum(tensor, axis=axes), shape)
