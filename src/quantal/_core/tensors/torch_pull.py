"""Values with the gradient of a pulled latent, in PyTorch without its compiler."""

import functools
from collections.abc import Callable
from typing import Any

from quantal._core.tensors.blocks import elementwise
from quantal._core.tensors.plain_torch import is_plain
from quantal._core.tensors.torch_inward import inward_gradient, inward_gradient_in_blocks
from quantal._core.types import Tensor


def plain_as_if_pulled(
    value: Tensor,
    x: Tensor,
    direction: Tensor,
    strength: float,
    ends: tuple[float, float],
    root_mean_square: Callable[[Tensor], Any],
) -> Tensor:
    """Return `pull.as_if_pulled` of plain tensors.

    Args:
        value: As there; so are the next three.
        x: The latents.
        direction: Where they are pulled.
        strength: How much.
        ends: The lower and the upper end.
        root_mean_square: The function of that name of a gradient.
    """
    least, most = x.detach().aminmax() if x.numel() else ends
    # Both are NaN where a number is.
    if not least <= most:
        value = value.where(~x.detach().isnan(), x.detach())
    is_within = bool(least >= ends[0]) and bool(most <= ends[1])
    within = None if is_within else ends
    result: Tensor = _pulled_class().apply(
        value, x, direction, (strength, within, root_mean_square)
    )
    return result


def plain_stretched(x: Tensor, share: Tensor) -> Tensor:
    """Return `gradients.stretched` of plain tensors."""
    result: Tensor = _stretched_class().apply(x, share)
    return result


@functools.cache
def _stretched_class() -> Any:
    import torch

    def stretched(upstream: Tensor, share: Tensor) -> tuple[Tensor]:
        return (torch.addcmul(upstream, share, upstream.abs()),)

    class Stretched(torch.autograd.Function):
        # The gradients' context comes first: PyTorch's other form costs four times as much.
        @staticmethod
        def forward(ctx: Any, x: Tensor, share: Tensor) -> Tensor:
            ctx.save_for_backward(share)
            return x.detach()

        @staticmethod
        def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
            (share,) = ctx.saved_tensors
            if torch.is_grad_enabled():
                return stretched(upstream, share)[0], None
            return elementwise(stretched, upstream, share)[0], None

    return Stretched


@functools.cache
def _pulled_class() -> Any:
    import torch

    class Pulled(torch.autograd.Function):
        # The gradients' context comes first: PyTorch's other form costs four times as much.
        @staticmethod
        def forward(ctx: Any, value: Tensor, x: Tensor, direction: Tensor, settings: Any) -> Tensor:
            ctx.settings = settings
            is_within = settings[1] is None
            ctx.save_for_backward(direction, *(() if is_within else (x,)))
            return value.detach()

        @staticmethod
        def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
            strength, ends, root_mean_square = ctx.settings
            direction, *beyond = ctx.saved_tensors
            gradient = upstream
            if beyond:
                is_plainly_computed = is_plain(upstream) and not torch.is_grad_enabled()
                form = inward_gradient_in_blocks if is_plainly_computed else inward_gradient
                gradient = form(upstream, beyond[0], *ends)
            size = root_mean_square(gradient) * strength
            if not isinstance(size, float):
                return None, gradient + size * direction, None, None
            return None, torch.add(gradient, direction, alpha=size), None, None

    return Pulled
