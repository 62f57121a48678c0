"""Batch normalisation's statistics, of the listed values."""

from collections.abc import Iterator
from itertools import islice
from typing import Any

import keras

from quantal._core.keras_internals import flatten_layers
from quantal._core.parameter import parameters_of
from quantal.estimators.straight_through import StraightThrough


class ReestimateStatistics(keras.callbacks.Callback):
    """After training, measures batch normalisation's means and variances once more.

    Use it after soft estimators and where values flip until the end: the moving averages
    then belong to weights that are no more. Put it behind `KeepBest`, so that it
    measures what that restored.

    Each mean and variance becomes the average over the batches of what the batch has,
    computed with listed values. Nothing else changes: all other weights, seeds and
    states are put back. Layers that are not trainable keep theirs. Dropout is active, as
    in the training that the statistics come from.

    Args:
        data: Inputs: an array or a structure of arrays, or an iterable of batches (of
            inputs, or of tuples that begin with them).
        batches: How many batches at most; at least 1.
        batch_size: Of batches cut from arrays.

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
                raise ValueError(
                    f"{name} is {number!r}. Expected a whole number from 1. Give, say, 50."
                )
        self.data, self.batches, self.batch_size = data, batches, batch_size

    def on_train_end(self, logs: Any = None) -> None:
        normalizations = [
            layer
            for layer in flatten_layers(self.model)
            if isinstance(layer, keras.layers.BatchNormalization) and layer.trainable
        ]
        statistics = {
            id(variable)
            for layer in normalizations
            for variable in (layer.moving_mean, layer.moving_variance)
        }
        others = [(v, v.numpy()) for v in self.model.variables if id(v) not in statistics]
        momenta = [layer.momentum for layer in normalizations]
        parameters = parameters_of(self.model)
        estimators = [parameter.estimator for parameter in parameters]
        batch = None
        try:
            for parameter in parameters:
                # Hard in training, without a state of its own.
                parameter.estimator = StraightThrough()
            for batch, inputs in enumerate(islice(self._inputs(), self.batches)):
                for layer in normalizations:
                    layer.momentum = batch / (batch + 1)
                self.model(inputs, training=True)
        finally:
            for parameter, estimator in zip(parameters, estimators, strict=True):
                parameter.estimator = estimator
            for layer, momentum in zip(normalizations, momenta, strict=True):
                layer.momentum = momentum
            for variable, number in others:
                variable.assign(number)
        if batch is None:
            raise ValueError(
                f"data is {self.data!r} and gives no batch. Expected inputs to measure the "
                "statistics on. Give some of the training data."
            )

    def _inputs(self) -> Iterator[Any]:
        """Batches of inputs, as tensors."""
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
