"""Step functions whose steps differ between channels, or are tensors."""

import math

import keras
import numpy as np
from keras import ops

from quantal._core.tensors.constants import Constant, along
from quantal._core.tensors.plain_torch import is_plain
from quantal._core.tensors.step_functions import LONGEST_CHAIN
from quantal._core.tensors.torch_rows import plain_row_levels
from quantal._core.types import Tensor

_LARGEST = float(np.finfo(np.float32).max)


class RowSteps:
    """Row steps are a step function for each channel of a tensor.

    In channel c it returns `levels[c, number of thresholds[c] that are at most x]`. It
    serves lists per channel and lists that move in training: thresholds and levels may be
    tensors. Up to `LONGEST_CHAIN` steps it is a chain of selects, beyond that a binary
    search.

    Args:
        thresholds: float32, shape (channels, n), ascending along the last axis; one
            row serves all channels.
        levels: float32 or int32, shape (channels, n + 1).
        axis: The channels' axis in the tensors that it is called on.
        differentiable: Whether each level gets the sum of the gradients of the elements
            that have it.
    """

    def __init__(
        self, thresholds: Tensor, levels: Tensor, axis: int, differentiable: bool = False
    ) -> None:
        self._thresholds, self._levels, self._axis = Constant(thresholds), Constant(levels), axis
        self._differentiable = differentiable

    def __call__(self, x: Tensor) -> Tensor:
        """Return the levels of a float32 tensor: its shape, the levels' dtype.

        No gradient goes to the tensor.
        """
        x = ops.stop_gradient(ops.convert_to_tensor(x))
        thresholds, levels = ops.stop_gradient(self._thresholds()), self._levels()
        if keras.config.backend() == "torch" and not self._differentiable and is_plain(x):
            return plain_row_levels(x, thresholds, levels, self._axis)
        levels = levels if self._differentiable else ops.stop_gradient(levels)
        if thresholds.shape[1] <= LONGEST_CHAIN:
            return self._chain(x, thresholds, levels)
        return self._search(x, thresholds, levels)

    def _chain(self, x: Tensor, thresholds: Tensor, levels: Tensor) -> Tensor:
        result = ops.broadcast_to(self._column(levels, 0, x), x.shape)
        for step in range(thresholds.shape[1]):
            passed = x >= self._column(thresholds, step, x)
            result = ops.where(passed, self._column(levels, step + 1, x), result)
        return result

    def _search(self, x: Tensor, thresholds: Tensor, levels: Tensor) -> Tensor:
        channels, steps = thresholds.shape
        halvings = steps.bit_length()
        beyond = ops.full((channels, 2**halvings - steps), math.inf, dtype="float32")
        padded = ops.reshape(ops.concatenate([thresholds, beyond], axis=-1), (-1,))
        row = self._column(ops.reshape(ops.arange(channels, dtype="int32"), (-1, 1)), 0, x)
        # Nothing finite is at infinity, where the padding is.
        x = ops.where(x >= _LARGEST, _LARGEST, x)
        count = ops.cast(ops.zeros_like(x), "int32")
        for halving in reversed(range(halvings)):
            index = row * 2**halvings + count + (2**halving - 1)
            count = ops.where(x >= ops.take(padded, index), count + 2**halving, count)
        return ops.take(ops.reshape(levels, (-1,)), row * (steps + 1) + count)

    def _column(self, rows: Tensor, index: int, x: Tensor) -> Tensor:
        return along(rows[:, index], self._axis, len(x.shape))
