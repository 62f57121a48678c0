"""qkeras-v3's quantizers without a scale; see README.md."""

import os

os.environ.setdefault("KERAS_BACKEND", "jax")

import jax_loop
import numpy as np
import protocol
import qkeras

QUANTIZERS = {
    "signs": qkeras.binary(alpha=1),
    "ternary": qkeras.ternary(alpha=1),
    "four_values": qkeras.quantized_po2(2),  # Half a power and a whole one: exactly this list.
}
SETTINGS = {kind: f"{quantizer}, Glorot's start" for kind, quantizer in QUANTIZERS.items()}


def train(kind: str, problem: protocol.Problem, rate: float) -> np.ndarray:
    return jax_loop.train(QUANTIZERS[kind], problem.start(protocol.glorot(problem)), problem, rate)


CANNOT = {"nine_powers": "quantized_po2 has no zero"}
protocol.main("qkeras-v3", {"": protocol.Rule(SETTINGS, train)}, CANNOT)
