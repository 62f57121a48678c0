"""Freeze a model's weights on their lists for a small file, and thaw them again."""

from typing import Any

import keras

from quantal._core.by_identity import ByIdentity
from quantal._core.keras_internals import flatten_layers
from quantal._core.parameter import parameters_of
from quantal._models.clone import copy_value
from quantal._models.layer_state import LayerPair, copy_state
from quantal._models.walk import check_model
from quantal._storage.record import record_of, restore

_DISCRETE_LAYERS = ("quantal>Discrete", "quantal>LearnableMultiplier")
"""The names under which Keras knows the layers that can be finalized."""


def finalize(model: keras.Model) -> keras.Model:
    """Return a model whose discrete weights are final: small in a `.keras` file, not trained.

    Use it on a trained model before `model.save`: the file then holds packed codes, the
    list and the scale in place of latents, 1 bit a weight for ±1 and 2 for four values.
    It loads where quantal is installed, on any backend, and predicts the same to the bit.
    Keep the model that you gave for more training.

    Args:
        model: A built model whose layers have `get_config`.

    Returns:
        A new model, not compiled. The old one is left as it is.

    Raises:
        TypeError: The model is no Keras model.
        ValueError: It is not built, or Keras cannot describe its architecture.

    Example:
    >>> import keras, quantal
    >>> model = keras.Sequential([keras.Input((3,)), quantal.LearnableMultiplier([1, -1])])
    >>> len(quantal.finalize(model).trainable_variables)
    0
    """
    check_model(model)
    return _copy(model, is_final=True)


def trainable(model: keras.Model) -> keras.Model:
    """Return a trainable copy of a finalized model; other models unchanged."""
    flags = [getattr(layer, "finalized", False) for layer in flatten_layers(model)]
    return _copy(model, is_final=False) if any(flags) else model


def _copy(model: keras.Model, is_final: bool) -> keras.Model:
    """Copy a model by its config, with all its discrete layers finalized or none."""
    try:
        config = keras.saving.serialize_keras_object(model)
    except NotImplementedError as error:
        raise ValueError(
            f"Keras cannot describe the architecture of {model.name!r} ({error}). Expected "
            "get_config in every layer of your own. Add it, as model.save asks for, too."
        ) from error
    config.pop("compile_config", None)
    _mark(config, is_final)
    new = keras.saving.deserialize_keras_object(config, safe_mode=False)

    def set_weights() -> None:
        for old_parameter, parameter in zip(parameters_of(model), parameters_of(new), strict=True):
            restore(parameter, record_of(old_parameter))
        for old_variable, variable in zip(_free_weights(model), _free_weights(new), strict=True):
            copy_value(old_variable, variable)

    pairs = map(LayerPair, flatten_layers(model), flatten_layers(new))
    copy_state(pairs, set_weights)
    if is_final:
        for variable in (v for parameter in parameters_of(new) for v in parameter.variables):
            variable.trainable = False
    return new


def _mark(config: Any, is_final: bool) -> None:
    """Write into a model's config whether its discrete layers are finalized."""
    if isinstance(config, dict):
        if config.get("registered_name") in _DISCRETE_LAYERS:
            config["config"].pop("finalized", None)
            if is_final:
                config["config"]["finalized"] = True
        for entry in config.values():
            _mark(entry, is_final)
    elif isinstance(config, (list, tuple)):
        for entry in config:
            _mark(entry, is_final)


def _free_weights(model: keras.Model) -> list[keras.Variable]:
    """Return the weights that belong to no parameter, in the order of `model.weights`."""
    listed = ByIdentity.of_keys(
        variable
        for parameter in parameters_of(model)
        for variable in (parameter.latent, *parameter.other_variables)
    )
    return [variable for variable in model.weights if variable not in listed]
