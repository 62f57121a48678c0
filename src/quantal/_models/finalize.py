"""Freeze a model's weights on their lists for a small file, and thaw them again."""

import os
import pathlib
from typing import Any, NoReturn

import keras

from quantal._core.by_identity import ByIdentity
from quantal._core.keras_internals.allocation import variables_without_numbers
from quantal._core.keras_internals.layers import flatten_layers, own_variables
from quantal._core.parameter import parameters_of
from quantal._core.processes import written_once
from quantal._models.clone import Clone, clone_replacing, copy_value
from quantal._models.kept_class import class_of, finalize_built, without_compile_config
from quantal._models.parts import Fresh, Replacement
from quantal._models.walk import check_model
from quantal._storage.atomic import check_path, folder_beside, move_files
from quantal._storage.record import record_of, restore
from quantal.layers._first_values import values_follow

_ENDING = ".keras"
"""The ending of Keras's own files."""


def finalize(model: keras.Model, path: str | os.PathLike[str] | None = None) -> keras.Model:
    """Return a model whose discrete weights are final: small in a `.keras` file, not trained.

    With a path it writes the file as well, whole or not at all: it holds packed codes, the
    list and the scale in place of latents, 1 bit a weight for ±1 and 2 for four values.
    `save` of the model that it returns writes the same, but half of it where the disk is full.
    It loads where quantal is installed, on any backend, and predicts the same to the bit (on
    PyTorch a call that records gradients may differ in the last bit, as any frozen layer's).
    Keep the model that you gave for more training.

    Args:
        model: A built model whose layers have `get_config`.
        path: The `.keras` file; its folder exists. None writes nothing.

    Returns:
        A new model, not compiled. The old one is left as it is.

    Raises:
        TypeError: The model is no Keras model.
        ValueError: It is not built, Keras cannot make it again from its config, or the path
            has another ending. Nothing is written then.
        OSError: The file cannot be written; an old one is as it was.

    Example:
    >>> import keras, quantal
    >>> model = keras.Sequential([keras.Input((3,)), quantal.LearnableMultiplier([1, -1])])
    >>> len(quantal.finalize(model).trainable_variables)
    0
    """
    check_model(model)
    if path is None:
        return _finalized(model)
    path = pathlib.Path(path)
    if path.suffix != _ENDING:
        raise ValueError(
            f"The file {os.fspath(path)!r} ends in {path.suffix!r}. Expected {_ENDING!r}, which "
            "Keras's own files have. For the smallest file use quantal.save."
        )
    check_path(path)
    final = _finalized(model)
    with folder_beside(path) as folder:
        final.save(folder / path.name)
        written_once(path, lambda: move_files({folder / path.name: path}))
    return final


def trainable(model: keras.Model) -> keras.Model:
    """Return a trainable copy of a finalized model; other models unchanged."""
    flags = [getattr(layer, "finalized", False) for layer in flatten_layers(model)]
    return _clone(model, False, ByIdentity()).model if any(flags) else model


def _finalized(model: keras.Model) -> keras.Model:
    """Return a finalized copy of a model of which Keras can read files."""
    kept: ByIdentity[None] = ByIdentity()
    clone = _clone(model, True, kept)
    again = _remade(clone.model)
    if [class_of(m) for m in flatten_layers(clone.model)] != [
        class_of(m) for m in flatten_layers(again)
    ]:
        _refuse(clone.model, "the layers that it makes are others")
    # A layer that creates discrete layers in its constructor creates them trainable.
    differing = ByIdentity.of_keys(
        new
        for new, other in zip(flatten_layers(clone.model), flatten_layers(again), strict=True)
        if getattr(new, "finalized", False) and not getattr(other, "finalized", False)
    )
    if differing:
        kept.update((pair.old, None) for pair in clone.layer_pairs if pair.new in differing)
        clone = _clone(model, True, kept)
        again = _remade(clone.model)
    if _slots(clone.model) != _slots(again):
        _refuse(clone.model, "the weights that it makes are others")
    return clone.model


def _clone(model: keras.Model, is_final: bool, kept: ByIdentity[None]) -> Clone:
    """Clone a model with all its discrete layers finalized or none, but for some."""

    def replace(layer: keras.Layer, fresh: Fresh) -> Replacement | None:
        if not _is_discrete(layer) or layer in kept:
            return None
        new = fresh(layer)
        for inner in filter(_is_discrete, flatten_layers(new)):
            if is_final and inner.built:
                finalize_built(inner)
            inner.finalized = is_final
        return Replacement(new, new, list(layer.weights))

    with values_follow():
        clone = clone_replacing(model, replace)
    old_parameters, parameters = (
        ByIdentity([(parameter.latent, parameter) for parameter in parameters_of(m)])
        for m in (model, clone.model)
    )
    listed = [variable for p in parameters.values() for variable in p.variables]

    def set_weights() -> None:
        for old_variable, variable in clone.pairs:
            copy_value(old_variable, variable)
        for old_variable, variable in clone.pairs:
            if variable in parameters:
                restore(parameters[variable], record_of(old_parameters[old_variable]))

    clone.set_state(set_weights, except_for=ByIdentity.of_keys(listed))
    if is_final:
        for variable in listed:
            variable.trainable = False
    return clone


def _is_discrete(layer: keras.Layer) -> bool:
    return hasattr(layer, "discrete_parameters")


def _remade(model: keras.Model) -> keras.Model:
    """Return what Keras makes of a model's config, as it does of a file's.

    Its variables have no numbers, which would be a third of all memory, unless a layer reads them.
    """
    try:
        with variables_without_numbers(lambda variable: None):
            return _deserialized(model)
    except Exception:  # Of any type: the classes may be anybody's. With numbers it is said again.
        pass
    try:
        return _deserialized(model)
    except Exception as error:
        _refuse(model, str(error), error)


def _deserialized(model: keras.Model) -> keras.Model:
    """Return a model of the same config and classes."""
    classes = {kind.__name__: kind for kind in map(class_of, flatten_layers(model))}
    others = {
        name: kind for name, kind in classes.items() if not kind.__module__.startswith("keras.")
    }
    config = without_compile_config(keras.saving.serialize_keras_object(model))
    return keras.saving.deserialize_keras_object(config, others, safe_mode=False)


def _slots(model: keras.Model) -> list[Any]:
    """Return the places that a file has for the variables of a model, layer by layer."""
    return [
        (type(layer), getattr(layer, "finalized", False), [v.shape for v in own_variables(layer)])
        for layer in flatten_layers(model)
    ]


def _refuse(model: keras.Model, reason: str, error: Exception | None = None) -> NoReturn:
    raise ValueError(
        f"Keras cannot make the model {model.name!r} again from its config, so no file of it "
        f"could be loaded: {reason}. Expected get_config and from_config that describe all of "
        "it, in every layer of your own. Of a subclassed model keep the one that you gave: save "
        "it with save_weights, and load that into discretize of the same model."
    ) from error
