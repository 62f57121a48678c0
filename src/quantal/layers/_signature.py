"""The signature of a wrapped layer's call, and symbolic arguments for it."""

import functools
import inspect
from collections.abc import Callable
from typing import Any

import keras


def with_training(signature: inspect.Signature) -> inspect.Signature:
    """Return the signature of a call, with the keyword `training` if it has none."""
    if "training" in signature.parameters:
        return signature
    parameters = list(signature.parameters.values())
    has_keywords = bool(parameters) and parameters[-1].kind is inspect.Parameter.VAR_KEYWORD
    index = len(parameters) - has_keywords
    training = inspect.Parameter("training", inspect.Parameter.KEYWORD_ONLY, default=None)
    return signature.replace(parameters=[*parameters[:index], training, *parameters[index:]])


def with_signature(
    function: Callable[..., Any], signature: inspect.Signature
) -> Callable[..., Any]:
    """Return the function under another signature."""

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    call.__signature__ = signature  # type: ignore[attr-defined]
    return call


def symbolic(arguments: Any) -> Any:
    """Return the arguments of a call, with a symbolic tensor for every tensor and array."""

    def symbol(x: Any) -> Any:
        if not (hasattr(x, "shape") and hasattr(x, "dtype")):
            return x
        # A new one also for a symbolic tensor: the call must not become part of its graph.
        return keras.KerasTensor(x.shape, dtype=keras.backend.standardize_dtype(x.dtype))

    return keras.tree.map_structure(symbol, arguments)
