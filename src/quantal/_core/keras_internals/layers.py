"""Keras's layers hold inner layers and variables, also where no public attribute lists them."""

from collections.abc import Mapping
from typing import Any

import keras
from keras.src.applications.convnext import LayerScale, StochasticDepth
from keras.src.applications.inception_resnet_v2 import CustomScaleLayer
from keras.src.utils.tracking import DotNotTrackScope

from quantal._core.keras_internals.scopes import is_stateless

LAYER_SCALE = LayerScale
"""The class of the factors of channels in `keras.applications.ConvNeXt...`."""
STOCHASTIC_DEPTH = StochasticDepth
"""The class of what drops branches in training there; it does nothing in inference."""
SCALED_SUM = CustomScaleLayer
"""The class of the sums `x + scale * y` in `keras.applications.InceptionResNetV2`."""


def flatten_layers(layer: keras.Layer) -> list[keras.Layer]:
    """Return a layer and all layers inside it, at every depth."""
    return list(layer._flatten_layers())


def own_variables(layer: keras.Layer) -> list[keras.Variable]:
    """Return the variables that a layer created itself, in the order of Keras's files."""
    return [*layer._trainable_variables, *layer._non_trainable_variables]


def kernel_variable(layer: keras.Layer) -> keras.Variable:
    """Return the kernel of a Dense or convolutional layer as a variable.

    The public `kernel` is a tensor where the layer is quantized or uses LoRA.
    """
    return layer._kernel


def track_variable(layer: keras.Layer, variable: keras.Variable) -> None:
    """Add a variable to the weights of a layer that is being built."""
    layer._track_variable(variable)


def track_state(layer: keras.Layer, name: str, variable: keras.Variable) -> None:
    """Let TensorFlow's checkpoints hold a variable that is no weight of a layer, as a seed is."""
    if keras.config.backend() == "tensorflow":
        # TensorFlow's own list of what it tracks is an attribute that Keras would search.
        with DotNotTrackScope():
            layer._track_trackable(variable, name=name, overwrite=True)


def refresh_names(layer: keras.Layer) -> None:
    """List a layer's variables again where its backend lists them by path, as PyTorch does."""
    if not is_stateless() and hasattr(layer, "_torch_params"):
        layer._track_variables()


def finish_building(layer: keras.Layer) -> None:
    """Let a layer do what Keras leaves out where it builds one without numbers.

    PyTorch's layers list their parameters then.
    """
    layer._post_build()


def set_layers(layer: keras.Layer, name: str, value: Any) -> None:
    """Set an attribute of a layer that is or holds other layers, also once it is built."""
    locked = layer._tracker.locked
    layer._tracker.unlock()
    try:
        setattr(layer, name, value)
    finally:
        if locked:
            layer._tracker.lock()
    refresh_names(layer)


def untrack(layer: keras.Layer, inner: keras.Layer) -> None:
    """Make a layer forget an inner layer that another attribute replaces."""
    layer._tracker.untrack(inner)


def replace_tracked(layer: keras.Layer, replacements: Mapping[object, keras.Layer]) -> None:
    """Make a layer track other layers in the places of some that it tracks."""
    tracker = layer._tracker
    for old in [inner for inner in tracker.config["layers"][1] if inner in replacements]:
        tracker.replace_tracked_value("layers", old, replacements[old])
