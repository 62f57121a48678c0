"""Batch normalization's statistics are measured once more, with listed values."""

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any

import keras
import numpy as np

from quantal._core.by_identity import ByIdentity
from quantal._core.keras_internals.compiled import clear_losses, compute_loss
from quantal._core.keras_internals.layers import flatten_layers
from quantal._core.parameter import parameters_of
from quantal._core.tensors.distributed import spread, whole_array
from quantal._core.types import Tensor
from quantal._core.weight_scope import weights_replaced


class ReestimateStatistics(keras.callbacks.Callback):
    """The callback measures batch normalization's means and variances again after training.

    Use it after soft estimators and where values flip until the end: the moving averages
    then belong to weights that are no more. Put it behind `KeepBest`, so that it
    measures what that restored.

    Each mean and variance becomes the average over the batches of the batch's own,
    computed with listed values; a batch counts by its samples. Nothing else changes: all
    other weights, seeds and states are put back. Layers that are not trainable keep theirs.
    Dropout is active, as in the training that the statistics come from.

    Args:
        data: Inputs: an array or a structure of arrays, or an iterable of batches (of
            inputs, or of tuples that begin with them).
        batches: The largest number of batches; at least 1.
        batch_size: The size of batches cut from arrays; at least 1.

    Raises:
        ValueError: batches or batch_size is below 1; or at the end of training, data gives
            no batch.

    Source: Nagel et al., "Overcoming Oscillations in Quantization-Aware Training", ICML
    2022, there with 50 batches.

    >>> ReestimateStatistics(data=[[1.0], [2.0]]).batches
    50
    """

    def __init__(self, data: Any, batches: int = 50, batch_size: int = 128) -> None:
        super().__init__()
        for name, number in (("batches", batches), ("batch_size", batch_size)):
            if isinstance(number, bool) or not isinstance(number, int) or number < 1:
                raise ValueError(f"{name} is {number!r}. Expected a whole number from 1.")
        self.data, self.batches, self.batch_size = data, batches, batch_size

    def on_train_end(self, logs: Any = None) -> None:
        """Measure the statistics of the listed values."""
        inputs = islice(batches_of(self.data, self.batch_size), self.batches)
        if not measure_statistics(self.model, inputs):
            raise ValueError(
                f"data is {self.data!r} and gives no batch. Expected inputs to measure the "
                "statistics on. Give some of the training data."
            )


def normalizations_of(model: keras.Model) -> list[keras.layers.BatchNormalization]:
    """Return the layers of batch normalization whose statistics training moves."""
    return [
        layer
        for layer in flatten_layers(model)
        if isinstance(layer, keras.layers.BatchNormalization) and layer.trainable
    ]


def measure_statistics(model: keras.Model, batches: Iterable[Any]) -> int:
    """Set each mean and variance to the average over the batches, with listed values.

    A batch counts by its samples. All other weights, seeds and states are as before.

    Args:
        model: A built model.
        batches: Inputs of the model, as tensors or structures of them.

    Returns:
        How many batches there were.
    """
    normalizations = normalizations_of(model)
    statistics = ByIdentity.of_keys(
        variable
        for layer in normalizations
        for variable in (layer.moving_mean, layer.moving_variance)
    )
    others = [variable for variable in model.variables if variable not in statistics]
    listed = {parameter: parameter.listed_values for parameter in parameters_of(model)}
    count, samples = 0, 0
    with _restored(others), _momenta_restored(normalizations), weights_replaced(listed):
        for inputs in batches:
            inputs = spread(inputs)
            size = len(keras.tree.flatten(inputs)[0])
            for layer in normalizations:
                # The first batch replaces the moving average, the next add their share to it.
                layer.momentum = samples / (samples + size)
            model(inputs, training=True)
            count, samples = count + 1, samples + size
    return count


def loss_with_statistics(model: keras.Model, batches: Sequence[Any]) -> tuple[float, float]:
    """Return the loss of a compiled model with the statistics that it has, and with measured ones.

    Both are those of inference. The model stays as it is.

    Args:
        model: A built and compiled model.
        batches: What `fit` trains on: inputs, or tuples of inputs, targets and sample weights.
    """
    unpacked = [keras.utils.unpack_x_y_sample_weight(batch) for batch in batches]
    x, y, weights = keras.tree.map_structure(_joined, *unpacked, none_is_leaf=False)

    def loss() -> float:
        number = compute_loss(model, x, y, model(x, training=False), weights)
        clear_losses(model)
        return float(whole_array(number))

    statistics = [
        variable
        for layer in normalizations_of(model)
        for variable in (layer.moving_mean, layer.moving_variance)
    ]
    with _restored(statistics):
        before = loss()
        measure_statistics(model, [x])
        return before, loss()


def _joined(*arrays: Any) -> Tensor:
    """Return the samples of several batches as one tensor."""
    return spread(keras.ops.convert_to_tensor(np.concatenate(arrays)))


def batches_of(data: Any, batch_size: int) -> Iterator[Any]:
    """Yield batches of inputs, as tensors.

    Args:
        data: An array or a structure of arrays, or an iterable of batches: of inputs, or of
            tuples that begin with them.
        batch_size: The size of batches cut from arrays.
    """
    arrays = keras.tree.flatten(data)
    if arrays and all(hasattr(array, "shape") for array in arrays):
        for start in range(0, len(arrays[0]), batch_size):
            part = slice(start, start + batch_size)
            yield keras.tree.map_structure(
                lambda array, part=part: keras.ops.convert_to_tensor(array[part]), data
            )
        return
    for batch in data:
        inputs = batch[0] if isinstance(batch, tuple) else batch
        yield keras.tree.map_structure(keras.ops.convert_to_tensor, inputs)


@contextlib.contextmanager
def _restored(variables: Sequence[keras.Variable]) -> Iterator[None]:
    """Restore variables at the end."""
    numbers = [whole_array(variable) for variable in variables]
    try:
        yield
    finally:
        for variable, number in zip(variables, numbers, strict=True):
            variable.assign(number)


@contextlib.contextmanager
def _momenta_restored(layers: Sequence[keras.layers.BatchNormalization]) -> Iterator[None]:
    """Restore the momentum of each layer at the end."""
    momenta = [layer.momentum for layer in layers]
    try:
        yield
    finally:
        for layer, momentum in zip(layers, momenta, strict=True):
            layer.momentum = momentum
