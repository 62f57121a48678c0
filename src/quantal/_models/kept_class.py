"""Models of a class of their own keep it, with layers of them on lists.

Such a class, as those of keras-hub, builds its graph in the constructor, and its config
says nothing of lists. So a model with layers on lists is of a class derived from its own
one, whose config holds that of the class and what stands in place of which layer.
"""

import dataclasses
import functools
import inspect
from collections.abc import Iterator, Mapping
from typing import Any, Self

import keras

from quantal._core.by_identity import ByIdentity
from quantal._core.keras_internals.graph import call_of, graph_outputs, nodes_of
from quantal._core.keras_internals.layers import flatten_layers
from quantal._models.exchange import exchange_layers
from quantal._models.walk import is_container, outermost_layers
from quantal.layers._finalized import freeze
from quantal.layers.discrete import Discrete, unwrapped

_NAME = "ModelOnLists"
_DISCRETE = "quantal>Discrete"
_HINT = "Import quantal before the model is loaded."
"""Keras prints the config where it cannot load it: the class that it names is the user's own."""
_OF_LIBRARIES = ("builtins", "jax", "keras", "tensorflow", "torch")
"""The packages that every model's class derives from."""
_INESSENTIAL = {"build_config", "compile_config", "seed"}
"""The keys of configs that say nothing of what a layer computes: streams of seeds are copied."""


@keras.saving.register_keras_serializable(package="quantal", name=_NAME)
class ModelOnLists:
    """A model on lists is a model of a class of its own that has layers on lists.

    Every model of it is of a class that derives from this one and from the model's own.
    """

    _lists: "_Lists"

    def get_config(self) -> dict[str, Any]:
        """Return the config of the model's own class, and what stands for which layer."""
        kind = class_of(self)
        return {
            "hint": _HINT,
            "model": {
                "module": kind.__module__,
                "class_name": kind.__name__,
                "config": super().get_config(),  # type: ignore[misc]
                "registered_name": keras.saving.get_registered_name(kind),
            },
            "layers": _present(self._lists.entries, self),
        }

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> Self:
        """Return the model that `get_config` described, with latents drawn anew."""
        model = keras.saving.deserialize_keras_object(config["model"], custom_objects)
        return _with_lists(model, config["layers"])

    def __reduce__(self) -> Any:
        """Return what pickle makes the model from: the loader of its own class, and a file."""
        reduced: Any = super().__reduce__()
        loader, arguments = reduced
        return getattr(class_of(self), loader.__name__), arguments


@dataclasses.dataclass(frozen=True)
class _Lists:
    """Lists hold an entry for each layer of a model that is on some, as JSON can hold it."""

    # No tuple or list, which would pass for data that a user has set.

    entries: list[dict[str, Any]]


def class_of(model: Any) -> type:
    """Return the class of a model, without what makes it one on lists."""
    kind = type(model)
    return kind.__mro__[2] if issubclass(kind, ModelOnLists) else kind


def has_class_of_its_own(model: keras.Model) -> bool:
    """Return whether a graph or stack of layers is of a class that makes it in its own way."""
    kind = class_of(model)
    if not is_container(model) or kind.__module__.startswith("keras."):
        return False
    # Classes with the constructor of functional models take any graph of layers. Of a class that
    # inherits its constructor, some versions of Python say what Keras's __new__ takes.
    constructor = inspect.signature(kind.__init__)  # type: ignore[misc]
    parameters = list(constructor.parameters.values())[1:]
    is_functional = [parameter.name for parameter in parameters[:2]] == ["inputs", "outputs"]
    takes_all = {parameter.kind for parameter in parameters} == {
        inspect.Parameter.VAR_POSITIONAL,
        inspect.Parameter.VAR_KEYWORD,
    }
    return isinstance(model, keras.Sequential) or not (is_functional or takes_all)


def remade(model: keras.Model) -> keras.Model | None:
    """Return a model that a model's own class makes from its config, on no list.

    Its weights are new. None where the class cannot make it again, layer by layer.
    """
    try:
        described = without_compile_config(keras.saving.serialize_keras_object(model))
        config = _on_no_list(described)["config"]
        kind: Any = class_of(model)
        new: Any = kind.from_config(config)
    except Exception:  # Whatever a class raises: the graph is cloned then.
        return None
    if not (isinstance(new, kind) and new.built and _are_alike(model, new)):
        return None
    return new


def _are_alike(model: keras.Model, new: keras.Model) -> bool:
    """Return whether two models have the same layers, and share none."""
    shapes, new_shapes = ([tuple(t.shape) for t in graph_outputs(m)] for m in (model, new))
    layers, new_layers = ([unwrapped(layer) for layer in outermost_layers(m)] for m in (model, new))
    containers, new_containers = ([class_of(c) for c in containers_of(m)] for m in (model, new))
    kinds, new_kinds = (list(map(type, some)) for some in (layers, new_layers))
    old = ByIdentity.of_keys(flatten_layers(model))
    return (
        (shapes, kinds, containers) == (new_shapes, new_kinds, new_containers)
        and not any(layer in old for layer in flatten_layers(new))
        and all(map(_are_configured_alike, layers, new_layers))
        and _calls(model) == _calls(new)
    )


def _are_configured_alike(layer: keras.Layer, new: keras.Layer) -> bool:
    """Return whether the configs of two layers, as far as they have some, say the same."""
    try:
        configs = [_essential(item.get_config()) for item in (layer, new)]
    except Exception:  # Of any type: the class need not have one.
        return True
    return bool(configs[0] == configs[1])


def _essential(config: Any) -> Any:
    """Return what a config says of a layer's computation: no names, flags or first numbers."""
    if isinstance(config, dict):
        is_of_a_layer = {"name", "trainable"} <= config.keys()
        left_out = _INESSENTIAL | ({"name", "trainable"} if is_of_a_layer else set())
        return {
            key: _essential(value)
            for key, value in config.items()
            if not (key in left_out or str(key).endswith("initializer"))
        }
    if isinstance(config, (list, tuple)):
        return [_essential(entry) for entry in config]
    return config if isinstance(config, (str, int, float, type(None))) else type(config)


def _calls(model: keras.Model) -> list[Any]:
    """Return which calls of a model's graphs compute with the outputs of which others, and how."""
    nodes = [node for container in containers_of(model) for node in nodes_of(container)]
    index_of = ByIdentity((node, index) for index, node in enumerate(nodes))

    def described(argument: Any) -> Any:
        if not isinstance(argument, keras.KerasTensor):
            return _essential(argument)
        node = call_of(argument).node
        position = next((i for i, output in enumerate(node.outputs) if output is argument), None)
        return index_of.get(node), position

    return [
        keras.tree.map_structure(described, (node.arguments.args, node.arguments.kwargs))
        for node in nodes
    ]


def methods_of_its_own(model: keras.Model) -> list[str]:
    """Return the names of what a model's class has besides its constructor and config."""
    kinds = class_of(model).__mro__
    kinds_of_users = [kind for kind in kinds if kind.__module__.split(".")[0] not in _OF_LIBRARIES]
    names = {name for kind in kinds_of_users for name in vars(kind)}
    described = {"get_config", "from_config"}
    return sorted(n for n in names - described if not n.startswith("_"))


def containers_of(model: keras.Model) -> list[keras.Model]:
    """Return a model and the models inside it that `outermost_layers` descends into."""
    seen: ByIdentity[None] = ByIdentity()

    def walk(layer: keras.Layer) -> Iterator[keras.Model]:
        if is_container(layer) and layer not in seen:
            seen[layer] = None
            yield layer
            for inner in layer.layers:
                yield from walk(inner)

    return list(walk(model))


def put_on_lists(model: keras.Model, replacements: ByIdentity[keras.Layer]) -> None:
    """Put wrappers in the places of layers, and let the model's config tell of it.

    Args:
        model: A model of a class of its own, changed in place, class and all.
        replacements: `Discrete` wrappers by the layers of the model that they wrap, or
            finalized layers by themselves.
    """
    entries = {
        id(container): [
            _entry(index, layer, replacements[layer])
            for index, layer in enumerate(outermost_layers(container))
            if layer in replacements
        ]
        for container in containers_of(model)
    }
    exchange_layers(
        model, ByIdentity([(old, new) for old, new in replacements.items() if old is not new])
    )
    for container in containers_of(model):
        if entries[id(container)] and has_class_of_its_own(container):
            _become_model_on_lists(container, entries[id(container)])


def rewrapped(layer: keras.Layer, inner: keras.Layer) -> keras.Layer:
    """Return a layer wrapped as another one is, in a `Discrete` for each of its lists."""
    if not isinstance(layer, Discrete) or isinstance(inner, Discrete):
        return inner
    return _wrapped(rewrapped(layer.layer, inner), _arguments(layer))


def _with_lists(model: keras.Model, entries: list[dict[str, Any]]) -> keras.Model:
    """Return a model that its class made from its config, with layers put on lists."""
    layers = list(outermost_layers(model))
    replacements: ByIdentity[keras.Layer] = ByIdentity()
    for entry in entries:
        new = layer = layers[entry["index"]]
        if entry["finalized"] and hasattr(layer, "discrete_parameters"):
            finalize_built(layer)
        # A model inside may have put it on its lists already.
        if not isinstance(layer, Discrete):
            for arguments in entry["wrappers"]:
                new = _wrapped(new, arguments)
        if new is not layer:
            new.build()
        replacements[layer] = new
    put_on_lists(model, replacements)
    return model


def finalize_built(layer: Any) -> None:
    """Finalize a built discrete layer in place."""
    layer.finalized = True
    inner = getattr(layer, "layer", None)
    freeze(layer.discrete_parameters, [] if inner is None else flatten_layers(inner))


def _entry(index: int, layer: keras.Layer, new: Any) -> dict[str, Any]:
    """Return what a config tells of a layer on lists."""
    wrappers: list[dict[str, Any]] = []
    wrapper = new
    while wrapper is not layer:
        wrappers.insert(0, _arguments(wrapper))
        wrapper = wrapper.layer
    return {"index": index, "wrappers": wrappers, "finalized": new.finalized and not wrappers}


def _present(entries: list[dict[str, Any]], model: Any) -> list[dict[str, Any]]:
    """Return entries with the present arguments of the wrappers: a user may have frozen one."""
    layers = list(outermost_layers(model))
    present = []
    for entry in entries:
        wrapper: Any = layers[entry["index"]]
        arguments: list[dict[str, Any]] = []
        for _ in entry["wrappers"]:
            arguments.insert(0, _arguments(wrapper))
            wrapper = wrapper.layer
        present.append({**entry, "wrappers": arguments})
    return present


def _arguments(wrapper: Discrete) -> dict[str, Any]:
    """Return the arguments of a wrapper but for the layer in it, which its model's class makes."""
    return {
        **wrapper.get_list_config(),
        "weight_names": list(wrapper.weight_names),
        "name": wrapper.name,
        "trainable": wrapper.trainable,
    }


def _wrapped(layer: keras.Layer, arguments: Mapping[str, Any]) -> Discrete:
    """Return a layer in a wrapper of the arguments that `_arguments` returned."""
    rest = {name: value for name, value in arguments.items() if name != "finalized"}
    wrapper = Discrete(layer, **rest)
    wrapper.finalized = arguments.get("finalized", False)
    return wrapper


def _become_model_on_lists(model: Any, entries: list[dict[str, Any]]) -> None:
    model.__class__ = _derived(class_of(model))
    vars(model)["_lists"] = _Lists(entries)


@functools.cache
def _derived(kind: type) -> type:
    """Return the class of models of a class that have layers on lists."""
    register = keras.saving.register_keras_serializable(package="quantal", name=_NAME)
    names = {"__module__": kind.__module__, "__qualname__": kind.__qualname__}
    derived: type = register(type(kind.__name__, (ModelOnLists, kind), names))
    # All of them have this one name in files, by which `ModelOnLists` is looked up.
    register(ModelOnLists)
    return derived


def _on_no_list(config: Any) -> Any:
    """Return a serialized model with its own classes and plain layers at every depth."""
    if isinstance(config, dict):
        if config.get("registered_name") == f"quantal>{_NAME}":
            return _on_no_list(config["config"]["model"])
        if config.get("registered_name") == _DISCRETE:
            return _on_no_list(config["config"]["layer"])
        return {key: _on_no_list(value) for key, value in config.items()}
    if isinstance(config, (list, tuple)):
        return type(config)(map(_on_no_list, config))
    return config


def without_compile_config(config: Any) -> Any:
    """Return a serialized model without what it and models inside it were compiled with."""
    if isinstance(config, dict):
        kept = {key: value for key, value in config.items() if key != "compile_config"}
        return {key: without_compile_config(value) for key, value in kept.items()}
    if isinstance(config, (list, tuple)):
        return type(config)(map(without_compile_config, config))
    return config
