"""The network with larq's layers, in Keras 2; see README.md."""

import os

os.environ["TF_USE_LEGACY_KERAS"] = "1"

import larq
import protocol
import tensorflow as tf

QUANTIZERS = {
    "binary": lambda: larq.quantizers.SteSign(),
    "ternary": lambda: larq.quantizers.SteTern(ternary_weight_networks=True),
    "float": lambda: None,
}
SETTINGS = {
    "binary": "QuantDense, ste_sign, weight_clip",
    "ternary": "QuantDense, SteTern(ternary_weight_networks=True), weight_clip",
    "float": "QuantDense without a quantizer",
}


def build(plan: protocol.Plan) -> protocol.Run:
    kind = plan.kind
    tf.keras.utils.set_random_seed(plan.seed)

    def dense(units: int) -> larq.layers.QuantDense:
        return larq.layers.QuantDense(
            units,
            use_bias=False,
            kernel_quantizer=QUANTIZERS[kind](),
            kernel_constraint=None if kind == "float" else "weight_clip",
        )

    def kernel(layer: larq.layers.QuantDense):
        with larq.context.quantized_scope(True):
            return layer.get_weights()[0]

    return protocol.keras_run(tf.keras, dense, kernel, plan, SETTINGS[kind])


protocol.main("larq", "tensorflow", build)
