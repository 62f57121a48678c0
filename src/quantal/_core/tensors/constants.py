"""Numbers and arrays that meet tensors in every step."""

from typing import Any

import keras
from keras import ops

from quantal._core.types import Tensor


class Constant:
    """A constant is an array, a tensor or a float that is used with tensors in every step.

    PyTorch's compiler cannot trace the way from an array to a tensor, so there the
    tensor is created once. Under other backends each trace takes the array in.

    Args:
        array: A NumPy array, a tensor, or a float, which stays a float.

    >>> Constant(0.5)()
    0.5
    """

    def __init__(self, array: Any) -> None:
        self._array = array
        self._tensor: Tensor = array if isinstance(array, float) else None
        if self._tensor is None and keras.config.backend() == "torch":
            tensor = ops.convert_to_tensor(array)
            # While Keras infers shapes, tensors are empty shells.
            self._tensor = None if tensor.device.type == "meta" else tensor

    def __call__(self) -> Tensor:
        """Return the tensor, or the float."""
        return ops.convert_to_tensor(self._array) if self._tensor is None else self._tensor


def along(vector: Tensor, axis: int, rank: int) -> Tensor:
    """Return a vector in the shape that broadcasts it along one axis of a tensor.

    Args:
        vector: A tensor or array of shape (n,). A vector of one element broadcasts
            over all axes.
        axis: The axis of the tensor.
        rank: The tensor's number of axes.

    >>> import numpy as np
    >>> tuple(along(np.ones(3), 1, 3).shape)
    (1, 3, 1)
    """
    shape = [1] * rank
    if vector.shape[0] > 1:
        shape[axis] = vector.shape[0]
    return ops.reshape(vector, shape)
