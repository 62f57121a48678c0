"""A scaled value with the gradient of a learned scale, in PyTorch without its compiler.

The general form of `ScaleState.apply` writes some fifteen tensors. Here the forward pass writes
the product alone, and the backward pass one gradient.
"""

import functools
from collections.abc import Sequence
from typing import Any

from quantal._core.tensors.blocks import row_blocks
from quantal._core.tensors.plain_torch import is_plain
from quantal._core.types import Tensor


def plain_scaled(
    value: Tensor, scale: Tensor, latent: Tensor, damped: Tensor, low: Any, high: Any
) -> Tensor:
    """Return `scale * value` with LSQ's gradient.

    The gradient to `damped` is the sum, over the elements that share a scale, of the gradient
    times `value - latent`, or times `value` where the latent lies outside [low, high].

    Args:
        value: A plain tensor.
        scale: A tensor that broadcasts over it.
        latent: A plain tensor in the shape of `value`.
        damped: A tensor in the shape of `scale`.
        low: The lower end: a float, or a tensor that broadcasts.
        high: The upper end, alike.
    """
    result: Tensor = _scaled_class().apply(value, scale, latent.detach(), damped, low, high)
    return result


@functools.cache
def _scaled_class() -> Any:
    import torch

    class Scaled(torch.autograd.Function):
        # The gradients' context comes first: PyTorch's other form costs four times as much.
        @staticmethod
        def forward(
            ctx: Any, value: Tensor, scale: Tensor, latent: Tensor, damped: Tensor, *ends: Any
        ) -> Tensor:
            ctx.save_for_backward(value, scale, latent, damped)
            ctx.ends = ends
            return scale * value

        @staticmethod
        def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
            value, scale, latent, damped = ctx.saved_tensors
            if is_plain(upstream) and not torch.is_grad_enabled():
                gradients = _gradients_in_blocks(upstream, value, scale, latent, damped, *ctx.ends)
            else:
                low, high = ctx.ends
                inside = (latent >= low) & (latent <= high)
                slope = value.detach() - torch.where(inside, latent, 0.0)
                gradients = scale * upstream, (upstream * slope).sum_to_size(damped.shape)
            return gradients[0], None, None, gradients[1], None, None

    return Scaled


def _gradients_in_blocks(
    upstream: Tensor, value: Tensor, scale: Tensor, latent: Tensor, damped: Tensor, *ends: Any
) -> tuple[Tensor, Tensor]:
    """Return the gradients to `value` and to `damped`."""
    import torch

    upstream, latent = upstream.contiguous(), latent.contiguous()
    to_value, to_damped = torch.empty_like(upstream), torch.zeros_like(damped)
    tensors = (upstream, value, latent, to_value, scale, to_damped, *ends)
    for gradient, listed, numbers, out, factor, total, low, high in row_blocks(*tensors):
        torch.mul(gradient, factor, out=out)
        inside, below = (torch.empty(numbers.shape, dtype=torch.int32) for _ in range(2))
        torch.ge(numbers, low, out=inside)
        torch.le(numbers, high, out=below)
        # All bits are set in the mask where the latent counts: so infinite ones go, too.
        bits = inside.bitwise_and_(below).neg_().bitwise_and_(numbers.view(torch.int32))
        slope = bits.view(torch.float32)
        torch.sub(listed, slope, out=slope)
        total.add_(slope.mul_(gradient).sum_to_size(total.shape))
    return to_value, to_damped


def plain_sum_of_products(one: Tensor, other: Tensor, shape: Sequence[int]) -> Tensor:
    """Return the sums of two plain tensors' products over the elements that share a scale.

    Args:
        one: A plain tensor.
        other: A plain tensor in its shape.
        shape: The shape of the scale, which broadcasts over both.
    """
    import torch

    total = torch.zeros(tuple(shape))
    for a, b, part in row_blocks(one, other, total):
        part.add_(torch.dot(a.reshape(-1), b.reshape(-1)) if not shape else _summed(a * b, part))
    return total


def plain_sum_of_magnitudes(tensor: Tensor, shape: Sequence[int]) -> Tensor:
    """Return the sums of a plain tensor's magnitudes; see `plain_sum_of_products`."""
    import torch

    total = torch.zeros(tuple(shape))
    for numbers, part in row_blocks(tensor, total):
        part.add_(_summed(numbers.abs(), part))
    return total


def _summed(tensor: Tensor, total: Tensor) -> Tensor:
    return tensor.sum_to_size(total.shape)
