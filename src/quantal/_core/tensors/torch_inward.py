"""Values with the gradient of `inward`, in PyTorch without its compiler.

The general form of `gradients` writes some fifteen tensors for it. Here the forward pass reads
the latents once, and the backward pass does nothing as long as all of them lie within the list.
"""

import functools
from typing import Any

from quantal._core.tensors.blocks import blocks
from quantal._core.tensors.plain_torch import is_plain
from quantal._core.types import Tensor


def plain_as_if_inward(value: Tensor, x: Tensor, low: float, high: float) -> Tensor:
    """Return `gradients.as_if_inward` of plain tensors."""
    numbers = x.detach()
    least, most = numbers.aminmax() if numbers.numel() else (low, high)
    # Both are NaN where a number is.
    if not least <= most:
        value = value.where(~numbers.isnan(), numbers)
    is_within = bool(least >= low) and bool(most <= high)
    result: Tensor = _inward_class().apply(value, x, low, high, is_within)
    return result


@functools.cache
def _inward_class() -> Any:
    import torch

    class Inward(torch.autograd.Function):
        # The gradients' context comes first: PyTorch's other form costs four times as much.
        @staticmethod
        def forward(
            ctx: Any, value: Tensor, x: Tensor, low: float, high: float, is_within: bool
        ) -> Tensor:
            ctx.ends, ctx.is_within = (low, high), is_within
            # Where gradients pass as they are, none is needed: x may be freed.
            if not is_within:
                ctx.save_for_backward(x)
            return value.detach()

        @staticmethod
        def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
            gradient = upstream
            if not ctx.is_within:
                (x,) = ctx.saved_tensors
                is_plainly_computed = is_plain(upstream) and not torch.is_grad_enabled()
                form = inward_gradient_in_blocks if is_plainly_computed else _inward_gradient
                gradient = form(upstream, x, *ctx.ends)
            return None, gradient, None, None, None

    return Inward


def _inward_gradient(upstream: Tensor, x: Tensor, low: float, high: float) -> Tensor:
    """Return the gradient by operations that may be differentiated and transformed."""
    import torch

    leads_out = ((x > high) & (upstream < 0)) | ((x < low) & (upstream > 0))
    return torch.where(leads_out, 0.0, upstream)


def inward_gradient_in_blocks(upstream: Tensor, x: Tensor, low: float, high: float) -> Tensor:
    """Return the part of a gradient whose descent does not lead out of [low, high].

    Args:
        upstream: The gradient: a plain tensor.
        x: Where it is taken: a plain tensor of the same shape.
        low: The lower end.
        high: The upper end.

    Returns:
        A tensor of the same shape.
    """
    import torch

    position, flat = x.contiguous().view(-1), upstream.contiguous().view(-1)
    result = torch.empty_like(flat)
    bits, written = flat.view(torch.int32), result.view(torch.int32)
    tensors = (position, flat, bits, written)
    for block, gradient, bits_of_gradient, out, outside, mask in blocks(
        ("float32", "int32"), *tensors
    ):
        # 1 above the list, -1 below it; times the gradient it is < 0 where that leads out.
        torch.clamp(block, low, high, out=outside)
        torch.sub(block, outside, out=outside)
        outside.sign_().mul_(gradient)
        # All bits are set in the mask where the gradient stays: so infinite ones go, too.
        torch.lt(outside, 0.0, out=mask)
        torch.bitwise_and(bits_of_gradient, mask.sub_(1), out=out)
    return result.view(upstream.shape)
