"""Compute a Keras model together with what its activations on lists give."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from quantal._core.by_identity import ByIdentity
from quantal._core.keras_internals.layers import flatten_layers
from quantal._core.tensors.distributed import whole_array
from quantal._core.types import Tensor
from quantal._export.integer.comparison import Computed
from quantal._models.calibration.watched_pass import called_instead
from quantal.layers.activation import DiscreteActivation

_TOGETHER = 256
"""So many samples are computed together."""


class RecordedModel:
    """A recorded model is a Keras model whose activations on lists are seen.

    Args:
        model: A built model.
    """

    def __init__(self, model: keras.Model) -> None:
        self._model = model

    def computed(self, x: Any) -> Computed:
        """Return what Keras computes from inputs in inference."""
        parts = [self._part(part) for part in _parts(x)]
        first = parts[0]
        activations = {
            name: [
                np.concatenate([part.activations[name][i] for part in parts])
                for i in range(len(arrays))
            ]
            for name, arrays in first.activations.items()
        }
        outputs = [
            np.concatenate([part.outputs[i] for part in parts]) for i in range(len(first.outputs))
        ]
        return Computed(activations, outputs)

    def _part(self, x: Any) -> Computed:
        activations: dict[str, list[NDArray[Any]]] = {}
        with contextlib.ExitStack() as stack:
            for layer in _layers_on_lists(self._model):
                noted = _noted(layer, activations.setdefault(layer.name, []))
                stack.enter_context(called_instead(layer, noted))
            outputs = self._model(x, training=False)
        return Computed(activations, [whole_array(out) for out in keras.tree.flatten(outputs)])


def _layers_on_lists(model: keras.Model) -> list[keras.Layer]:
    """Return the layers whose results are on a list.

    Of a recurrent layer it is the layer itself: its activation runs in a loop.
    """
    layers = flatten_layers(model)
    recurrent = [layer for layer in layers if isinstance(layer, keras.layers.RNN)]
    inner = ByIdentity.of_keys([part for layer in recurrent for part in flatten_layers(layer)])
    return [
        layer
        for layer in layers
        if layer in recurrent or (isinstance(layer, DiscreteActivation) and layer not in inner)
    ]


def _noted(layer: keras.Layer, arrays: list[NDArray[Any]]) -> Callable[..., Tensor]:
    """Return the call of a layer that notes its results."""
    call = layer.call

    def noted(*args: Any, **kwargs: Any) -> Tensor:
        result = call(*args, **kwargs)
        arrays.append(whole_array(result))
        return result

    return noted


def _parts(x: Any) -> Iterator[Any]:
    """Yield inputs, so many samples each time."""
    samples = len(keras.tree.flatten(x)[0])
    for begin in range(0, samples, _TOGETHER):
        yield keras.tree.map_structure(
            lambda array, begin=begin: np.asarray(array)[begin : begin + _TOGETHER], x
        )
