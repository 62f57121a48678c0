"""The network with HGQ2's layers, and with the binary quantizer it builds on; see README.md."""

import os

os.environ.setdefault("KERAS_BACKEND", "jax")

import keras
import protocol
import quantizers
from hgq.config import LayerConfigScope, QuantizerConfig
from hgq.layers import QDense

SETTINGS = {
    "binary": "keras Dense with quantizers.binary_quantize",
    "ternary": "QDense, kbi weights frozen at b0=1, i0=-3 for the kernel",
    "float": "keras Dense",
}


class BinaryDense(keras.layers.Dense):
    """HGQ2's layers have no {-1, 1}; the function that they leave unused has."""

    @property
    def qkernel(self):
        return quantizers.binary_quantize(keras.ops.convert_to_tensor(self.kernel))

    def call(self, inputs):
        return keras.ops.matmul(inputs, self.qkernel)


def ternary_dense(units: int) -> QDense:
    """One bit and a sign, symmetric: {-1, 0, 1} times 2**-4, the power of two near the weights."""
    one_bit = QuantizerConfig("kbi", "weight", b0=1, i0=-3, br=None, trainable=False)
    with LayerConfigScope(enable_ebops=False, enable_iq=False):
        return QDense(units, use_bias=False, kq_conf=one_bit)


DENSES = {
    "binary": lambda units: BinaryDense(units, use_bias=False),
    "ternary": ternary_dense,
    "float": lambda units: keras.layers.Dense(units, use_bias=False),
}


def build(plan: protocol.Plan) -> protocol.Run:
    kind = plan.kind
    keras.utils.set_random_seed(plan.seed)

    def kernel(layer: keras.layers.Dense):
        return layer.kernel if kind == "float" else layer.qkernel

    return protocol.keras_run(keras, DENSES[kind], kernel, plan, SETTINGS[kind])


protocol.main("hgq2", keras.backend.backend(), build)
