"""The attributes of a wrapped layer as its wrapper gives them: with listed weights."""

import functools
import inspect
from collections.abc import Callable
from typing import Any

import keras

from quantal._core.by_identity import ByIdentity
from quantal._core.keras_internals.calls import builder_that_reads
from quantal._core.parameter import Parameter


def is_shared(name: str) -> bool:
    """Return whether a wrapper gives an attribute of this name from the layer inside it.

    Private names are the layer's, and a model's methods such as `fit` would train or
    compile the model inside without its lists.
    """
    return not name.startswith("_") and name != "layer" and not hasattr(keras.Model, name)


def refuse_in_build(layer: keras.Layer, name: str) -> None:
    """Raise a ValueError if another layer's `build` reads a listed weight.

    It would keep a tensor that stays as it is now, whatever training does to the weight, where
    a plain layer gives it the variable. `SpectralNormalization` does, and assigns to it.
    """
    builder = builder_that_reads()
    if builder is None or builder is layer:
        return
    raise ValueError(
        f"The layer {builder.name!r}, a {type(builder).__name__}, reads {name} of the layer "
        f"{layer.name!r} in its build. It is on a list, and what meets the data is computed from "
        "its latent: what is read now would not follow the training, and cannot be assigned to. "
        "Expected a layer that reads it in its call. Read it there, or leave the weight free."
    )


class ScopedMethod:
    """A scoped method calls a method of a wrapped layer with listed weights.

    Args:
        method: The method of the wrapped layer.
        call: It calls a function with arguments where listed weights stand for latents.
    """

    def __init__(self, method: Callable[..., Any], call: Callable[..., Any]) -> None:
        functools.update_wrapper(self, method)
        self._method, self._call = method, call

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the method."""
        return self._call(self._method, *args, **kwargs)


def with_listed_weights(
    value: Any, parameters: ByIdentity[Parameter], call: Callable[..., Any]
) -> Any:
    """Return an attribute of a wrapped layer with what meets the data in place of latents.

    Args:
        value: The attribute: a latent, a list of some, a method, or anything else.
        parameters: The wrapper's parameters, by their latents.
        call: It calls a function with arguments where listed weights stand for latents.

    Raises:
        AttributeError: The attribute is a layer, or holds some, with latents of its own.
    """
    if inspect.ismethod(value) or isinstance(value, ScopedMethod):
        return ScopedMethod(value, call)
    entries = keras.tree.flatten(value)
    if any(entry in parameters for entry in entries):
        return keras.tree.map_structure(
            lambda entry: parameters[entry].weight if entry in parameters else entry, value
        )
    for layer in entries:
        is_layer = isinstance(layer, keras.Layer)
        if is_layer and any(variable in parameters for variable in layer.variables):
            raise AttributeError(
                f"The attribute is the layer {layer.name!r}, whose weights are latents. Used "
                "outside of its wrapper they would meet the data. Call the wrapper, or take "
                "the weights that meet the data from its discrete_parameters."
            )
    return value
