"""A discrete activation as a plain Keras layer: steps at thresholds, by Keras's own operations."""

from typing import Any

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray

from quantal._core.numbers.scaled_steps import scaled_steps
from quantal._core.numbers.values import Values
from quantal._core.tensors.step_functions import LONGEST_CHAIN, Grid
from quantal._core.types import Tensor
from quantal.layers.activation import DiscreteActivation


def plain_activation(layer: DiscreteActivation) -> keras.layers.Activation:
    """Return an Activation that computes what a built discrete activation does, to the bit.

    Its function is a small functional model of Keras's operations, so masks pass and files hold
    it. The scale is multiplied into the thresholds and the levels: there is nothing that a compiler
    could round in a way of its own.

    Args:
        layer: The layer.
    """
    shape = (layer.get_build_config() or {})["input_shape"]
    inputs = keras.Input(batch_shape=(None,) * len(shape), dtype=layer.compute_dtype)
    numbers = ops.cast(inputs, "float32")
    scale = layer.scale_value()
    listed = _steps(numbers, layer.values, scale)
    # A NaN passes, as it does through the layer.
    listed = ops.where(ops.isnan(numbers), numbers, listed)
    function = keras.Model(inputs, ops.cast(listed, layer.compute_dtype), name="listed")
    # The Activation around it gives the mask on.
    function.supports_masking = True
    return keras.layers.Activation(
        function,
        activity_regularizer=layer.activity_regularizer,
        dtype=layer.dtype_policy,
        name=layer.name,
        trainable=layer.trainable,
    )


def _steps(numbers: Tensor, values: Values, scale: NDArray[np.float32]) -> Tensor:
    """Return `scale` times the nearest value of a symbolic tensor over it."""
    rank = len(numbers.shape)
    thresholds, levels = scaled_steps(values, scale, rank)
    if len(thresholds) <= LONGEST_CHAIN:
        result = ops.zeros_like(numbers) + _constant(levels[0])
        for threshold, level in zip(thresholds, levels[1:], strict=True):
            result = ops.where(numbers >= _constant(threshold), _constant(level), result)
        return result
    is_single = thresholds[0].size == 1
    if is_single:
        flat = np.ravel(thresholds), np.ravel(levels)
        if Grid.holds(*flat):
            return Grid(*flat).evaluate(numbers)
    return _searched(numbers, thresholds, levels)


def _searched(
    numbers: Tensor, thresholds: NDArray[np.float32], levels: NDArray[np.float32]
) -> Tensor:
    """Return levels by a binary search, in steps that every runtime has: comparing and taking."""
    count, *sizes = thresholds.shape
    halvings = int(count).bit_length()
    beyond = np.full((2**halvings - 1 - count, *sizes), np.inf, np.float32)
    padded = np.moveaxis(np.concatenate([thresholds, beyond]), 0, -1)
    above = np.repeat(levels[-1:], len(beyond), axis=0)
    listed = np.moveaxis(np.concatenate([levels, above]), 0, -1)
    rows = np.arange(int(np.prod(sizes)), dtype=np.int32).reshape(sizes)
    passed = ops.cast(ops.zeros_like(numbers), "int32")
    for halving in reversed(range(halvings)):
        position = passed + _constant(rows * padded.shape[-1] + 2**halving - 1)
        is_above = numbers >= ops.take(_constant(padded.ravel()), position)
        passed = passed + ops.cast(is_above, "int32") * 2**halving
    position = passed + _constant(rows * listed.shape[-1])
    return ops.take(_constant(listed.ravel()), position)


def _constant(array: NDArray[Any]) -> Any:
    """Return a constant of a graph: a number or a tensor; PyTorch's compiler takes no array."""
    return array.item() if array.size == 1 else ops.convert_to_tensor(array)
