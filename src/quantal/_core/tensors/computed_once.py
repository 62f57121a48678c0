"""XLA computes a tensor once, and not within each loop that uses it."""

import functools

import keras

from quantal._core.tensors.backend import Function
from quantal._core.types import Tensor

FEWEST_OF_A_BRANCH = 2**16
"""From so many elements on a branch costs a vector less than to compute it more than once. A matrix
is used in products, which take no selection; a branch is one more copy of it."""


def computed_once(tensor: Tensor, in_training: bool = True) -> Tensor:
    """Return the tensor, and let XLA compute it before anything else uses it.

    XLA for processors takes sums and products of numbers into a matrix product that uses them,
    and then computes them anew for each number of the result: that took twenty times as long.
    It takes no selection into one; an optimization barrier is gone before. Into other loops it
    takes selections, too, but no branch: the weight of a large multiplier was computed once for
    each sample. The other backends compute every tensor once.

    Args:
        tensor: A tensor.
        in_training: Whether a branch is allowed; what is exported has none.
    """
    if keras.config.backend() != "jax":
        return tensor
    return _selected_in_jax(in_training)(tensor)


@functools.cache
def _selected_in_jax(in_training: bool) -> Function:
    import jax

    @jax.custom_jvp
    def selected(tensor: Tensor) -> Tensor:
        is_vector = max(tensor.shape, default=0) == tensor.size
        if not (in_training and is_vector) or tensor.size < FEWEST_OF_A_BRANCH:
            return select(tensor)
        return jax.lax.platform_dependent(tensor, cpu=branched, default=select)

    def select(tensor: Tensor) -> Tensor:
        return jax.numpy.where(jax.numpy.isnan(tensor), jax.numpy.nan, tensor)

    def branched(tensor: Tensor) -> Tensor:
        # Both branches return the tensor, which the compiler does not see.
        return jax.lax.cond(tensor.ravel()[0] > 0, select, lambda x: x, tensor)

    # The derivative is exactly 1, without another look at the numbers.
    selected.defjvp(lambda primals, tangents: (selected(*primals), *tangents))
    return selected
