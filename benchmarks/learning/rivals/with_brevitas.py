"""Brevitas' constant-scale weights with the scale 1, in PyTorch; see README.md."""

import brevitas.nn
import protocol
import torch
import torch_loop
from brevitas.core.quant import QuantType
from brevitas.quant.binary import SignedBinaryWeightPerTensorConst
from brevitas.quant.ternary import SignedTernaryWeightPerTensorConst


class Binary(SignedBinaryWeightPerTensorConst):
    scaling_const = 1.0


class Ternary(SignedTernaryWeightPerTensorConst):
    quant_type = QuantType.TERNARY
    threshold = 0.5
    scaling_const = 1.0


QUANTIZERS = {"signs": Binary, "ternary": Ternary}
SETTINGS = {
    "signs": "SignedBinaryWeightPerTensorConst, scaling_const 1, started uniform in ±1",
    "ternary": "SignedTernaryWeightPerTensorConst as QuantType.TERNARY, threshold 0.5,"
    " scaling_const 1, started uniform in ±1",
}
CANNOT = {
    "four_values": "no preset is unevenly spaced without a zero",
    "nine_powers": "no preset has these values (integers, and minifloats of other ranges)",
}


def train(kind: str, problem: protocol.Problem, rate: float) -> protocol.Trained:
    count, _, size = problem.rows.shape
    layer = brevitas.nn.QuantLinear(size, count, bias=False, weight_quant=QUANTIZERS[kind])
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(problem.start(1.0)))
    optimizer = torch.optim.Adam(layer.parameters(), rate)
    weights = torch_loop.train(lambda: layer.quant_weight().value, optimizer, problem)
    return protocol.Trained(weights.numpy(), SETTINGS[kind])


protocol.main("brevitas", train, CANNOT)
