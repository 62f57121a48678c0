"""The layers and weights of a model, in the order in which this library visits them."""

from collections.abc import Iterator
from typing import Any

import keras

from quantal._core.by_identity import ByIdentity
from quantal._core.keras_internals.layers import flatten_layers
from quantal._core.parameter import parameters_of
from quantal.layers.activation import DiscreteActivation
from quantal.layers.discrete import Discrete, unwrapped


def check_model(model: Any, argument: str = "model") -> None:
    """Refuse anything but a built Keras model.

    Args:
        model: The object to check.
        argument: The argument's name, for the error.

    Raises:
        TypeError: The object is no Keras model.
        ValueError: The model is not built.
    """
    if not isinstance(model, keras.Model):
        raise TypeError(
            f"{argument} is {model!r} of type {type(model).__name__}. Expected a Keras model. "
            "Give a keras.Model; a single layer goes into keras.Sequential."
        )
    if not model.built:
        raise ValueError(
            f"The model {model.name!r} is not built, so it has no weights yet. Expected a "
            "built model. Call it on data, or begin it with an Input, first."
        )


def is_container(layer: keras.Layer) -> bool:
    """Return whether a layer is a sequence or graph of layers and nothing else."""
    classes: dict[str, Any] = {kind.__name__: kind for kind in type(layer).__mro__}
    container = classes.get("Sequential") or classes.get("Functional")
    return container is not None and getattr(type(layer), "call", None) is container.call


def outermost_layers(model: keras.Layer) -> list[keras.Layer]:
    """Return the outermost layers of a model, each once.

    The walk descends into the models inside a model, but not into composite layers: a
    layer that another layer holds is not returned. But where a composite layer shares a
    layer with others, as one with tied weights does, those inside it stand in its place.
    """
    layers = list(_walk(model))
    if not any(len(holders) > 1 for holders in _holders_among(layers).values()):
        return layers
    while True:
        inside = [ByIdentity.of_keys(flatten_layers(layer)) for layer in layers]
        index = next((i for i in range(len(layers)) if _shares(i, layers, inside)), None)
        if index is None:
            return layers
        values = layer_attributes(layers[index]).values()
        children = [
            part for value in values for layer in layers_among(value) for part in _walk(layer)
        ]
        layers[index : index + 1] = [part for part in children if not _is_among(part, layers)]


def _shares(index: int, layers: list[keras.Layer], inside: list[ByIdentity[None]]) -> bool:
    """Return whether a layer holds one that another layer holds, too, or is.

    A layer that is held as a whole by the other does not.
    """
    layer = layers[index]
    if isinstance(layer, Discrete):
        return False
    inner_layers = [i for i in flatten_layers(layer) if i is not layer and i.weights]
    return any(
        inner in others and layer not in others
        for other, others in enumerate(inside)
        if other != index
        for inner in inner_layers
    )


def _is_among(layer: keras.Layer, layers: list[keras.Layer]) -> bool:
    return any(layer is other for other in layers)


def holders_of(model: keras.Layer) -> ByIdentity[list[keras.Layer]]:
    """Return the layers of a model's graph that hold each layer with weights, or are it."""
    return _holders_among(list(_walk(model)))


def _holders_among(layers: list[keras.Layer]) -> ByIdentity[list[keras.Layer]]:
    holders: ByIdentity[list[keras.Layer]] = ByIdentity()
    for layer in layers:
        for inner in flatten_layers(layer):
            if inner.weights:
                holders.setdefault(inner, []).append(layer)
    return holders


def _walk(model: keras.Layer) -> Iterator[keras.Layer]:
    """Yield the layers of a model and of the models inside it, each once."""
    seen: ByIdentity[None] = ByIdentity()

    def walk(layer: keras.Layer, is_top: bool) -> Iterator[keras.Layer]:
        if layer in seen or isinstance(layer, keras.layers.InputLayer):
            return
        seen[layer] = None
        if is_container(layer):
            for inner in layer.layers:
                yield from walk(inner, False)
        elif is_top:
            for value in layer_attributes(layer).values():
                for inner in layers_among(value):
                    yield from walk(inner, False)
        else:
            yield layer

    yield from walk(model, isinstance(model, keras.Model))


def layer_attributes(layer: keras.Layer) -> dict[str, Any]:
    """Return the attributes of a layer that are layers or hold some.

    PyTorch's modules are among them, TensorFlow's bookkeeping (`_self_...`) is not.
    """
    attributes = {**vars(layer), **vars(layer).get("_modules", {})}
    return {
        name: value
        for name, value in attributes.items()
        if not name.startswith("_self_") and layers_among(value)
    }


def layers_among(value: Any) -> list[keras.Layer]:
    """Return the layers that an attribute is or holds, in what Keras tracks for its user."""
    if isinstance(value, keras.Layer):
        return [value]
    if not (isinstance(value, tuple) or type(value).__name__.startswith("Tracked")):
        return []
    entries = value.values() if isinstance(value, dict) else value
    return [layer for entry in entries for layer in layers_among(entry)]


def weights_of(model: keras.Model) -> list[keras.Variable]:
    """Return the weights of a model layer by layer, without the variables of parameters.

    Latents are among them; scales, also those of activations, learned lists and the states of
    estimators are not.
    A model and one that `discretize`, `bake` or `finalize` returned for it have these weights
    in the same order, which `model.weights` does not promise for subclassed models.
    """
    skipped = ByIdentity.of_keys(
        v for parameter in parameters_of(model) for v in parameter.other_variables
    )
    for activation in activations_of(model):
        skipped.update((variable, None) for variable in activation.weights)
    weights: list[keras.Variable] = []
    layers = [unwrapped(layer) for layer in outermost_layers(model)]
    for variable in (v for layer in [*layers, model] for v in layer.weights):
        if variable not in skipped:
            skipped[variable] = None
            weights.append(variable)
    return weights


def activations_of(model: keras.Layer) -> list[DiscreteActivation]:
    """Return the discrete activations in a model, each once, also those inside other layers."""
    layers = ByIdentity.of_keys(flatten_layers(model))
    return [layer for layer in layers if isinstance(layer, DiscreteActivation)]


def paths_of(model: keras.Model) -> ByIdentity[str]:
    """Return the path of each weight of `weights_of`, by its variable.

    The path of a listed weight is the weight's, such as `"dense/kernel"`, not that of its latent.
    """
    listed = ByIdentity([(parameter.latent, parameter.path) for parameter in parameters_of(model)])
    return ByIdentity([(v, listed.get(v, v.path)) for v in weights_of(model)])
