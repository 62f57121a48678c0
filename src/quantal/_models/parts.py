"""The parts of a model that is made of another one: what continues what."""

from collections.abc import Callable
from typing import NamedTuple

import keras

from quantal._core.keras_internals.layers import flatten_layers
from quantal._models.layer_state import LayerPair

Fresh = Callable[[keras.Layer], keras.Layer]
"""A function that returns a layer like the given one, with weights of its own, built or not."""

Replace = Callable[[keras.Layer, Fresh], "Replacement | None"]
"""A function that returns what replaces a layer, or None where the layer stays as it is."""


class Replacement(NamedTuple):
    """A replacement is a new layer for an old one, whose values it takes over.

    `inner` is `layer` itself, or a layer inside it where `layer` is a wrapper: its
    weights, once it is built, continue `variables` one by one.

    Attributes:
        layer: The new layer, not built yet.
        inner: The layer whose weights continue the old variables.
        variables: Variables of the old layer, in the order of `inner.weights`; none
            where nothing is taken over.
    """

    layer: keras.Layer
    inner: keras.Layer
    variables: list[keras.Variable]


class Part(NamedTuple):
    """A part is a new layer that continues old variables, and how to list its variables.

    Attributes:
        old_variables: The old variables.
        new_layer: The new layer.
        weights_of_layer: A function that lists its variables once it is built.
        old_layer: The old layer, where the new one is of the same class.
    """

    old_variables: list[keras.Variable]
    new_layer: keras.Layer
    weights_of_layer: Callable[[keras.Layer], list[keras.Variable]]
    old_layer: keras.Layer | None

    @property
    def layer_pairs(self) -> list[LayerPair]:
        """The layers and those inside them, if they continue whole with their insides."""
        if self.old_layer is None:
            return []
        if self.weights_of_layer is not all_weights:
            return [LayerPair(self.old_layer, self.new_layer)]
        old, new = flatten_layers(self.old_layer), flatten_layers(self.new_layer)
        if [type(layer) for layer in old] != [type(layer) for layer in new]:
            raise ValueError(
                f"The layer {self.old_layer.name!r} has {len(old) - 1} layers inside; created "
                f"from its config it has {len(new) - 1}, or of other classes. Expected the "
                "same. Create them all in its constructor or in build."
            )
        return list(map(LayerPair, old, new))


def all_weights(layer: keras.Layer) -> list[keras.Variable]:
    """Return all weights of a layer, those of layers inside it too."""
    return list(layer.weights)


def clone_layer(layer: keras.Layer, name: str | None = None) -> keras.Layer:
    """Create the same layer from its config, under its name or another one, not built.

    Raises:
        ValueError: The config does not describe the layer.
    """
    # A Lambda of this process is as safe as the model it comes from.
    trust = {"safe_mode": False} if isinstance(layer, keras.layers.Lambda) else {}
    try:
        config = {**layer.get_config(), "name": name or layer.name}
        return type(layer).from_config(config, **trust)
    except Exception as error:  # Of any type: the class may be anybody's.
        raise ValueError(
            f"The layer {layer.name!r} of type {type(layer).__name__} cannot be created "
            f"from its config ({error}). Expected get_config and from_config that describe "
            "it. Add them to the class, as saving the model asks for, too."
        ) from error
