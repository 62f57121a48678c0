"""Features of Keras that compute with other numbers than a layer's kernel."""

import functools
from typing import Any

import keras

LORA = "LoRA"
QUANTIZATION = "Keras's quantization"


def substitutes_of(layer: keras.Layer) -> list[str]:
    """Return the names of the features that replace a layer's kernel, usually none.

    LoRA adds a product of two narrow matrices; Keras's quantization computes with
    integers. A list would then hold numbers that do not meet the data.
    """
    substitutes = []
    if getattr(layer, "lora_enabled", False):
        substitutes.append(LORA)
    if getattr(layer, "quantization_mode", None) is not None:
        substitutes.append(QUANTIZATION)
    return substitutes


def forbid_substitutes(layer: keras.Layer) -> None:
    """Let a layer whose weights are latents refuse LoRA and quantization before it changes."""
    for method, feature in (("enable_lora", LORA), ("quantize", QUANTIZATION)):
        if hasattr(layer, method):
            # The layer may be of any class, so its methods are replaced on the instance.
            setattr(layer, method, functools.partial(refuse_use, layer.name, feature))


def refuse_use(name: str, feature: str, *args: Any, **kwargs: Any) -> None:
    """Refuse a feature that would put other numbers in place of listed weights.

    Args:
        name: The layer's name.
        feature: The name of the feature.
        *args: What the feature's method was given.
        **kwargs: Alike.

    Raises:
        ValueError: Always.
    """
    raise ValueError(
        f"The layer {name!r} has weights on a list, and {feature} would put other numbers in "
        "their place. Expected plain weights. Apply it to the model that quantal.bake returns."
    )


def refuse_substitute(layer: keras.Layer, advice: str, where: str = "") -> None:
    """Refuse a layer whose kernel is not what meets the data.

    Args:
        layer: The layer to check.
        advice: A sentence that says how to fix it.
        where: Words behind the layer's name in the error, such as `" inside 'wrapper'"`.

    Raises:
        ValueError: The layer uses LoRA or Keras's quantization.
    """
    substitutes = substitutes_of(layer)
    if substitutes:
        raise ValueError(
            f"The layer {layer.name!r}{where} uses {' and '.join(substitutes)}, which puts "
            "other numbers in place of its kernel. Only plain kernels go on a list. " + advice
        )
