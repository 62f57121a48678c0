"""A weight of many numbers is computed in few passes over memory, also in TensorFlow's graphs.

A list takes a dozen operations a number, or a hundred. XLA and PyTorch's compiler make one loop
of them. TensorFlow runs them one by one, each a pass over memory: what a step of a large Dense
layer spends on them took as long as all else. So there a weight is a function of its own, which
XLA compiles. Its gradient is another one: it computes anew what it needs of the weight, and
nothing but the variables is kept for it.
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, Self

import keras
from keras import ops

from quantal._core.types import Tensor

Compute = Callable[[], tuple[Tensor, ...]]

FEWEST_ELEMENTS = 2**16
"""From so many elements on the passes cost more than compiling does in the first steps."""


class FusedFunction:
    """A fused function computes tensors from variables as one loop of XLA, where that helps.

    Copies and pickles of it are empty.
    """

    def __init__(self) -> None:
        self._function: Callable[..., Any] | None = None

    def __reduce__(self) -> tuple[type[Self], tuple[()]]:
        return type(self), ()

    def __call__(self, variables: Sequence[keras.Variable], compute: Compute) -> Any:
        """Return what `compute` returns, with the gradient of the first tensor.

        Args:
            variables: All variables that the result depends on; the first one is large.
            compute: A function that reads them, the same in every call, without random numbers
                and without assignments. It returns a tuple of tensors.
        """
        if math.prod(variables[0].shape) < FEWEST_ELEMENTS or not _is_needed():
            return compute()
        if self._function is None:
            self._function = _fused_in_tensorflow(list(variables), compute)
        return self._function(*map(ops.convert_to_tensor, variables))


def _is_needed() -> bool:
    return keras.config.backend() == "tensorflow" and _has_xla()


@functools.cache
def _has_xla() -> bool:
    """Return whether TensorFlow has XLA for the device on which it computes."""
    import tensorflow

    try:
        with tensorflow.init_scope():
            tensorflow.function(lambda x: x + 1.0, jit_compile=True)(tensorflow.zeros(()))
    except (tensorflow.errors.OpError, ValueError):
        return False
    return True


def _fused_in_tensorflow(variables: list[keras.Variable], compute: Compute) -> Callable[..., Any]:
    """Return the function of the variables' tensors that computes what `compute` does."""
    import tensorflow

    def computed(*tensors: Tensor) -> tuple[Tensor, ...]:
        with keras.StatelessScope(list(zip(variables, tensors, strict=True))):
            return compute()

    def differentiated(tensors: tuple[Tensor, ...], upstream: Tensor) -> list[Tensor]:
        with tensorflow.GradientTape() as tape:
            tape.watch(tensors)
            result = computed(*tensors)[0]
        zero = tensorflow.UnconnectedGradients.ZERO
        return tape.gradient(result, tensors, upstream, unconnected_gradients=zero)

    forward, backward = (
        tensorflow.function(function, jit_compile=True, autograph=False)
        for function in (computed, differentiated)
    )

    @tensorflow.custom_gradient
    def fused(*tensors: Tensor) -> Any:
        def gradient(upstream: Tensor, *others: Tensor) -> list[Tensor]:
            # Those of an Embedding are sparse.
            return backward(tensors, tensorflow.convert_to_tensor(upstream))

        return forward(*tensors), gradient

    # A custom gradient takes tensors: the variable itself counts as something to train within.
    return lambda *values: fused(*map(tensorflow.convert_to_tensor, values))
