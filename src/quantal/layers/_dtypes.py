"""The dtype policy of a wrapped layer: variables in float32, whatever it computes in."""

from typing import Any

import keras

from quantal._core.keras_internals.layers import flatten_layers


def set_dtype_policy(layer: keras.Layer, dtype: Any) -> None:
    """Set the dtype policy of a layer and those inside it, with variables in float32.

    Latents move in steps that half precision would round away.

    Args:
        layer: The layer.
        dtype: The policy or its name; None keeps each layer's.

    Raises:
        ValueError: A layer has weights in half precision already.
    """
    for inner in flatten_layers(layer):
        policy = inner.dtype_policy if dtype is None else keras.dtype_policies.get(dtype)
        half = policy.variable_dtype if policy.variable_dtype in ("float16", "bfloat16") else None
        if half is not None:
            if inner.built and inner.weights:
                raise ValueError(
                    f"The layer {inner.name!r} has its weights in {half}. Latents move in "
                    "steps that only float32 holds. Give the layer the dtype "
                    f"'mixed_{half}', which computes in {half} too, before it is built."
                )
            policy = keras.DTypePolicy(f"mixed_{half}")
        if policy != inner.dtype_policy:
            inner.dtype_policy = policy
