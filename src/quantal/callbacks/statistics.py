"""Batch normalization's statistics are measured once more, with listed values."""

import contextlib
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

import keras

from quantal._core.by_identity import ByIdentity
from quantal._core.keras_internals import flatten_layers
from quantal._core.parameter import parameters_of
from quantal._core.weight_scope import weights_replaced


class ReestimateStatistics(keras.callbacks.Callback):
    """The callback measures batch normalization's means and variances again after training.

    Use it after soft estimators and where values flip until the end: the moving averages
    then belong to weights that are no more. Put it behind `KeepBest`, so that it
    measures what that restored.

    Each mean and variance becomes the average over the batches of the batch's own,
    computed with listed values. Nothing else changes: all other weights, seeds and
    states are put back. Layers that are not trainable keep theirs. Dropout is active, as
    in the training that the statistics come from.

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
        normalizations = [
            layer
            for layer in flatten_layers(self.model)
            if isinstance(layer, keras.layers.BatchNormalization) and layer.trainable
        ]
        statistics = ByIdentity.of_keys(
            variable
            for layer in normalizations
            for variable in (layer.moving_mean, layer.moving_variance)
        )
        others = [variable for variable in self.model.variables if variable not in statistics]
        listed = {parameter: parameter.listed_values for parameter in parameters_of(self.model)}
        with _restored(others), _momenta_restored(normalizations), weights_replaced(listed):
            count = self._measure(normalizations)
        if not count:
            raise ValueError(
                f"data is {self.data!r} and gives no batch. Expected inputs to measure the "
                "statistics on. Give some of the training data."
            )

    def _measure(self, normalizations: Sequence[keras.layers.BatchNormalization]) -> int:
        """Average the statistics over the batches, and return how many there were."""
        count = 0
        for inputs in islice(self._inputs(), self.batches):
            for layer in normalizations:
                # The first batch replaces the moving average, the n-th has a share of 1/n.
                layer.momentum = count / (count + 1)
            self.model(inputs, training=True)
            count += 1
        return count

    def _inputs(self) -> Iterator[Any]:
        """Yield batches of inputs, as tensors."""
        arrays = keras.tree.flatten(self.data)
        if all(hasattr(array, "shape") for array in arrays):
            size = len(arrays[0])
            for start in range(0, size, self.batch_size):
                part = slice(start, start + self.batch_size)
                yield keras.tree.map_structure(
                    lambda array, part=part: keras.ops.convert_to_tensor(array[part]), self.data
                )
            return
        for batch in self.data:
            inputs = batch[0] if isinstance(batch, tuple) else batch
            yield keras.tree.map_structure(keras.ops.convert_to_tensor, inputs)


@contextlib.contextmanager
def _restored(variables: Sequence[keras.Variable]) -> Iterator[None]:
    """Restore variables at the end."""
    numbers = [variable.numpy() for variable in variables]
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
