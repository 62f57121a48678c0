"""The gradient of latents that are pulled to their nearest values."""

import math
from typing import Any

import keras
from keras import ops

from quantal._core.tensors.backend import custom_gradient, is_nan, is_traced_in_torch
from quantal._core.tensors.gradients import SMALLEST_WIDTH, as_if, inward, pulled, without_outward
from quantal._core.tensors.plain_torch import is_plain
from quantal._core.tensors.scalars import Scalar, total
from quantal._core.tensors.torch_pull import plain_as_if_pulled
from quantal._core.types import Tensor

_LEAST_SQUARES, _MOST_SQUARES = 1e-30, 1e30
"""Sums of squares between these have neither overflowed nor lost elements that count."""


def as_if_pulled(
    value: Tensor, x: Tensor, direction: Tensor, strength: Scalar, low: Any, high: Any
) -> Tensor:
    """Return exactly `value` in the forward pass, with the gradient of a pulled latent.

    It is `as_if(value, inward(pulled(x, strength * direction), low, high))` in one function:
    the gradient is that of `inward`, with `strength direction` times its root mean square added.
    Where `x` is NaN, so is the result.

    Args:
        value: A tensor without gradient.
        x: A tensor of the same shape and dtype.
        direction: A tensor of the same shape and dtype, without gradient; -1 to 1, and NaN where
            `x` is NaN.
        strength: The strength of the pull.
        low: The lower end: a float, or a tensor that broadcasts.
        high: The upper end, alike.

    >>> float(as_if_pulled(ops.ones(()), ops.zeros(()), ops.ones(()), 0.5, -1.0, 1.0))
    1.0
    """
    is_traced = keras.config.backend() == "torch" and is_traced_in_torch()
    if is_traced or not isinstance(low, float):
        return as_if(value, inward(pulled(x, strength * direction), low, high))
    is_number = isinstance(strength, float)
    if keras.config.backend() == "torch" and is_number and is_plain(x) and is_plain(value):
        return plain_as_if_pulled(value, x, direction, strength, (low, high), _root_mean_square)
    value = ops.where(is_nan(direction), direction, value)
    if not is_number:
        # A custom gradient may not look at other tensors than its arguments.
        strength, direction = 1.0, strength * direction

    @custom_gradient
    def shown(value: Tensor, x: Tensor, direction: Tensor) -> Any:
        def gradient(*arguments: Tensor, upstream: Tensor = None) -> tuple[Tensor, ...]:
            upstream = arguments[0] if upstream is None else upstream
            if type(upstream) is not type(x):
                # TensorFlow's sparse gradients (of an Embedding).
                upstream = ops.add(upstream, ops.zeros_like(x))
            upstream = without_outward(upstream, x, low, high)
            size = _root_mean_square(upstream) * strength
            return _nothing(value), upstream + size * direction, _nothing(direction)

        # PyTorch keeps its arguments, and no argument can be a result.
        return ops.reshape(value, tuple(value.shape)), gradient

    return shown(value, x, direction)


def _root_mean_square(tensor: Tensor) -> Scalar:
    squares = total(tensor, tensor)
    if isinstance(squares, float) and squares == 0.0 and not tensor.any():
        return 0.0
    if isinstance(squares, float) and _LEAST_SQUARES < squares < _MOST_SQUARES:
        return math.sqrt(squares / math.prod(tensor.shape))
    # Relative to the largest, so that squares neither overflow nor vanish. Not ops.max:
    # PyTorch's compiler cannot read it.
    most = ops.maximum(ops.amax(ops.abs(tensor)), SMALLEST_WIDTH)
    return most * ops.sqrt(ops.mean(ops.square(tensor / most)))


def _nothing(tensor: Tensor) -> Tensor:
    """Return the gradient to a tensor that gets none."""
    return None if keras.config.backend() == "torch" else ops.zeros_like(tensor)
