"""Tensors of two opposite values are followed from an activation to the weights they meet."""

from typing import Any

import keras
import numpy as np

from quantal._core.by_identity import ByIdentity
from quantal._core.keras_internals.graph import operation_name
from quantal._core.keras_internals.layers import own_variables
from quantal._core.latent_name import weight_name
from quantal._core.parameter import Parameter
from quantal._core.types import Tensor
from quantal._models.walk import activations_of, is_container
from quantal.layers._channels import output_axes

_CONVOLUTIONS = (
    keras.layers.Conv1D, keras.layers.Conv2D, keras.layers.Conv3D,
    keras.layers.DepthwiseConv1D, keras.layers.DepthwiseConv2D,
    keras.layers.SeparableConv1D, keras.layers.SeparableConv2D,
)  # fmt: skip
_KEEP_SIGNS = (
    keras.layers.Flatten, keras.layers.Reshape, keras.layers.Permute, keras.layers.RepeatVector,
    keras.layers.MaxPooling1D, keras.layers.MaxPooling2D, keras.layers.MaxPooling3D,
    keras.layers.GlobalMaxPooling1D, keras.layers.GlobalMaxPooling2D,
    keras.layers.GlobalMaxPooling3D,
    # In inference these change nothing.
    keras.layers.Identity, keras.layers.Dropout, keras.layers.SpatialDropout1D,
    keras.layers.SpatialDropout2D, keras.layers.SpatialDropout3D,
)  # fmt: skip
"""Layers whose outputs are some of their inputs."""
_OPERATIONS = ("reshape", "transpose", "squeeze", "expanddims")
"""Operations of a graph whose outputs are their inputs in another shape."""


def is_of_signs(parameter: Parameter, axes: tuple[int, ...]) -> bool:
    """Return whether a weight is on two opposite values, with no scale that varies in a sum.

    Args:
        parameter: The weight's parameter.
        axes: The axes of its outputs, as negative integers: scales may vary along these.
    """
    values, scale = parameter.values, parameter.scale_state
    if values.channels is not None or _magnitude(values.numbers) is None:
        return False
    shape = () if scale is None else tuple(scale.start.shape)
    return all(size == 1 or axis - len(shape) in axes for axis, size in enumerate(shape))


def _magnitude(numbers: Any) -> float | None:
    """Return the magnitude of two opposite numbers; None for other ones."""
    ascending = np.unique(np.asarray(numbers, float))
    is_pair = len(ascending) == 2 and ascending[0] == -ascending[1]
    return float(ascending[1]) if is_pair else None


class Signs:
    """Signs are the tensors of a forward pass whose numbers are all +a or -a, and what they meet.

    Args:
        model: The model, whose activations on two opposite values the signs come from.
    """

    def __init__(self, model: keras.Model) -> None:
        # Before the pass is traced, where a scale has no numbers.
        self._sources: ByIdentity[float] = ByIdentity()
        for layer in activations_of(model):
            magnitude = None
            if layer.built and layer.values.channels is None:
                magnitude = _magnitude(layer.values.numbers)
            if magnitude is not None and layer.scale_value().size == 1:
                self._sources[layer] = magnitude * float(layer.scale_value().reshape(()))
        self.begin()

    def begin(self) -> None:
        """Begin a new pass."""
        self._tensors: ByIdentity[float] = ByIdentity()
        self._met: ByIdentity[tuple[int, ...] | None] = ByIdentity()
        self._entering: float | None = None

    def axes_of(self, weight: keras.Variable) -> tuple[int, ...] | None:
        """Return the axes of a weight's outputs; None where it met anything but signs."""
        return self._met.get(weight)

    def before(self, layer: Any, inputs: Any) -> None:
        """Note what a layer, or an operation of a graph, is called with."""
        if self._entering is not None:
            # A model's graph begins with a copy of its inputs on some backends.
            if keras.ops.is_tensor(inputs):
                self._tensors[inputs] = self._entering
            self._entering = None
        if isinstance(layer, keras.Layer) and is_container(layer):
            self._entering = self._tensors.get(inputs)

    def after(self, layer: Any, inputs: Any, outputs: Tensor, padding: Any = None) -> None:
        """Note what a layer, or an operation of a graph, returned.

        Args:
            layer: The layer or operation.
            inputs: Its first argument.
            outputs: What it returned.
            padding: The number that an operation pads with.
        """
        if isinstance(layer, keras.Layer) and is_container(layer):
            self._entering = None
        if layer in self._sources:
            self._tensors[outputs] = self._sources[layer]
            return
        magnitude = self._tensors.get(inputs)
        if magnitude is not None and _keeps_signs(layer, magnitude, padding):
            self._tensors[outputs] = magnitude

    def meet(self, layer: keras.Layer, inputs: Any) -> None:
        """Note whether the weights of a layer meet signs alone."""
        is_met_by_signs = inputs in self._tensors and _sums_inputs_alone(layer)
        for variable in own_variables(layer):
            name = weight_name(variable)
            meets = is_met_by_signs and name in ("kernel", "depthwise_kernel")
            axes = output_axes(layer, variable) if meets else None
            self._met[variable] = axes if self._met.get(variable, axes) == axes else None


def _keeps_signs(layer: Any, magnitude: float, padding: Any) -> bool:
    """Return whether signs of a magnitude are the outputs, too."""
    if isinstance(layer, keras.Layer):
        kinds = [kind for kind in _KEEP_SIGNS if isinstance(layer, kind)]
        return any(type(layer).call is kind.call for kind in kinds)
    name = operation_name(layer)
    if name == "pad":
        is_number = layer.mode == "constant" and isinstance(padding, (int, float, np.number))
        return is_number and abs(float(padding)) == magnitude
    return name in _OPERATIONS


def _sums_inputs_alone(layer: keras.Layer) -> bool:
    """Return whether a layer sums products of its inputs, without zeros around them."""
    if isinstance(layer, _CONVOLUTIONS):
        return layer.padding == "valid" or set(layer.kernel_size) == {1}
    return isinstance(layer, (keras.layers.Dense, keras.layers.EinsumDense))
