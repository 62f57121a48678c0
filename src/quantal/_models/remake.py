"""Make a model of a class of its own again through that class, with layers exchanged."""

from collections.abc import Callable
from typing import NamedTuple

import keras

from quantal._core.by_identity import ByIdentity
from quantal._core.keras_internals.layers import flatten_layers, own_variables
from quantal._models.kept_class import class_of, put_on_lists, remade, rewrapped
from quantal._models.layer_state import LayerPair
from quantal._models.parts import Part, Replace, Replacement, all_weights, clone_layer
from quantal._models.walk import outermost_layers
from quantal.layers.discrete import Discrete, unwrapped

Unwrap = Callable[[keras.Layer], keras.Layer]


class Remake(NamedTuple):
    """A remake is a model that the class of an old one has made again.

    Attributes:
        model: The new model.
        clones: The new layers and models by the old ones that they stand for.
        parts: Which new layer continues which old one.
    """

    model: keras.Model
    clones: ByIdentity[keras.Layer]
    parts: list[Part]


def remake_on_lists(model: keras.Model, replace: Replace, unwrap: Unwrap) -> Remake | None:
    """Return a remake of a model with layers replaced, or None where its class cannot.

    Layers that stay as they are come from the model's class, so their own configs need not
    describe them. Where a layer is replaced by another one than a wrapper of itself, only
    cloning the graph is possible.

    Args:
        model: A model of a class of its own.
        replace: As for `clone_replacing`.
        unwrap: As for `clone_replacing`.
    """
    new = remade(model)
    if new is None:
        return None
    remake = Remake(new, ByIdentity(), [])
    replacements: ByIdentity[keras.Layer] = ByIdentity()
    for pair in map(LayerPair, outermost_layers(model), outermost_layers(new)):
        layer = _continued(pair, replace, unwrap, remake.parts)
        if layer is None:
            return None
        remake.clones[pair.old] = layer
        if layer is not pair.new or getattr(layer, "finalized", False):
            replacements[pair.new] = layer
    if not _take_others(model, remake):
        return None
    for inner, layer in replacements.items():
        if layer is not inner:
            layer.build()
    put_on_lists(new, replacements)
    return remake


def _continued(
    pair: LayerPair, replace: Replace, unwrap: Unwrap, parts: list[Part]
) -> keras.Layer | None:
    """Return the layer that stands for an old one, or None where it is no wrapper of the new."""
    old, new = unwrap(pair.old), pair.new
    if isinstance(new, Discrete) and not isinstance(old, Discrete):
        return None  # The class itself puts it on a list.

    def fresh(layer: keras.Layer) -> keras.Layer:
        is_same = unwrapped(layer) is unwrapped(pair.old)
        return rewrapped(layer, new) if is_same else clone_layer(layer)

    replacement = replace(old, fresh)
    if replacement is None and isinstance(old, Discrete) and not isinstance(new, Discrete):
        layer = rewrapped(old, new)
        replacement = Replacement(layer, layer, list(old.weights))
    if replacement is None:
        inside = [inner for inner in flatten_layers(old) if inner is not old]
        if any(unwrap(i) is not i or replace(i, clone_layer) is not None for i in inside):
            return None
        parts.append(Part(all_weights(old), new, all_weights, old))
        return new
    if not any(layer is new for layer in flatten_layers(replacement.layer)):
        return None
    inner = replacement.inner
    same = old if type(old) is type(inner) else None
    parts.append(Part(replacement.variables, inner, all_weights, same))
    return replacement.layer


def _take_others(model: keras.Model, remake: Remake) -> bool:
    """Take what stands around or beside the outermost layers; say whether both models have it.

    These are the models themselves, composite layers that share a layer with others, and
    layers that the model keeps outside of its graph. Each continues with the variables that
    it created itself.
    """
    others, new_others = _others(model), _others(remake.model)
    if [class_of(layer) for layer in others] != [class_of(layer) for layer in new_others]:
        return False
    for pair in map(LayerPair, others, new_others):
        remake.clones[pair.old] = pair.new
        remake.parts.append(Part(own_variables(pair.old), pair.new, own_variables, pair.old))
    return True


def _others(model: keras.Model) -> list[keras.Layer]:
    """Return a model and all layers in it but the outermost ones and what is inside them."""
    inside = ByIdentity.of_keys(
        layer for outermost in outermost_layers(model) for layer in flatten_layers(outermost)
    )
    return [layer for layer in flatten_layers(model) if layer not in inside]
