"""Names, ends of paths and positions say which weights of a layer go on a list."""

from collections.abc import Sequence
from typing import Any, NoReturn

import keras

from quantal._core.by_identity import ByIdentity
from quantal._core.keras_internals.layers import flatten_layers
from quantal._core.latent_name import weight_path

HOW_TO_LIST_ACTIVATIONS = (
    "For binary activations write a layer whose call returns "
    "quantal.estimators.StraightThrough('clip')(inputs, [-1, 1]); see docs/from/larq.md."
)
"""How to have what this layer has not."""


def checked_names(weight_names: Any) -> tuple[str | int, ...]:
    """Return names and positions of weights as a tuple.

    Raises:
        TypeError: They are no names and no positions.
    """
    is_one = isinstance(weight_names, (str, int))
    names = (weight_names,) if is_one else tuple(weight_names or ())

    def is_name(name: Any) -> bool:
        if isinstance(name, str):
            return bool(name.strip("/"))
        return isinstance(name, int) and not isinstance(name, bool) and name >= 0

    if not names or not all(is_name(name) for name in names):
        raise TypeError(
            f"weight_names is {weight_names!r}. Expected the name of a weight or several names. "
            "Give, for example, 'kernel' or ('kernel', 'recurrent_kernel')."
        )
    return tuple(name.strip("/") if isinstance(name, str) else name for name in names)


def variables_named(layer: keras.Layer, weight_names: Sequence[str | int]) -> list[keras.Variable]:
    """Return the variables of a layer that names mean, so far.

    Those that a discrete layer inside it has on a list already are not among them.

    Args:
        layer: The layer, without wrappers around it.
        weight_names: Names, ends of paths, and positions among its weights.
    """
    taken = ByIdentity.of_keys(
        parameter.latent
        for inner in flatten_layers(layer)
        for parameter in getattr(inner, "discrete_parameters", None) or ()
    )
    names = [f"/{name}" for name in weight_names if isinstance(name, str)]

    def is_named(variable: keras.Variable) -> bool:
        paths = (variable.path, weight_path(variable))
        return any(f"/{path}".endswith(name) for path in paths for name in names)

    return [
        variable
        for position, variable in enumerate(layer.weights)
        if variable not in taken and (position in weight_names or is_named(variable))
    ]


def refuse_no_weight(layer: keras.Layer, weight_names: Sequence[str | int]) -> NoReturn:
    """Refuse names that mean no weight of a layer.

    Raises:
        ValueError: Always; it names the weights that there are.
    """
    names = [weight_path(variable) for variable in layer.weights]
    if not names:
        raise ValueError(
            f"The layer {layer.name!r} of type {type(layer).__name__} has no "
            "weights. Expected a layer with some: Discrete puts weights on lists, and "
            f"activations stay as they are. {HOW_TO_LIST_ACTIVATIONS}"
        )
    raise ValueError(
        f"weight_names is {list(weight_names)}, but the layer "
        f"{layer.name!r} has no such weight. It has: {', '.join(names)}. Give a name, or "
        "the end of a path, of these."
    )
