"""qkeras-v3's quantizers without a scale; see README.md."""

import os

os.environ.setdefault("KERAS_BACKEND", "jax")

import jax_loop
import protocol
import qkeras

QUANTIZERS = {
    "signs": qkeras.binary(alpha=1),
    "ternary": qkeras.ternary(alpha=1),
    "four_values": qkeras.quantized_po2(2, max_value=1),
}
SETTINGS = {
    "signs": "binary(alpha=1)",
    "ternary": "ternary(alpha=1)",
    "four_values": "quantized_po2(2, max_value=1)",
}
CANNOT = {"nine_powers": "quantized_po2 has no zero"}


def train(kind: str, problem: protocol.Problem, rate: float) -> protocol.Trained:
    size = problem.rows.shape[-1]
    start = problem.start((6 / (size + 1)) ** 0.5)
    weights = jax_loop.train(QUANTIZERS[kind], start, problem, rate)
    return protocol.Trained(weights, f"{SETTINGS[kind]}, Glorot uniform start")


protocol.main("qkeras-v3", train, CANNOT)
