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

Compute = Callable[..., tuple[Tensor, ...]]

FEWEST_ELEMENTS = 2**16
"""From so many elements on the passes cost more than compiling does in the first steps."""


class FusedFunction:
    """A fused function computes tensors from variables as one loop of XLA, where that helps.

    Copies and pickles of it are empty.
    """

    def __init__(self) -> None:
        self._functions: dict[tuple[bool, ...], Callable[..., Any]] = {}

    def __reduce__(self) -> tuple[type[Self], tuple[()]]:
        return type(self), ()

    def __call__(
        self, variables: Sequence[keras.Variable], compute: Compute, given: Sequence[Tensor] = ()
    ) -> Any:
        """Return what `compute` returns, with the gradient of the first tensor.

        Args:
            variables: All variables that the result depends on; the first one is large.
            compute: A function that reads them, the same in every call, without random numbers
                and without assignments. It returns a tuple of tensors.
            given: Tensors that `compute` takes as arguments, computed from the variables. The
                first one has the gradient of the first variable, the others have none.
        """
        if not _is_large(variables) or not _is_needed():
            return compute(*given)
        # Gradients that nobody asks for would be tensors of zeros.
        are_trained = tuple(variable.trainable for variable in variables)
        if are_trained not in self._functions:
            asked = [index for index, is_trained in enumerate(are_trained) if is_trained]
            function = _fused_in_tensorflow(list(variables), compute, asked, bool(given))
            self._functions[are_trained] = function
        return self._functions[are_trained](*map(ops.convert_to_tensor, variables), *given)

    def without_gradient(self, variables: Sequence[keras.Variable], compute: Compute) -> Any:
        """Return what `compute` returns, which needs no gradient of this function's.

        Args:
            variables: As in a call.
            compute: As in a call. Where nothing is fused, its tensors keep their gradients.
        """
        if not _is_large(variables) or not _is_needed():
            return compute()
        if () not in self._functions:
            self._functions[()] = _compiled_in_tensorflow(list(variables), compute)
        return self._functions[()](*map(ops.convert_to_tensor, variables))


def _is_large(variables: Sequence[keras.Variable]) -> bool:
    return math.prod(variables[0].shape) >= FEWEST_ELEMENTS


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


def _of_tensors(variables: list[keras.Variable], compute: Compute) -> Compute:
    """Return the function of the variables' tensors, and of others, that computes the same."""

    def computed(*tensors: Tensor) -> tuple[Tensor, ...]:
        values, given = tensors[: len(variables)], tensors[len(variables) :]
        with keras.StatelessScope(list(zip(variables, values, strict=True))):
            return compute(*given)

    return computed


def _compiled_in_tensorflow(
    variables: list[keras.Variable], compute: Compute
) -> Callable[..., Any]:
    """Return the function of the variables' tensors that computes what `compute` does."""
    import tensorflow

    computed = _of_tensors(variables, compute)
    compiled = tensorflow.function(computed, jit_compile=True, autograph=False)
    return lambda *tensors: compiled(*map(tensorflow.stop_gradient, tensors))


def _fused_in_tensorflow(
    variables: list[keras.Variable], compute: Compute, asked: list[int], has_given: bool
) -> Callable[..., Any]:
    """Return the function that computes what `compute` does, with a gradient.

    Args:
        variables: The variables.
        compute: The function of the variables, and of the tensors given.
        asked: The positions of the variables that get a gradient.
        has_given: Whether tensors are given, of which the first stands for the first variable.
    """
    import tensorflow

    computed = _of_tensors(variables, compute)

    def differentiated(tensors: tuple[Tensor, ...], upstream: Tensor) -> list[Tensor]:
        sources = [tensors[len(variables) if has_given and not index else index] for index in asked]
        with tensorflow.GradientTape() as tape:
            tape.watch(sources)
            result = computed(*tensors)[0]
        zero = tensorflow.UnconnectedGradients.ZERO
        return tape.gradient(result, sources, upstream, unconnected_gradients=zero)

    forward, backward = (
        tensorflow.function(function, jit_compile=True, autograph=False)
        for function in (computed, differentiated)
    )

    @tensorflow.custom_gradient
    def fused(*tensors: Tensor) -> Any:
        def gradient(upstream: Tensor, *others: Tensor) -> list[Tensor | None]:
            # Those of an Embedding are sparse.
            gradients = backward(tensors, tensorflow.convert_to_tensor(upstream))
            by_index = dict(zip(asked, gradients, strict=True))
            return [by_index.get(index) for index in range(len(tensors))]

        return forward(*tensors), gradient

    # A custom gradient takes tensors: the variable itself counts as something to train within.
    return lambda *values: fused(*map(tensorflow.convert_to_tensor, values))
