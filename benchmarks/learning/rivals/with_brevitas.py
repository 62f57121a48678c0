"""Brevitas' constant-scale weights with the scale 1, in PyTorch; see README.md."""

import functools

import brevitas.nn
import numpy as np
import protocol
import torch
import torch_loop
from brevitas.core.quant import QuantType
from brevitas.quant.binary import SignedBinaryWeightPerTensorConst
from brevitas.quant.ternary import SignedTernaryWeightPerTensorConst


class Binary(SignedBinaryWeightPerTensorConst):
    scaling_const = 1.0


class Preset(SignedTernaryWeightPerTensorConst):
    """Two-bit integers in a narrow range."""

    scaling_const = 1.0


class Ternary(Preset):
    quant_type = QuantType.TERNARY
    threshold = 0.5


def train(quantizers: dict, kind: str, problem: protocol.Problem, rate: float) -> np.ndarray:
    count, _, size = problem.rows.shape
    layer = brevitas.nn.QuantLinear(size, count, bias=False, weight_quant=quantizers[kind])
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(problem.start(1)))
    optimizer = torch.optim.Adam(layer.parameters(), rate)
    return torch_loop.train(lambda: layer.quant_weight().value, optimizer, problem).numpy()


START = "scaling_const 1, started uniform in ±1"
RULES = {
    "preset": protocol.Rule(
        {
            "signs": f"SignedBinaryWeightPerTensorConst, {START}",
            "ternary": f"SignedTernaryWeightPerTensorConst, {START}",
        },
        functools.partial(train, {"signs": Binary, "ternary": Preset}),
    ),
    "TERNARY": protocol.Rule(
        {"ternary": f"the preset as QuantType.TERNARY, threshold 0.5, {START}"},
        functools.partial(train, {"ternary": Ternary}),
    ),
}
CANNOT = {
    "four_values": "no preset has these values",
    "nine_powers": "no preset has these values",
}
protocol.main("brevitas", RULES, CANNOT)
