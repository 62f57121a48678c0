"""The axes of a layer's weight that index its output channels."""

import math

import keras

from quantal._core.keras_internals.layers import flatten_layers, own_variables

DEPTHWISE = (keras.layers.DepthwiseConv1D, keras.layers.DepthwiseConv2D)
SEPARABLE = (keras.layers.SeparableConv1D, keras.layers.SeparableConv2D)
TRANSPOSED = (
    keras.layers.Conv1DTranspose,
    keras.layers.Conv2DTranspose,
    keras.layers.Conv3DTranspose,
)


def output_axes(layer: keras.Layer, variable: keras.Variable) -> tuple[int, ...]:
    """Return the axes of a weight that index the layer's outputs, as negative integers.

    They are the last axis, except for depthwise kernels (input channel and multiplier),
    transposed convolutions (the last but one) and EinsumDense (by its equation). For a
    weight of a layer inside, that layer decides.

    Args:
        layer: The layer, or one around it.
        variable: One of its weights.

    >>> layer = keras.layers.Conv2DTranspose(4, 3)
    >>> layer.build((None, 8, 8, 2))
    >>> tuple(layer.kernel.shape), output_axes(layer, layer.kernel)
    ((3, 3, 4, 2), (-2,))
    """
    owner = owner_of(layer, variable)
    if isinstance(owner, DEPTHWISE):
        return -2, -1
    if isinstance(owner, SEPARABLE):
        return (-2, -1) if variable is owner.depthwise_kernel else (-1,)
    if isinstance(owner, TRANSPOSED):
        return (-2,)
    if isinstance(owner, keras.layers.EinsumDense):
        inputs, _, rest = owner.equation.replace(" ", "").partition(",")
        kernel, _, outputs = rest.partition("->")
        if len(kernel) == len(variable.shape):
            axes = [
                axis - len(kernel)
                for axis, label in enumerate(kernel)
                if label in outputs and label not in inputs
            ]
            return tuple(axes) or (-1,)
    return (-1,)


def fan_in(layer: keras.Layer, variable: keras.Variable) -> int:
    """Return how many numbers of a weight each of the layer's outputs is computed with.

    Args:
        layer: The layer, or one around it.
        variable: One of its weights.

    >>> layer = keras.layers.DepthwiseConv2D(3)
    >>> layer.build((None, 8, 8, 2))
    >>> tuple(layer.kernel.shape), fan_in(layer, layer.kernel)
    ((3, 3, 2, 1), 9)
    """
    shape = tuple(variable.shape)
    of_outputs = {axis % len(shape) for axis in output_axes(layer, variable)}
    return math.prod(size for axis, size in enumerate(shape) if axis not in of_outputs)


def owner_of(layer: keras.Layer, variable: keras.Variable) -> keras.Layer:
    """Return the layer, at any depth inside a layer, that created a weight itself."""
    for inner in flatten_layers(layer):
        if any(variable is candidate for candidate in own_variables(inner)):
            return inner
    return layer
