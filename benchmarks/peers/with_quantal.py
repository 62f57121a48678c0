"""The network with quantal's layers."""

import os

os.environ.setdefault("KERAS_BACKEND", "jax")

import keras
import protocol

import quantal


def build(plan: protocol.Plan) -> protocol.Run:
    keras.utils.set_random_seed(plan.seed)

    def dense(units: int) -> keras.Layer:
        layer = keras.layers.Dense(units, use_bias=False)
        return layer if plan.kind == "float" else quantal.Discrete(layer, plan.kind)

    def kernel(layer: keras.Layer):
        return keras.ops.convert_to_numpy(layer.listed_values)

    return protocol.keras_run(keras, dense, kernel, plan, f"Discrete, {plan.kind}, no scale")


protocol.main("quantal", keras.backend.backend(), build)
