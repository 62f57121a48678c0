"""In a loop that JAX compiles, what is assigned to a variable is lost."""

from typing import Any

import keras

from quantal._core.keras_internals.scopes import is_stateless
from quantal._core.types import Tensor


def is_lost_in_loop(variable: keras.Variable, tensor: Tensor) -> bool:
    """Return whether a tensor could not be assigned to a variable here.

    JAX traces the steps of a loop, such as that of a recurrent layer, in a program of their own. A
    tensor of it that is assigned to a variable leaves it by a way that JAX does not know. It says
    False on other backends, and where it cannot tell.

    Args:
        variable: The variable, created outside the loop or inside.
        tensor: A tensor that depends on the inputs of the loop.
    """
    if keras.config.backend() != "jax":
        return False
    import jax

    value = _without_transformations(variable.value)
    traced = _without_transformations(tensor)
    if not isinstance(traced, jax.core.Tracer):
        return False
    if isinstance(value, jax.core.Tracer):
        is_same = getattr(value, "_trace", None) is getattr(traced, "_trace", None)
        return not is_same or not is_stateless()
    return not is_stateless()


_BELOW = {"JVPTracer": "primal", "LinearizeTracer": "primal", "BatchTracer": "val"}
"""The attribute of each of JAX's tracers of a gradient or of vectorization that it is about."""


def _without_transformations(tensor: Any) -> Any:
    """Return the tensor below those of gradients and of vectorization."""
    while type(tensor).__name__ in _BELOW:
        tensor = getattr(tensor, _BELOW[type(tensor).__name__])
    return tensor
