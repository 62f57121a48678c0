"""Compile a model as another one is: with new optimizers and metrics, and all else the same."""

import inspect
import re
from typing import Any

import keras

from quantal._core.keras_internals.compiled import compile_arguments
from quantal._core.tensors.distributed import whole_array
from quantal._models.attribute_data import keeps_the_same_data

_GIVEN_TWICE = re.compile(r"got multiple values for keyword argument '(\w+)'")
"""What Python says where a function hands on a keyword that it gives itself, too."""


def compile_like(model: keras.Model, new: keras.Model) -> None:
    """Compile a new model as the old one is, with new optimizers and new metrics.

    A class may have a `compile` of its own, with more arguments: its attributes of their names
    say what they were, as the sampler of a language model of keras-hub.

    Args:
        model: A compiled model.
        new: A model of the same class, or of one of Keras's where that could not be kept.

    Raises:
        ValueError: The class's `compile` needs an argument that no attribute tells.
    """
    arguments = compile_arguments(model)
    # Of the class, where a method of an instance would not name `self`.
    parameters = list(inspect.signature(type(new).compile).parameters.values())[1:]
    named = {p.name: p for p in parameters if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)}
    takes_all = any(p.kind is p.VAR_KEYWORD for p in parameters)
    given = {name: value for name, value in arguments.items() if takes_all or name in named}
    for name, parameter in named.items():
        if name in given:
            continue
        if hasattr(model, name):
            given[name] = getattr(model, name)
        elif parameter.default is parameter.empty:
            raise ValueError(
                f"The model {model.name!r} of type {type(model).__name__} was compiled with the "
                f"argument {name!r}, which no attribute of it tells. Expected an attribute of the "
                f"argument's name. Write self.{name} = {name} in the compile of its class."
            )
    _compile(new, {name: _fresh(value) for name, value in given.items()})


def _compile(model: keras.Model, arguments: dict[str, Any]) -> None:
    """Compile a model, without the arguments that its class gives to Keras by itself."""
    while True:
        try:
            model.compile(**arguments)
        except TypeError as error:
            twice = _GIVEN_TWICE.search(str(error))
            if twice is None or twice[1] not in arguments:
                raise
            del arguments[twice[1]]
        else:
            return


def optimizers_of(model: keras.Model) -> list[keras.optimizers.Optimizer]:
    """Return the optimizers that a model was compiled with, those of its class's own too."""
    values = [model.optimizer, *vars(model).values()]
    optimizers = [v for v in values if isinstance(v, keras.optimizers.Optimizer)]
    return list({id(optimizer): optimizer for optimizer in optimizers}.values())


def _fresh(value: Any) -> Any:
    """Return an argument of `compile` with a state of its own, where it has one."""
    if isinstance(value, (keras.optimizers.Optimizer, keras.metrics.Metric)):
        return type(value).from_config(value.get_config())
    if isinstance(value, dict):
        return {name: _fresh(entry) for name, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_fresh(entry) for entry in value]
    is_sampler = hasattr(value, "variables") and hasattr(type(value), "from_config")
    return value if isinstance(value, keras.Layer) or not is_sampler else _continued(value)


def _continued(sampler: Any) -> Any:
    """Return another sampler that draws as one does from now on; the same one if it has no copy."""
    try:
        new = type(sampler).from_config(sampler.get_config())
    except Exception:  # Of any type: the class may be anybody's.
        return sampler
    states, new_states = list(sampler.variables), list(new.variables)
    if len(states) != len(new_states) or not keeps_the_same_data(sampler, new):
        return sampler
    for state, new_state in zip(states, new_states, strict=True):
        new_state.assign(whole_array(state))
    return new
