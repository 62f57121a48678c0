"""The network with qkeras-v3's layers; see README.md."""

import os

os.environ.setdefault("KERAS_BACKEND", "jax")

import keras
import protocol
import qkeras

# What the layers make of `binary()` and `ternary()`: one power of two an output as scale.
QUANTIZERS = {
    "binary": lambda: qkeras.binary(alpha="auto_po2"),
    "ternary": lambda: qkeras.ternary(alpha="auto_po2"),
    "float": lambda: None,
}


def build(plan: protocol.Plan) -> protocol.Run:
    kind = plan.kind
    keras.utils.set_random_seed(plan.seed)

    def dense(units: int) -> qkeras.QDense:
        return qkeras.QDense(units, use_bias=False, kernel_quantizer=QUANTIZERS[kind]())

    def kernel(layer: qkeras.QDense):
        quantize = layer.kernel_quantizer_internal
        return layer.kernel if quantize is None else quantize(layer.kernel)

    return protocol.keras_run(
        keras, dense, kernel, plan, f"QDense, kernel_quantizer={QUANTIZERS[kind]()}"
    )


protocol.main("qkeras-v3", keras.backend.backend(), build)
