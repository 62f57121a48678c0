"""A fit is running: its data, its callbacks and the values that it has moved."""

import contextlib
import sys
from collections.abc import Generator
from types import FrameType
from typing import Any, NamedTuple

import keras
from keras.src.trainers.epoch_iterator import EpochIterator


class Fit(NamedTuple):
    """A fit that is running, as far as Keras does not show it to its callbacks.

    Attributes:
        data: The adapter of the training data; `batches_of_fit` reads it, and `num_batches` is None
            where these have no end, or one that is not known.
        callbacks: The list of all callbacks, in the order in which they are called.
        validation: The arguments of `evaluate` for the validation data; None if there are none.
        is_silent: Whether it prints nothing.
    """

    data: Any
    callbacks: keras.callbacks.CallbackList
    validation: dict[str, Any] | None
    is_silent: bool = False


def fit_around() -> Fit | None:
    """Return the fit whose callback asks; None outside of any.

    Keras gives callbacks neither data nor each other, and keeps them in no attribute: they
    are variables of `fit`.
    """
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        names = frame.f_locals
        iterator, callbacks = names.get("epoch_iterator"), names.get("callbacks")
        if isinstance(iterator, EpochIterator) and isinstance(
            callbacks, keras.callbacks.CallbackList
        ):
            validation = None
            if names.get("validation_data") is not None:
                validation = {
                    "x": names["val_x"],
                    "y": names["val_y"],
                    "sample_weight": names["val_sample_weight"],
                    "batch_size": names["validation_batch_size"] or names["batch_size"],
                    "steps": names["validation_steps"],
                }
            is_silent = str(names.get("verbose", 0)) == "0"
            return Fit(iterator.data_adapter, callbacks, validation, is_silent)
        frame = frame.f_back
    return None


def batches_of_fit(data: Any) -> Generator[Any, None, None]:
    """Yield batches of the training data of a fit, in its own order: tuples of NumPy arrays.

    Args:
        data: The attribute of a `Fit`.
    """
    data.on_epoch_begin()
    try:
        yield from data.get_numpy_iterator()
    finally:
        data.on_epoch_end()


def trained_values(model: keras.Model) -> list[tuple[keras.Variable, Any]]:
    """Return the variables that training moves with their present values, also amid an epoch.

    JAX's trainer keeps the values of an epoch to itself, and takes those of the variables away.
    They are valid until the next step: compute with them, and do not keep them.
    """
    return _present_values(model, "trainable_variables")


def present_state(model: keras.Model) -> contextlib.AbstractContextManager[Any]:
    """Return a context in which variables have their present values, also amid an epoch.

    What is assigned to a variable within it is lost on JAX.
    """
    if not _state_of_trainer(model):
        return contextlib.nullcontext()
    kinds = ("trainable_variables", "non_trainable_variables")
    pairs = [pair for kind in kinds for pair in _present_values(model, kind)]
    return keras.StatelessScope(state_mapping=pairs)


def _state_of_trainer(model: keras.Model) -> dict[str, Any]:
    """Return what JAX's trainer has in place of variables; nothing where these have it back.

    A callback that asks for its model, or that evaluates another model of the same layers, gives
    the variables their values back, and the arrays of the trainer may be gone.
    """
    if getattr(model, "_jax_state_synced", True):
        return {}
    return getattr(model, "_jax_state", None) or {}


def _present_values(model: keras.Model, kind: str) -> list[tuple[keras.Variable, Any]]:
    """Return the variables in one of a model's lists with their present values."""
    variables = getattr(model, kind)
    state = _state_of_trainer(model)
    values = state.get(kind) or [variable._value for variable in variables]
    return list(zip(variables, values, strict=True))
