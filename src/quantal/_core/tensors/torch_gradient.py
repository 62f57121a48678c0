"""A function with a gradient of its own in PyTorch, which `torch.func` can transform, too."""

import functools
from typing import Any

from quantal._core.types import Tensor


@functools.cache
def custom_gradient_class() -> Any:
    """Return the class of PyTorch whose `apply` calls a function with its own gradient.

    The first argument is the function, as `backend.custom_gradient` takes it. The backward
    pass computes the value once more, since a transform may not keep a closure of tensors.
    """
    import torch

    class CustomGradient(torch.autograd.Function):
        generate_vmap_rule = True

        @staticmethod
        def forward(function: Any, *arguments: Tensor) -> Tensor:
            return function(*arguments)[0]

        @staticmethod
        def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
            ctx.function = inputs[0]
            ctx.save_for_backward(*inputs[1:])

        @staticmethod
        def backward(ctx: Any, *upstream: Tensor) -> Any:
            gradients = ctx.function(*ctx.saved_tensors)[1](*upstream)
            return (None, *(gradients if isinstance(gradients, tuple) else (gradients,)))

    return CustomGradient
