"""Compiled functions and gradients by whichever backend Keras runs on, for tests."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from quantal._core.tensors import backend
from quantal._core.types import Tensor


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function of tensors under the backend's compiler: XLA, or torch.compile.

    Args:
        function: From tensors, or structures of tensors, to the same.

    Raises:
        ValueError: Keras runs on another backend, which has no compiler.
    """
    return backend.compile(function)


def gradient_of(
    function: Callable[[Tensor], Tensor], x: ArrayLike, compile: bool = False
) -> NDArray[np.float32] | None:
    """Return the gradient of `sum(function(x))` at `x`, or None where no gradient passes.

    Args:
        function: From a float32 tensor to a tensor.
        x: Where to take the gradient: numbers of any shape.
        compile: Whether to trace and compile, as `fit` does.

    Returns:
        A float32 array in the shape of `x`.

    Raises:
        ValueError: Keras runs on another backend, which has no gradients.

    Example:
    >>> gradient_of(lambda x: x * x, [1.0, -2.0]).tolist()
    [2.0, -4.0]
    """
    return backend.gradient(function, x, compile)
