"""A model built from its config without numbers: as large as it says, and as small as its text.

Files are loaded this way, and a model that is saved is proved this way: nothing is drawn
that is overwritten at once, and a size that no file backs takes no memory.
"""

import json
import math
import re
from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import keras

from quantal._core.by_identity import ByIdentity
from quantal._core.keras_internals.allocation import (
    allocate,
    is_allocated,
    set_initializer,
    variables_without_numbers,
)
from quantal._core.keras_internals.layers import finish_building, flatten_layers
from quantal._core.keras_internals.scopes import safe_deserialization
from quantal._core.keras_internals.variables import lay_out, set_path
from quantal._core.latent_name import paths_in_layouts
from quantal._core.parameter import Parameter, parameters_of
from quantal._core.types import Tensor

_NUMBERED = re.compile(r"#\d+$")
"""The end of a path that is not the first of its kind."""
_LONGEST_CAUSE = 300
"""The most characters of another program's message that are repeated."""
_UNKNOWN = re.compile(r"Could not locate (?:class|function) '([^']+)'")
"""What Keras says of a class or function that is not registered."""
_CODE = ("__lambda__", "TorchModuleWrapper", "TFSMLayer", "JaxLayer", "FlaxLayer")
"""The classes of a config that stand for code, besides `Lambda`."""

Slot: TypeAlias = Parameter | keras.Variable
"""A slot is what a file has numbers for: a parameter, or a weight that is on no list."""


class Skeleton(NamedTuple):
    """A skeleton is a model whose variables have shapes and no numbers yet.

    Attributes:
        model: The model.
        slots: Its parameters and its other weights, in the order of the model's weights.
        variables: All its variables, the states of estimators and seeds too.
    """

    model: keras.Model
    slots: list[Slot]
    variables: list[keras.Variable]

    def allocate(self) -> None:
        """Give every variable memory: what a file has is 0 or 1, the rest its first numbers."""
        for slot in self.slots:
            if isinstance(slot, keras.Variable):
                _begin_with(slot, keras.ops.zeros)
                continue
            _begin_with(slot.latent, keras.ops.zeros)
            # Where several devices share it, as the layer itself is built under its first path.
            effective = [] if slot.effective is None else slot.effective.of_each_element
            for variable in [slot.latent, *effective]:
                lay_out(variable, paths_in_layouts(slot.latent))
            if slot.scale_state is not None:
                _begin_with(slot.scale_state.start, keras.ops.ones)
        for variable in self.variables:
            if not is_allocated(variable):
                allocate(variable)
        for layer in flatten_layers(self.model):
            finish_building(layer)


def skeleton_of(config: Any, most_numbers: int | None = None) -> Skeleton:
    """Build a model from its config, with variables that have no numbers.

    No code of the config is run. Classes that are registered with Keras are used.

    Args:
        config: What `config_of` returned for a model. Keras changes it.
        most_numbers: How many numbers the variables may have together; None for any.

    Raises:
        ValueError: The config describes something else, or more numbers.
        Exception: Keras and the layers' constructors raise errors of many kinds.
    """
    total = 0

    def count(variable: keras.Variable) -> None:
        nonlocal total
        total += math.prod(variable.shape)
        if most_numbers is not None and total > most_numbers:
            raise ValueError(
                f"{variable.path!r} has the shape {tuple(variable.shape)}, more than the "
                f"{most_numbers} numbers that the weights have together"
            )

    with safe_deserialization(), variables_without_numbers(count) as variables:
        model = keras.saving.deserialize_keras_object(config)
    if not isinstance(model, keras.Model):
        raise ValueError("it is no model")
    if not model.built:
        raise ValueError("it is a model that is not built")
    return Skeleton(model, slots_of(model), list(variables))


def slots_of(model: keras.Model) -> list[Slot]:
    """Return a model's parameters and its other weights, in the order of its weights."""
    parameters = ByIdentity([(p.latent, p) for p in parameters_of(model)])
    skipped = ByIdentity([(v, None) for p in parameters.values() for v in p.other_variables])
    return [
        parameters.get(variable, variable) for variable in model.weights if variable not in skipped
    ]


def name_slots(slots: list[Slot], names: list[str]) -> None:
    """Give slots the paths under which they were saved; Keras may build a model under others.

    Args:
        slots: The slots of a skeleton.
        names: A path for each, with a number behind it where it is not the first of its
            path, as `unused_name` appends it.
    """
    for index, (slot, name) in enumerate(zip(slots, names, strict=True)):
        first = _NUMBERED.sub("", name)
        path = first if first in names[:index] else name
        (old, _, last), (new, _, last_of_name) = slot.path.rpartition("/"), path.rpartition("/")
        if last != last_of_name:
            continue
        others = [slot.latent, *slot.other_variables] if isinstance(slot, Parameter) else [slot]
        # A model that is built afresh may lack the names of those around it.
        around = new.removesuffix(old) if old and new.endswith(f"/{old}") else ""
        for variable in others:
            folder, _, own_name = variable.path.rpartition("/")
            folder = new if folder == old else f"{around}{folder}"
            set_path(variable, "/".join(filter(None, (folder, own_name))))


def config_of(model: keras.Model) -> dict[str, Any]:
    """Return a model's config as Keras serializes it, without what anything was compiled with.

    It is what JSON makes of it: lists for tuples, for example.

    Raises:
        ValueError: Keras cannot describe the model.
    """
    compiled = [m for m in flatten_layers(model) if getattr(m, "compiled", False)]
    try:
        # A loss or an optimizer that Keras cannot describe is no part of the architecture.
        for inner in compiled:
            inner.compiled = False
        config = json.loads(json.dumps(keras.saving.serialize_keras_object(model)))
    except (NotImplementedError, AttributeError, TypeError, ValueError) as error:
        raise ValueError(
            f"Keras cannot tell the architecture of {model.name!r} ({error}). Expected "
            "get_config in every layer of your own. Add it, as model.save asks for, too."
        ) from error
    finally:
        for inner in compiled:
            inner.compiled = True
    return _not_compiled(config)


def first_difference(slots: list[Slot], again: list[Slot]) -> str:
    """Return how a model's slots differ from those of the same model made again, or ""."""
    for one, other in zip(slots, again, strict=False):
        if _form_of(one) != _form_of(other):
            return f"{one.path!r} is {_described(one)}, and {other.path!r} {_described(other)}"
    if len(slots) != len(again):
        extra = (slots if len(slots) > len(again) else again)[min(len(slots), len(again))]
        return f"it has {len(slots)} weights, and then {len(again)}: {extra.path!r} differs"
    return ""


def cause_of(error: BaseException) -> str:
    """Return what an error of Keras says, without the configs that it repeats."""
    text = str(error).rsplit("Exception encountered: ", 1)[-1]
    text = " ".join(text.split("Full object config", 1)[0].split("config={", 1)[0].split())
    text = text.rstrip(".")
    if len(text) > _LONGEST_CAUSE:
        text = text[:_LONGEST_CAUSE] + " ..."
    return f"{type(error).__name__}: {text}"


def first_error(error: BaseException) -> BaseException:
    """Return the error that others were raised from; Keras's repeat the config of the model."""
    while error.__cause__ is not None or error.__context__ is not None:
        error = error.__cause__ or error.__context__ or error
    return error


def unknown_class(error: BaseException) -> str | None:
    """Return the name of the class or function that Keras did not find; None for other errors."""
    match = _UNKNOWN.search(str(error))
    return match[1] if match else None


def names_of_code(config: Any, layer: str = "") -> list[str]:
    """Return the names of the layers in a config that hold code."""
    if isinstance(config, list):
        return [name for entry in config for name in names_of_code(entry, layer)]
    if not isinstance(config, dict):
        return []
    if config.get("class_name") in _CODE:
        return [repr(layer or config["class_name"])]
    inner = config.get("config")
    if "class_name" in config and isinstance(inner, dict) and isinstance(inner.get("name"), str):
        layer = inner["name"]
    if config.get("class_name") == "Lambda":
        return [repr(layer)]
    return [name for entry in config.values() for name in names_of_code(entry, layer)]


def _form_of(slot: Slot) -> tuple[Any, ...]:
    """Return what a slot and the same slot made again have in common."""
    if isinstance(slot, Parameter):
        numbers = slot.values.numbers
        return Parameter, slot.shape, numbers.shape, slot.scale_state is None
    return keras.Variable, tuple(slot.shape), keras.backend.standardize_dtype(slot.dtype)


def _described(slot: Slot) -> str:
    if isinstance(slot, Parameter):
        return f"on a list, of shape {slot.shape}"
    return f"on no list, {slot.dtype} of shape {tuple(slot.shape)}"


def _not_compiled(config: Any) -> Any:
    """Return a config without the `compile_config` of any object in it."""
    if isinstance(config, list):
        return [_not_compiled(entry) for entry in config]
    if not isinstance(config, dict):
        return config
    skipped = {"compile_config"} if "class_name" in config else set()
    return {key: _not_compiled(entry) for key, entry in config.items() if key not in skipped}


def _begin_with(variable: keras.Variable, numbers: Callable[..., Tensor]) -> None:
    if not is_allocated(variable):
        set_initializer(variable, lambda shape, dtype=None: numbers(shape, dtype))
