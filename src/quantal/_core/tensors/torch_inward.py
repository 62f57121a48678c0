"""Values with the gradient of `inward`, in PyTorch without its compiler.

The general form of `gradients` writes some fifteen tensors for it. Here the forward pass reads
the latents once, and the backward pass does nothing as long as all of them lie within the list.
"""

import functools
import math
from typing import Any

from quantal._core.tensors.blocks import row_blocks
from quantal._core.tensors.plain_torch import is_plain
from quantal._core.types import Tensor


def plain_as_if_inward(value: Tensor, x: Tensor, low: Any, high: Any) -> Tensor:
    """Return `gradients.as_if_inward` of plain tensors."""
    if not isinstance(low, float) and low.numel() == 1 == high.numel():
        low, high = low.item(), high.item()
    numbers = x.detach()
    least, most = numbers.aminmax() if numbers.numel() else (low, high)
    # Both are NaN where a number is.
    if not least <= most:
        value = value.where(~numbers.isnan(), numbers)
    # Where channels have ends of their own, no pass over memory is spent on the question.
    is_within = isinstance(low, float) and bool(least >= low) and bool(most <= high)
    result: Tensor = _inward_class().apply(value, x, low, high, is_within)
    return result


def plain_where_finite(value: Tensor, x: Tensor) -> Tensor:
    """Return a tensor as it is, but NaN where a plain tensor `x` is infinite or NaN."""
    if x.numel():
        least, most = x.aminmax()
        if not (least > -math.inf and most < math.inf):
            return value.where(x.isfinite(), math.nan)
    return value


@functools.cache
def _inward_class() -> Any:
    import torch

    class Inward(torch.autograd.Function):
        # The gradients' context comes first: PyTorch's other form costs four times as much.
        @staticmethod
        def forward(
            ctx: Any, value: Tensor, x: Tensor, low: Any, high: Any, is_within: bool
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
                form = inward_gradient_in_blocks if is_plainly_computed else inward_gradient
                gradient = form(upstream, x, *ctx.ends)
            return None, gradient, None, None, None

    return Inward


def inward_gradient(upstream: Tensor, x: Tensor, low: Any, high: Any) -> Tensor:
    """Return the gradient by operations that may be differentiated and transformed."""
    import torch

    leads_out = ((x > high) & (upstream < 0)) | ((x < low) & (upstream > 0))
    return torch.where(leads_out, 0.0, upstream)


def inward_gradient_in_blocks(upstream: Tensor, x: Tensor, low: Any, high: Any) -> Tensor:
    """Return the part of a gradient whose descent does not lead out of [low, high].

    Args:
        upstream: The gradient: a plain tensor.
        x: Where it is taken: a plain tensor of the same shape.
        low: The lower end: a float, or a tensor that broadcasts.
        high: The upper end, alike.

    Returns:
        A tensor of the same shape.
    """
    import torch

    x, upstream = x.contiguous(), upstream.contiguous()
    result = torch.empty_like(upstream)
    tensors = [x, upstream, result]
    if isinstance(low, float):
        tensors = [tensor.view(-1) for tensor in tensors]
    for numbers, gradient, out, least, most in row_blocks(*tensors, low, high):
        # 1 above the list, -1 below it; times the gradient it is < 0 where that leads out.
        outside = torch.clamp(numbers, least, most)
        torch.sub(numbers, outside, out=outside)
        outside.sign_().mul_(gradient)
        # All bits are set in the mask where the gradient stays: so infinite ones go, too.
        mask = torch.empty(outside.shape, dtype=torch.int32)
        torch.lt(outside, 0.0, out=mask)
        torch.bitwise_and(gradient.view(torch.int32), mask.sub_(1), out=out.view(torch.int32))
    return result
