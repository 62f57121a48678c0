"""Convert models of half precision to float32, in which exported files compute."""

from typing import Any

import keras
from keras import ops

from quantal._core.keras_internals.layers import flatten_layers
from quantal._core.types import Tensor
from quantal._models.layer_state import LayerPair, copy_state

_FLOAT32 = "float32"


def computes_in_float32(model: keras.Model) -> bool:
    """Return whether no layer of a model computes in half precision."""
    return not any(_is_half(layer.compute_dtype) for layer in flatten_layers(model))


def in_float32(model: keras.Model) -> keras.Model:
    """Return a plain model that computes in float32 what one of half precision computes.

    Args:
        model: A built model without layers of quantal's. It is returned as it is where it
            computes in float32.

    Raises:
        ValueError: Keras cannot create the model from its config.
    """
    if computes_in_float32(model):
        return model
    policy = keras.config.dtype_policy()
    try:
        # Layers that a layer creates inside itself take the global policy.
        keras.config.set_dtype_policy(_FLOAT32)
        config = _with_float32(keras.saving.serialize_keras_object(model))
        config.pop("compile_config", None)
        new = keras.saving.deserialize_keras_object(config, safe_mode=False)
    except (NotImplementedError, TypeError, ValueError, KeyError) as error:
        raise ValueError(
            f"The model {model.name!r} computes in half precision, and cannot be created in "
            f"float32 from its config ({error}). Expected get_config in every layer of your own. "
            "Create the model under the policy float32, and take its weights over with set_weights."
        ) from error
    finally:
        keras.config.set_dtype_policy(policy)

    def set_weights() -> None:
        for variable, other in zip(new.weights, model.weights, strict=True):
            variable.assign(ops.cast(other, variable.dtype))

    layers = flatten_layers(new)
    tensors = [_tensors_of(layer) for layer in layers]
    copy_state(map(LayerPair, flatten_layers(model), layers), set_weights)
    for layer, tensors_of_layer in zip(layers, tensors, strict=True):
        # What a layer created in float32 itself is more exact than what was copied to it.
        for name, tensor in _tensors_of(layer).items():
            if _is_half(keras.backend.standardize_dtype(tensor.dtype)):
                setattr(layer, name, tensors_of_layer.get(name, ops.cast(tensor, _FLOAT32)))
    return new


def _tensors_of(layer: keras.Layer) -> dict[str, Tensor]:
    """Return the attributes of a layer that are tensors and no variables, by their names."""
    return {
        name: value
        for name, value in vars(layer).items()
        if ops.is_tensor(value) and not hasattr(value, "assign")
    }


def _is_half(dtype: Any) -> bool:
    return dtype in ("float16", "bfloat16")


def _is_half_policy(entry: Any) -> bool:
    """Return whether an entry of a config names a dtype or policy of half precision."""
    if isinstance(entry, dict):
        entry = entry.get("config", {}).get("name") if entry.get("class_name") else None
    # Not a quantized one, "int8_from_mixed_float16": its layers hold integers.
    return isinstance(entry, str) and entry.endswith("float16") and "_from_" not in entry


def _with_float32(config: Any) -> Any:
    """Return a config with float32 in place of each dtype or policy of half precision."""
    if isinstance(config, dict):
        return {
            name: _FLOAT32
            if ("dtype" in name or "policy" in name) and _is_half_policy(entry)
            else _with_float32(entry)
            for name, entry in config.items()
        }
    if isinstance(config, (list, tuple)):
        return type(config)(map(_with_float32, config))
    return config
