"""A tensor times a constant, whose products PyTorch writes into large pages of memory."""

import functools
from typing import Any

import keras

from quantal._core.tensors.large_memory import unwritten
from quantal._core.tensors.plain_torch import is_plain
from quantal._core.types import Tensor


def product(tensor: Tensor, factor: Any) -> Tensor:
    """Return `tensor * factor`, with its gradient to the tensor.

    Args:
        tensor: A float32 tensor.
        factor: A float, or a tensor without gradient that broadcasts over it.
    """
    if keras.config.backend() != "torch" or not is_plain(tensor):
        return tensor * factor
    result: Tensor = _product_class().apply(tensor, factor)
    return result


@functools.cache
def _product_class() -> Any:
    import torch

    class Product(torch.autograd.Function):
        # The gradients' context comes first: PyTorch's other form costs four times as much.
        @staticmethod
        def forward(ctx: Any, tensor: Tensor, factor: Any) -> Tensor:
            ctx.factor = factor
            return torch.mul(tensor, factor, out=unwritten(tensor.shape))

        @staticmethod
        def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None]:
            if torch.is_grad_enabled() or not is_plain(upstream):
                return upstream * ctx.factor, None
            out = unwritten(upstream.shape)
            return torch.mul(upstream, ctx.factor, out=out), None

    return Product
