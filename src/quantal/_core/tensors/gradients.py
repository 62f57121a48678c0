"""Functions whose value is one function of a tensor, and whose gradient is that of another.

They are the building blocks of estimators.
"""

import math
from typing import Any

import keras
from keras import ops

from quantal._core.tensors.backend import custom_gradient, is_nan, is_traced_in_torch
from quantal._core.tensors.plain_torch import is_plain
from quantal._core.tensors.torch_inward import plain_as_if_inward
from quantal._core.tensors.torch_pull import plain_stretched
from quantal._core.types import Tensor

SMALLEST_WIDTH = 1e-30
"""Widths and sizes of gradients count as at least this before they divide: below it
float32's division would overflow. A gap this narrow holds no other float32 numbers that matter."""


def as_if(value: Tensor, surrogate: Tensor) -> Tensor:
    """Return exactly `value` in the forward pass, with the derivative of `surrogate`.

    The usual spelling `latent + stop_gradient(value - latent)` means the same and is
    wrong: that sum rounds, and gives numbers that are not in the list (20 % of the
    float32 results for the list [±0.1, ±0.3]). Here the surrogate is subtracted from
    itself, which gives exactly 0.

    Args:
        value: A tensor.
        surrogate: A tensor of the same shape and dtype, finite where `value` matters.

    >>> from keras import ops
    >>> float(as_if(ops.ones(()), ops.zeros(())))
    1.0
    """
    return ops.stop_gradient(value) + (surrogate - ops.stop_gradient(surrogate))


def with_gradient_to(x: Tensor, value: Tensor) -> Tensor:
    """Return exactly `value` in the forward pass, with the derivative 1 to `x`.

    It is `as_if(value, x)`, except that infinite numbers of `x` may stay unseen.

    Args:
        x: A tensor.
        value: A tensor of the same shape and dtype. In PyTorch the result may share its memory.
    """
    if keras.config.backend() == "torch" and is_plain(x) and is_plain(value):
        return plain_as_if_inward(value, x, -math.inf, math.inf)
    return as_if(value, x)


def clamp(x: Tensor, low: Any, high: Any) -> Tensor:
    """Return `x` limited to [low, high]; unlike in `ops.clip`, the ends may be tensors.

    At the ends themselves the derivative differs between backends; `clipped` has a
    defined one.
    """
    return ops.minimum(ops.maximum(x, low), high)


def clipped(x: Tensor, low: Any, high: Any) -> Tensor:
    """Return `x` limited to [low, high], with the derivative 1 in it and 0 beyond.

    At the ends themselves the derivative is 1 under every backend.
    """
    inside = ops.logical_and(x >= low, x <= high)
    return ops.where(inside, x, ops.stop_gradient(clamp(x, low, high)))


def inward(x: Tensor, low: Any, high: Any) -> Tensor:
    """Return `x` limited to [low, high], without gradients that lead further out.

    Within `low <= x <= high` the derivative is 1. Beyond an end it is 1 for a gradient
    whose descent leads back, and 0 for one whose descent leads further out. So a latent
    can neither drift away nor be stuck outside. Ends that are tensors get no gradient.

    >>> from keras import ops
    >>> ops.convert_to_numpy(inward(ops.convert_to_tensor([-3.0, 0.5]), -1.0, 1.0))
    array([-1. ,  0.5], dtype=float32)
    """
    if not isinstance(low, float):
        # A custom gradient may not look at other tensors than its arguments.
        width = ops.stop_gradient(ops.maximum(high - low, SMALLEST_WIDTH))
        low = ops.stop_gradient(low)
        return low + width * inward((x - low) / width, 0.0, 1.0)

    @custom_gradient
    def limited(x: Tensor) -> Any:
        def gradient(*arguments: Tensor, upstream: Tensor = None) -> Tensor:
            upstream = _dense_upstream(arguments, upstream, x)
            return without_outward(upstream, x, low, high)

        return ops.clip(x, low, high), gradient

    return limited(x)


def as_if_inward(value: Tensor, x: Tensor, low: Any, high: Any) -> Tensor:
    """Return exactly `value` in the forward pass, with the derivative of `inward(x, low, high)`.

    It is `as_if(value, inward(x, low, high))` in the cheapest form: the backward pass needs
    nothing but `x`. Where `x` is NaN, so is the result.

    Args:
        value: A tensor.
        x: A tensor of the same shape and dtype.
        low: The lower end: a float, or a tensor that broadcasts.
        high: The upper end, alike.

    >>> from keras import ops
    >>> float(as_if_inward(ops.ones(()), ops.zeros(()), -0.5, 0.5))
    1.0
    """
    if keras.config.backend() == "torch":
        if is_plain(x):
            return plain_as_if_inward(value, x, low, high)
        # Traced files have no place for a gradient, and the compiler none for that of ends.
        if is_traced_in_torch() or not isinstance(low, float):
            return as_if(value, inward(x, low, high))
    # A custom gradient may not look at other tensors than its arguments.
    ends = () if isinstance(low, float) else (low, high)

    @custom_gradient
    def shown(value: Tensor, x: Tensor, *ends: Tensor) -> Any:
        def gradient(*arguments: Tensor, upstream: Tensor = None) -> tuple[Tensor, ...]:
            upstream = _dense_upstream(arguments, upstream, x)
            passed = without_outward(upstream, x, *(ends or (low, high)))
            return (ops.zeros_like(value), passed, *(ops.zeros_like(end) for end in ends))

        return ops.where(is_nan(x), x, value), gradient

    return shown(value, x, *ends)


def without_outward(upstream: Tensor, x: Tensor, low: Any, high: Any) -> Tensor:
    """Return a gradient without the parts that lead `x` further out of [low, high]."""
    # Descent moves against the gradient: from above the list down if it is > 0.
    leads_out = ops.logical_or(
        ops.logical_and(x > high, upstream < 0),
        ops.logical_and(x < low, upstream > 0),
    )
    return ops.where(leads_out, ops.zeros_like(upstream), upstream)


@custom_gradient
def pulled(x: Tensor, direction: Tensor) -> Any:
    """Return `x`, and add `direction` times the gradient's root mean square to the gradient.

    So the pull keeps its strength relative to the loss's gradient, whatever the loss's
    scale. Descent goes against `direction`, which gets no gradient.

    Args:
        x: A tensor.
        direction: A tensor of the same shape and dtype.

    >>> from keras import ops
    >>> ops.convert_to_numpy(pulled(ops.ones(2), ops.zeros(2)))
    array([1., 1.], dtype=float32)
    """

    def gradient(*arguments: Tensor, upstream: Tensor = None) -> tuple[Tensor, Tensor]:
        upstream = _dense_upstream(arguments, upstream, x)
        # Relative to the largest, so that squares neither overflow nor vanish. Not ops.max:
        # PyTorch's compiler cannot read it.
        largest = ops.maximum(ops.amax(ops.abs(upstream)), SMALLEST_WIDTH)
        strength = largest * ops.sqrt(ops.mean(ops.square(upstream / largest)))
        return upstream + strength * direction, ops.zeros_like(direction)

    return ops.add(x, ops.zeros_like(x)), gradient


def stretched(x: Tensor, share: Tensor) -> Tensor:
    """Return `x`, and make its gradient `g` into `g (1 + share sign(g))`.

    Args:
        x: A tensor.
        share: A tensor of the same shape and dtype, which gets no gradient.

    >>> from keras import ops
    >>> ops.convert_to_numpy(stretched(ops.ones(2), ops.zeros(2)))
    array([1., 1.], dtype=float32)
    """
    if keras.config.backend() == "torch" and is_plain(x) and is_plain(share):
        return plain_stretched(x, share)
    return _stretched(x, share)


@custom_gradient
def _stretched(x: Tensor, share: Tensor) -> Any:
    def gradient(*arguments: Tensor, upstream: Tensor = None) -> tuple[Tensor, Tensor]:
        upstream = _dense_upstream(arguments, upstream, x)
        # sign(g) g is the magnitude, without a question about the sign of zero.
        return upstream + share * ops.abs(upstream), ops.zeros_like(share)

    return ops.add(x, ops.zeros_like(x)), gradient


def _dense_upstream(arguments: tuple[Tensor, ...], upstream: Tensor, x: Tensor) -> Tensor:
    """Return the upstream gradient of a custom gradient, dense and in the form of `x`.

    Backends pass it by position or by keyword.
    """
    upstream = arguments[0] if upstream is None else upstream
    # Adding zeros makes TensorFlow's sparse gradients (of an Embedding) dense.
    return upstream if type(upstream) is type(x) else ops.add(upstream, ops.zeros_like(x))
