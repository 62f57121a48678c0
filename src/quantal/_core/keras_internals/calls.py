"""Keras knows which layer is called, or built, around the code that asks."""

import sys
from types import FrameType
from typing import Any

import keras
from keras.src.backend.common import global_state


def called_layer() -> keras.Layer | None:
    """Return the outermost layer that is called now, which is most often a model."""
    context = global_state.get_global_attribute("current_call_ctx")
    return None if context is None else context.entry_layer


def training_of_call() -> bool:
    """Return whether the call of a layer trains within which this is asked.

    Outside the call of any layer it is False.
    """
    context = global_state.get_global_attribute("current_call_ctx")
    return context is not None and bool(context.get_value("training"))


def is_inherited(training: bool | None) -> bool:
    """Return whether a layer that is called now inherits this argument from the call around it."""
    context = global_state.get_global_attribute("current_call_ctx")
    return (
        training is not None and context is not None and context.get_value("training") is training
    )


def mask_of(tensor: Any) -> Any:
    """Return the mask that goes with a tensor in a layer's call, or None."""
    return keras.src.backend.get_keras_mask(tensor)


def builder_that_reads() -> keras.Layer | None:
    """Return the layer whose `build` reads an attribute of another one; None if none does.

    It looks past the frames of this library: who reads is the first one behind them.
    """
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and frame.f_globals.get("__name__", "").startswith("quantal."):
        frame = frame.f_back
    if frame is None or frame.f_code.co_name != "build":
        return None
    layer = frame.f_locals.get(frame.f_code.co_varnames[0])
    return layer if isinstance(layer, keras.Layer) else None
