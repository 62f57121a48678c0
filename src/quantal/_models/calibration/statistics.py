"""The statistics of a normalization are measured again, on samples."""

from typing import Any

import keras

from quantal._core.types import Tensor
from quantal._models.calibration.samples import Samples
from quantal._models.calibration.watched_pass import SeenAll, called_instead, watched_pass


def measure_again(
    model: keras.Model,
    samples: Samples,
    layer: keras.layers.BatchNormalization,
    has_loops: bool,
) -> None:
    """Measure the statistics of a normalization again: the averages of the batches' own.

    Args:
        model: The model that holds it.
        samples: The samples.
        layer: The normalization.
        has_loops: Whether loops are run step by step.
    """
    call, momentum = layer.call, layer.momentum

    def measured(inputs: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        call(inputs, **{**kwargs, "training": True})
        raise SeenAll

    try:
        with called_instead(layer, measured):
            for index, inputs in enumerate(samples):
                # The first batch replaces the moving average, the n-th has a share of 1/n.
                layer.momentum = index / (index + 1)
                watched_pass(model, inputs, None, has_loops)
    finally:
        layer.momentum = momentum
