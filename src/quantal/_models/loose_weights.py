"""Weights that a model's graph uses outside of the layers that own them, and cannot be cloned."""

import inspect
from collections.abc import Iterator
from typing import Any, NamedTuple

import keras

from quantal._core.by_identity import ByIdentity
from quantal._core.keras_internals.graph import nodes_of
from quantal._core.keras_internals.layers import flatten_layers
from quantal._models.attribute_data import captured


class _LooseWeight(NamedTuple):
    """A loose weight is a variable or a layer with weights, and what uses it from outside."""

    weight: keras.Variable | keras.Layer
    user: str


def refuse_loose_weights(model: keras.Model) -> None:
    """Refuse a model whose operations or Lambda layers use weights of layers directly.

    A clone of it would go on using the weights of the old model there.

    Raises:
        ValueError: There is such a weight.
    """
    parts = ByIdentity.of_keys([*flatten_layers(model), *model.variables])
    for weight, user in _loose_weights(model):
        if weight not in parts:
            continue
        name = weight.path if isinstance(weight, keras.Variable) else weight.name
        raise ValueError(
            f"{user} of the model {model.name!r} uses {name!r} directly, so a new model would "
            "go on using the old one's. Expected weights that are used in the call of a "
            "layer which holds their layer as an attribute. Write such a layer: its "
            "constructor takes the layer, and its call reads the weight."
        )


def _loose_weights(model: keras.Model) -> Iterator[_LooseWeight]:
    for layer in flatten_layers(model):
        for node in nodes_of(layer) if isinstance(layer, keras.Model) else ():
            arguments = node.arguments
            for entry in keras.tree.flatten((arguments.args, arguments.kwargs)):
                if isinstance(entry, keras.Variable):
                    yield _LooseWeight(entry, f"The operation {node.operation.name!r}")
        if isinstance(layer, keras.layers.Lambda):
            for entry in _referred_to(layer.function):
                if isinstance(entry, (keras.Layer, keras.Variable)):
                    yield _LooseWeight(entry, f"The Lambda layer {layer.name!r}")


def _referred_to(function: Any) -> list[Any]:
    """Return what a function of Python refers to besides its arguments."""
    if not inspect.isfunction(function):
        return []
    values_around = captured(function)
    defaults = [*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values()]
    names = function.__code__.co_names
    shared = [function.__globals__[name] for name in names if name in function.__globals__]
    return list(keras.tree.flatten([*values_around, *defaults, *shared]))
