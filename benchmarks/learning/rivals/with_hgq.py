"""HGQ2's fixed point at one bit and a sign, and the quantizers beneath it; see README.md."""

import os

os.environ.setdefault("KERAS_BACKEND", "jax")

import jax_loop
import numpy as np
import protocol
import quantizers
from hgq.config import LayerConfigScope, QuantizerConfig
from hgq.layers import QDense


def fixed_point(kind: str, problem: protocol.Problem, rate: float) -> np.ndarray:
    """One bit and a sign, symmetric, with the step 1: {-1, 0, 1}."""
    count, _, size = problem.rows.shape
    one_bit = QuantizerConfig("kbi", "weight", b0=1, i0=1, br=None, trainable=False)
    with LayerConfigScope(enable_ebops=False, enable_iq=False):
        layer = QDense(count, use_bias=False, kq_conf=one_bit)
    layer.build((None, size))
    start = problem.start(protocol.glorot(problem))
    return jax_loop.train(lambda weights: layer.kq(weights.T).T, start, problem, rate)


def beneath(kind: str, problem: protocol.Problem, rate: float) -> np.ndarray:
    if kind == "signs":
        start = problem.start(protocol.glorot(problem))
        return jax_loop.train(quantizers.binary_quantize, start, problem, rate)
    return jax_loop.train(quantizers.ternary_quantize, problem.start(1), problem, rate)


RULES = {
    "quantizers": protocol.Rule(
        {
            "signs": "quantizers.binary_quantize, Glorot's start",
            "ternary": "quantizers.ternary_quantize, started uniform in ±1",
        },
        beneath,
    ),
    "fixed point": protocol.Rule(
        {"ternary": "QDense's kernel quantizer, kbi frozen at b0=1, i0=1, Glorot's start"},
        fixed_point,
    ),
}
protocol.main(
    "hgq2", RULES, dict.fromkeys(("four_values", "nine_powers"), "fixed point is evenly spaced")
)
