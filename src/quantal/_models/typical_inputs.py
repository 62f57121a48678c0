"""Draw inputs in the range that a model's first layers tell."""

from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
from keras import layers, ops
from numpy.typing import NDArray

from quantal._core.keras_internals.graph import inputs_of_graph, nodes_of
from quantal._core.keras_internals.layers import flatten_layers
from quantal._core.tensors.distributed import whole_array
from quantal._models.inputs import Array, inputs_like, symbolic_inputs
from quantal._models.walk import is_container
from quantal.layers.discrete import unwrapped

Draw = Callable[[np.random.Generator, tuple[int, ...]], NDArray[Any]]
"""A function that draws an array of a shape."""

_IMAGE_CHANNELS = (1, 3, 4)
"""Grey, colours, colours with a transparency."""
_BLOB = 8
"""An image is drawn from this many patches along each side, since neighbours are alike."""


def typical_inputs(model: keras.Model, batch: int, open_length: int = 16, seed: int = 0) -> Any:
    """Draw inputs such as a model is for, as far as its first layers tell.

    | the first layer that computes | inputs |
    |---|---|
    | Rescaling by one factor | uniform, so that 0 to 1 comes out; -1 to 1 where it has an offset |
    | Rescaling by a factor for each feature | so that standard normal numbers come out |
    | Normalization | normal, of its mean and variance |
    | Embedding, CategoryEncoding and layers that hold one | integers that it knows |
    | another, after an image of 1, 3 or 4 channels | patches of grey or colours from 0 to 1 |
    | any other | standard normal numbers; zeros and ones where integers are expected |

    Layers that only move or repeat numbers, such as Reshape, ZeroPadding2D and Dropout, are
    looked through.

    Args:
        model: A model that has Inputs.
        batch: The number of samples.
        open_length: The length of every other axis that is left open.
        seed: The same seed draws the same numbers.

    Returns:
        NumPy arrays in the structure of the model's inputs; float32 where bfloat16 is
        expected, which NumPy lacks.

    >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Rescaling(1 / 255)])
    >>> bool(typical_inputs(model, batch=50).max() > 200)
    True
    """
    generator = np.random.default_rng(seed)
    symbolic = symbolic_inputs(model)
    draws = iter([_draw_for(model, tensor) for tensor in keras.tree.flatten(symbolic)])

    def draw(shape: tuple[int, ...], dtype: str) -> Array:
        draw_one = next(draws) or (_bits if "int" in dtype or dtype == "bool" else _normal)
        return draw_one(generator, shape).astype("float32" if "bfloat" in dtype else dtype)

    return inputs_like(symbolic, draw, batch, open_length)


def _bits(generator: np.random.Generator, shape: tuple[int, ...]) -> Array:
    return generator.integers(0, 2, shape)


def _normal(generator: np.random.Generator, shape: tuple[int, ...]) -> Array:
    return generator.standard_normal(shape)


def _draw_for(model: keras.Model, tensor: Any) -> Draw | None:
    """Return how to draw one of a model's inputs; None where its layers do not tell."""
    is_integer = "int" in keras.backend.standardize_dtype(tensor.dtype)
    for layer in _first_layers(model, tensor):
        draw = _draw_of(layer)
        if draw is not None:
            return draw
    is_image = len(tensor.shape) == 4 and tensor.shape[-1] in _IMAGE_CHANNELS
    return _image if is_image and not is_integer else None


def _first_layers(model: keras.Layer, tensor: Any) -> Iterator[keras.Layer]:
    """Yield the layers that compute with an input first, those inside models too."""
    readers: list[tuple[Any, Any]] = []
    for node in nodes_of(model):
        for position, read in enumerate(node.input_tensors):
            if read is tensor and not isinstance(node.operation, layers.InputLayer):
                readers.append((node, position))
    for node, position in readers:
        layer = unwrapped(node.operation)
        if isinstance(layer, keras.Layer) and is_container(layer):
            inner = inputs_of_graph(layer)
            if position < len(inner):
                yield from _first_layers(layer, inner[position])
        elif isinstance(layer, _TRANSPARENT):
            for output in keras.tree.flatten(node.outputs):
                yield from _first_layers(model, output)
        elif isinstance(layer, keras.Layer):
            yield layer


_TRANSPARENT = (
    layers.Reshape, layers.Flatten, layers.Permute, layers.RepeatVector, layers.Identity,
    layers.ZeroPadding1D, layers.ZeroPadding2D, layers.ZeroPadding3D, layers.Cropping1D,
    layers.Cropping2D, layers.Cropping3D, layers.UpSampling1D, layers.UpSampling2D,
    layers.Dropout, layers.SpatialDropout1D, layers.SpatialDropout2D, layers.GaussianNoise,
    layers.Resizing, layers.CenterCrop, layers.RandomFlip, layers.RandomRotation,
    layers.RandomZoom, layers.RandomTranslation, layers.RandomCrop, layers.Masking,
    layers.Concatenate,
)  # fmt: skip
"""Layers that show the next one the numbers that came, at most moved or left out."""


def _draw_of(layer: keras.Layer) -> Draw | None:
    """Return how to draw what a layer is for; None where it does not tell."""
    if isinstance(layer, layers.Rescaling):
        return _rescaled(layer)
    if isinstance(layer, layers.Normalization):
        return _normalized(layer)
    sizes = [_number_of_integers(inner) for inner in flatten_layers(layer)]
    most = next((size for size in sizes if size), None)
    return None if most is None else lambda generator, shape: generator.integers(0, most, shape)


def _number_of_integers(layer: keras.Layer) -> int | None:
    """Return how many integers from 0 a layer knows; None where it takes no integers."""
    layer = unwrapped(layer)
    if isinstance(layer, layers.Embedding):
        return int(layer.input_dim)
    return int(layer.num_tokens) if isinstance(layer, layers.CategoryEncoding) else None


def _rescaled(layer: layers.Rescaling) -> Draw | None:
    scale, offset = (
        np.asarray(whole_array(ops.convert_to_tensor(number)), np.float64)
        for number in (layer.scale, layer.offset)
    )
    if not (np.isfinite(scale).all() and (scale != 0).all()):
        return None
    if scale.size > 1 or offset.size > 1:
        return lambda generator, shape: (_normal(generator, shape) - offset) / scale
    low = -1 if (offset != 0).all() else 0
    return lambda generator, shape: (generator.uniform(low, 1, shape) - offset) / scale


def _normalized(layer: layers.Normalization) -> Draw | None:
    if layer.invert:
        return _normal
    mean, variance = (
        np.asarray(whole_array(number), np.float64) for number in (layer.mean, layer.variance)
    )
    deviation = np.sqrt(variance)
    return lambda generator, shape: mean + deviation * _normal(generator, shape)


def _image(generator: np.random.Generator, shape: tuple[int, ...]) -> Array:
    samples, height, width, channels = shape
    rows, columns = (np.arange(length) * _BLOB // length for length in (height, width))
    blobs = generator.uniform(size=(samples, _BLOB, _BLOB, channels))
    return blobs[:, rows][:, :, columns]
