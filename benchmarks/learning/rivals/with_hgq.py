"""HGQ2's fixed point at one bit and a sign, and the binary quantizer beneath it; see README.md."""

import os

os.environ.setdefault("KERAS_BACKEND", "jax")

import jax_loop
import protocol
import quantizers
from hgq.config import LayerConfigScope, QuantizerConfig
from hgq.layers import QDense

SETTINGS = {
    "signs": "quantizers.binary_quantize",
    "ternary": "QDense's kernel quantizer, kbi weights frozen at b0=1, i0=1",
}
CANNOT = {
    "four_values": "fixed point is evenly spaced, and this list is not",
    "nine_powers": "fixed point is evenly spaced, and this list is not",
}


def ternary(size: int, count: int):
    """One bit and a sign, symmetric, with the step 1: {-1, 0, 1}."""
    one_bit = QuantizerConfig("kbi", "weight", b0=1, i0=1, br=None, trainable=False)
    with LayerConfigScope(enable_ebops=False, enable_iq=False):
        layer = QDense(count, use_bias=False, kq_conf=one_bit)
    layer.build((None, size))
    return lambda weights: layer.kq(weights.T).T


def train(kind: str, problem: protocol.Problem, rate: float) -> protocol.Trained:
    count, _, size = problem.rows.shape
    start = problem.start((6 / (size + 1)) ** 0.5)
    quantize = quantizers.binary_quantize if kind == "signs" else ternary(size, count)
    weights = jax_loop.train(quantize, start, problem, rate)
    return protocol.Trained(weights, f"{SETTINGS[kind]}, Glorot uniform start")


protocol.main("hgq2", train, CANNOT)
