"""Exchange layers of a built model for others that wrap them, in its graphs and attributes."""

from typing import Any

import keras

from quantal._core.by_identity import ByIdentity
from quantal._core.keras_internals.graph import graph_of, hand_over_nodes, rename_nodes
from quantal._core.keras_internals.layers import flatten_layers, replace_tracked

Replacements = ByIdentity[keras.Layer]
"""The layers that stand for others, by the others."""


def exchange_layers(model: keras.Model, replacements: Replacements) -> None:
    """Put wrappers in the places of the layers that they wrap, all over a built model.

    The graphs are not run again: the calls that they hold are calls of the wrappers from
    then on. Every attribute, list and dict that holds such a layer holds its wrapper.

    Args:
        model: A built model, changed in place.
        replacements: Built layers, each of which wraps the layer that it stands for.
    """
    wrapped = [inner for layer in replacements.values() for inner in flatten_layers(layer)]
    untouched = ByIdentity.of_keys(wrapped)
    for layer in flatten_layers(model):
        if layer in untouched:
            continue
        replace_tracked(layer, replacements)
        for holder in {id(item): item for item in (layer, graph_of(layer))}.values():
            _exchange_attributes(holder, replacements)
            rename_nodes(holder, replacements)
    for old, new in replacements.items():
        hand_over_nodes(old, new)


def _exchange_attributes(holder: Any, replacements: Replacements) -> None:
    attributes = vars(holder)
    # PyTorch keeps modules among them; written there, nothing is registered anew.
    for store in (attributes, attributes.get("_modules")):
        for name, value in list((store or {}).items()):
            if name.startswith("_self_") or not _holds_any(value, replacements):
                continue
            exchanged = _exchanged(value, replacements)
            if "_modules" in attributes:
                store[name] = exchanged
            else:
                setattr(holder, name, exchanged)


def _holds_any(value: Any, replacements: Replacements) -> bool:
    if isinstance(value, keras.Layer):
        return value in replacements
    if isinstance(value, dict):
        return any(_holds_any(entry, replacements) for entry in value.values())
    if isinstance(value, (list, tuple)):
        return any(_holds_any(entry, replacements) for entry in value)
    return False


def _exchanged(value: Any, replacements: Replacements) -> Any:
    """Return an attribute with the layers in it exchanged; lists and dicts in place."""
    if isinstance(value, keras.Layer):
        return replacements.get(value, value)
    if isinstance(value, dict):
        for key, entry in value.items():
            value[key] = _exchanged(entry, replacements)
    elif isinstance(value, list):
        for index, entry in enumerate(value):
            value[index] = _exchanged(entry, replacements)
    elif isinstance(value, tuple):
        entries = [_exchanged(entry, replacements) for entry in value]
        return type(value)(*entries) if hasattr(value, "_fields") else tuple(entries)
    return value
