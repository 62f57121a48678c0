"""What a layer keeps besides its weights, and how another layer of its class takes it over.

Keras's own protocol says most of it: `save_own_variables` and `load_own_variables` for
what a class saves in its own way, `save_assets` and `load_assets` for vocabularies,
`finalize_state` for caches that weights are the source of. Variables outside
`layer.weights` (seeds, metrics, states of recurrent layers) and plain attributes that a
user has set after the constructor are copied by their names.
"""

import contextlib
import functools
import inspect
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from types import FunctionType
from typing import Any, NamedTuple, NoReturn

import keras
import numpy as np
from numpy.typing import NDArray

from quantal._core.by_identity import ByIdentity
from quantal._core.keras_internals.layers import flatten_layers
from quantal._core.tensors.distributed import whole_array
from quantal._models.attribute_data import (
    are_alike,
    are_equal,
    captured,
    copied,
    is_data,
    is_function,
    is_kept_by_keras,
    same_numbers,
)


class LayerPair(NamedTuple):
    """A pair holds an old layer and the new one of the same class that continues it."""

    old: keras.Layer
    new: keras.Layer


def copy_state(pairs: Iterable[LayerPair], set_weights: Callable[[], None]) -> None:
    """Copy what layers keep to the layers that continue them, with weights set in between.

    Their flags `trainable` are copied, too.

    Args:
        pairs: The old layers and the new ones, each new one built.
        set_weights: A function that sets the weights of the new layers, for they may be
            others than the old ones.

    Raises:
        ValueError: A layer cannot tell what it keeps, or an attribute of it is lost.
    """
    pairs = list(pairs)
    for pair in pairs:
        _copy_by_protocol(*pair)
        _copy_hidden_variables(*pair)
        _copy_attributes(*pair)
    set_weights()
    for _, new in pairs:
        _refresh(new)
    _copy_flags(pairs)


def refresh_state(model: keras.Layer) -> None:
    """Make all layers of a model compute again what they cache of their weights.

    Call it after weights were assigned one by one.
    """
    for layer in flatten_layers(model):
        _refresh(layer)


def assets_of(model: keras.Layer) -> dict[str, bytes]:
    """Return the files of all layers of a model that keep assets, such as vocabularies.

    Returns:
        The files' bytes, by names that `load_assets` understands; empty for most models.

    Raises:
        ValueError: A layer cannot tell its assets.
    """
    files: dict[str, bytes] = {}
    for index, layer in enumerate(flatten_layers(model)):
        for name, data in _assets(layer).items():
            files[f"{index}/{name}"] = data
    return files


def load_assets(model: keras.Layer, files: Mapping[str, bytes]) -> None:
    """Give the layers of a model the assets that `assets_of` returned.

    Args:
        model: A built model of the same architecture.
        files: The files' bytes, by name.

    Raises:
        ValueError: A file belongs to no layer, or a layer cannot read it.
    """
    layers = flatten_layers(model)
    files_of_layer: dict[int, dict[str, bytes]] = {}
    for name, data in files.items():
        index, _, rest = name.partition("/")
        is_valid = index.isascii() and index.isdigit() and int(index) < len(layers)
        if not is_valid or not _is_relative(rest) or not _has_assets(layers[int(index)]):
            raise ValueError(
                f"the asset {name!r} belongs to no layer. Expected one of a layer that keeps assets"
            )
        files_of_layer.setdefault(int(index), {})[rest] = data
    for layer_index, files_of_one in files_of_layer.items():
        _load_assets(layers[layer_index], files_of_one)


def keeps_more(model: keras.Layer) -> bool:
    """Return whether a layer's own way of saving holds more than the weights that it lists."""
    return any(_more_than_weights(layer) for layer in flatten_layers(model))


def check_kept(model: keras.Layer, again: keras.Layer) -> None:
    """Refuse a model of which a file keeps less than a layer's own way of saving does.

    Args:
        model: A built model.
        again: What is loaded from its file.

    Raises:
        ValueError: There is such a layer.
    """
    for old, new in map(LayerPair, flatten_layers(model), flatten_layers(again)):
        more = _more_than_weights(old)
        store = _own_store(new) if more else {}
        for name, numbers in more.items():
            if name not in store or not same_numbers(numbers, store[name]):
                raise ValueError(
                    f"{model.name!r} is not saved, since its layer {old.name!r} of type "
                    f"{type(old).__name__} keeps {name!r} by its save_own_variables, which is "
                    "none of its weights, and files hold weights alone. Expected it among them. "
                    "Create it with add_weight, with trainable=False, or give it a file by "
                    "save_assets and load_assets."
                )


def _more_than_weights(layer: keras.Layer) -> dict[str, NDArray[Any]]:
    """Return what a layer's class saves in its way and is none of the layer's weights."""
    if not _saves_in_its_way(layer) or type(layer).__module__.startswith("keras."):
        return {}
    with _named(layer):
        store = _own_store(layer)
    weights = [np.asarray(whole_array(weight)) for weight in layer.weights]
    return {
        name: numbers
        for name, numbers in store.items()
        if not any(same_numbers(numbers, weight) for weight in weights)
    }


def _copy_flags(pairs: list[LayerPair]) -> None:
    """Make the new layers trainable or not, as the old ones are."""
    # A layer hands its flag to all layers inside it, so outer layers come first.
    for old, new in sorted(pairs, key=lambda pair: -len(flatten_layers(pair.new))):
        if new.trainable != old.trainable:
            new.trainable = old.trainable


def _copy_by_protocol(old: keras.Layer, new: keras.Layer) -> None:
    """Let a new layer load what the old one saves, where its class has a way of its own."""
    if _saves_in_its_way(old):
        with _named(old):
            _load_own_variables(new, _own_store(old))
    if _has_assets(old):
        _load_assets(new, _assets(old))


def _refresh(layer: keras.Layer) -> None:
    """Make a layer compute again what it caches of its weights."""
    # Without weights nothing is out of date; a Discretization layer from a file would
    # lose its boundaries.
    if not layer.weights:
        return
    with _named(layer):
        if _saves_in_its_way(layer):
            _load_own_variables(layer, _own_store(layer))
        if callable(getattr(layer, "finalize_state", None)):
            layer.finalize_state()


def _saves_in_its_way(layer: keras.Layer) -> bool:
    """Return whether a layer's class saves and loads its variables in a way of its own."""
    # A discrete layer keeps nothing but its variables, and in files packs them.
    if hasattr(layer, "discrete_parameters"):
        return False
    for kind in type(layer).__mro__:
        if kind is keras.Layer:
            return False
        if "load_own_variables" in vars(kind) or "save_own_variables" in vars(kind):
            # Dense and its like do it for quantized kernels, and list their variables.
            return "variable_serialization_spec" not in vars(kind)
    return False


def _own_store(layer: keras.Layer) -> dict[str, NDArray[Any]]:
    """Return what a layer's class saves of it, in separate memory."""
    store: dict[str, Any] = {}
    # Of the class: finalized layers leave their latents out.
    type(layer).save_own_variables(layer, store)
    return {name: np.array(whole_array(value)) for name, value in store.items()}


def _load_own_variables(layer: keras.Layer, store: dict[str, NDArray[Any]]) -> None:
    type(layer).load_own_variables(layer, store)


def _has_assets(layer: keras.Layer) -> bool:
    return callable(getattr(layer, "save_assets", None))


def _assets(layer: keras.Layer) -> dict[str, bytes]:
    """Return the files of one layer by their names."""
    if not _has_assets(layer):
        return {}
    with tempfile.TemporaryDirectory() as folder, _named(layer):
        layer.save_assets(folder)
        return {
            path.relative_to(folder).as_posix(): path.read_bytes()
            for path in sorted(Path(folder).rglob("*"))
            if path.is_file()
        }


def _load_assets(layer: keras.Layer, files: Mapping[str, bytes]) -> None:
    """Give one layer its files."""
    with tempfile.TemporaryDirectory() as folder, _named(layer):
        for name, data in files.items():
            path = Path(folder, name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        layer.load_assets(folder)


def _is_relative(name: str) -> bool:
    """Return whether a name stays within the folder that it is put into."""
    parts = name.split("/")
    return all(part not in ("", ".", "..") for part in parts) and not set(name) & set("\\:\0")


@contextlib.contextmanager
def _named(layer: keras.Layer) -> Iterator[None]:
    """Name the layer in whatever its own methods raise."""
    try:
        yield
    except Exception as error:
        raise ValueError(
            f"The layer {layer.name!r} of type {type(layer).__name__} cannot hand on what it "
            f"keeps ({error}). Expected the methods with which Keras saves and loads it to "
            "work. Adapt or build the layer first, or mend its save_own_variables, "
            "load_own_variables, save_assets, load_assets or finalize_state."
        ) from error


def _copy_hidden_variables(old: keras.Layer, new: keras.Layer) -> None:
    """Copy the variables of a layer that are not among its weights: seeds, metrics, states."""
    counted = ByIdentity.of_keys([*old.weights, *new.weights])
    of_compile = _names_of_compile(old)
    for name, value in _attributes(old).items():
        if name in of_compile and name not in vars(new):
            continue
        hidden, continued = (
            [v for v in _variables_among(attribute) if v not in counted]
            for attribute in (value, vars(new).get(name))
        )
        if [tuple(v.shape) for v in hidden] != [tuple(v.shape) for v in continued]:
            raise ValueError(
                f"The layer {old.name!r} keeps {len(hidden)} variables in its attribute "
                f"{name!r}; created from its config it keeps {len(continued)} there, or of "
                "other shapes. Expected the same. Create them in its constructor or in build."
            )
        for old_variable, new_variable in zip(hidden, continued, strict=True):
            new_variable.assign(whole_array(old_variable))


def _variables_among(value: Any) -> list[keras.Variable]:
    """Return the variables that an attribute is or holds, outside the layers in it."""
    if isinstance(value, keras.Variable):
        return [value]
    if isinstance(value, keras.random.SeedGenerator):
        return [value.state]
    if isinstance(value, keras.metrics.Metric):
        return list(value.variables)
    if isinstance(value, (dict, list, tuple)):
        entries = value.values() if isinstance(value, dict) else value
        return [variable for entry in entries for variable in _variables_among(entry)]
    return []


def _copy_attributes(old: keras.Layer, new: keras.Layer) -> None:
    """Copy the attributes that a layer's config does not describe, where they are data.

    Users set them after the constructor. What the constructor sets is the same in both.
    """
    is_of_keras = type(old).__module__.split(".")[0] in ("keras", "quantal")
    of_compile = _names_of_compile(old)
    for name, value in _attributes(old).items():
        if is_of_keras and name.startswith("_"):
            continue
        is_lost = name not in vars(new)
        if is_data(value):
            if is_lost or not are_equal(value, vars(new)[name]):
                setattr(new, name, copied(value))
        elif is_function(value):
            if is_lost or not are_equal(value, vars(new)[name]):
                _refuse_bound_function(old, name, value)
                setattr(new, name, value)
        elif is_lost:
            is_kept = is_of_keras or name in of_compile or is_kept_by_keras(value)
            if not (is_kept or name.startswith("_")):
                _refuse_attribute(old, name, value)
        elif not are_alike(value, vars(new)[name]):
            _refuse_attribute(old, name, value)


def _names_of_compile(layer: keras.Layer) -> set[str]:
    """Return the names that the `compile` of a compiled model's class sets, if it is no Keras one.

    A new model that is not compiled has no such attributes, and needs none.
    """
    if not getattr(layer, "compiled", False):
        return set()
    methods = [vars(kind).get("compile") for kind in type(layer).__mro__]
    functions = [inspect.unwrap(method) for method in methods if callable(method)]
    return {
        name
        for function in functions
        if isinstance(function, FunctionType) and not function.__module__.startswith("keras.")
        for name in function.__code__.co_names
    }


def _refuse_bound_function(layer: keras.Layer, name: str, function: Any) -> None:
    """Refuse a function that would go on using an old layer."""
    values = [*captured(function), *(getattr(function, "__defaults__", None) or ())]
    if any(isinstance(value, (keras.Layer, keras.Variable)) for value in values):
        _refuse_attribute(layer, name, function)


def _refuse_attribute(layer: keras.Layer, name: str, value: Any) -> NoReturn:
    raise ValueError(
        f"The layer {layer.name!r} has the attribute {name!r} of type "
        f"{type(value).__name__}, which its config does not describe. Expected "
        "numbers, arrays, texts or functions in attributes that are set after the "
        "constructor. Set it in the constructor and return it in get_config."
    )


def _attributes(layer: keras.Layer) -> dict[str, Any]:
    """Return the attributes of a layer but for those that Keras keeps in every layer."""
    return {
        name: value
        for name, value in vars(layer).items()
        if name not in _bookkeeping() and not name.startswith("_self_")
    }


@functools.cache
def _bookkeeping() -> frozenset[str]:
    """Return the names of attributes that every layer, graph and compiled model has."""
    inputs = keras.Input((1,))
    graph = keras.Model(inputs, inputs)
    stack = keras.Sequential([keras.Input((1,)), keras.layers.Layer()])
    stack.compile("sgd", "mse", metrics=["mae"])
    names = {name for item in (graph, stack, stack.layers[0]) for name in vars(item)}
    # A finalized layer has its way of saving as an attribute.
    saving = ("save_own_variables", "load_own_variables")
    return frozenset({*names, *saving, "history", "discrete_parameters", "finalized"})
