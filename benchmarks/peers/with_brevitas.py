"""The network with Brevitas' layers, in PyTorch; see README.md."""

import brevitas.nn
import numpy as np
import protocol
import torch
from brevitas.core.quant import QuantType
from brevitas.quant.binary import SignedBinaryWeightPerTensorConst
from brevitas.quant.ternary import SignedTernaryWeightPerTensorConst


class Ternary(SignedTernaryWeightPerTensorConst):
    """The preset is two-bit integers in a narrow range; this form was better (README.md)."""

    quant_type = QuantType.TERNARY
    threshold = 0.5


QUANTIZERS = {"binary": SignedBinaryWeightPerTensorConst, "ternary": Ternary, "float": None}
SETTINGS = {
    "binary": "QuantLinear, SignedBinaryWeightPerTensorConst",
    "ternary": "QuantLinear, SignedTernaryWeightPerTensorConst as QuantType.TERNARY, threshold 0.5,"
    " started uniform in the scale",
    "float": "QuantLinear without a quantizer",
}


def build(plan: protocol.Plan) -> protocol.Run:
    kind = plan.kind
    torch.manual_seed(plan.seed)
    quantizer = QUANTIZERS[kind]
    layers, width = [], protocol.INPUTS
    for units in protocol.UNITS:
        dense = brevitas.nn.QuantLinear(width, units, bias=False, weight_quant=quantizer)
        if kind == "ternary":  # PyTorch's own start is below the threshold: all zero, for good.
            scale = quantizer.scaling_const
            torch.nn.init.uniform_(dense.weight, -scale, scale)
        normalization = torch.nn.BatchNorm1d(units, momentum=1 - protocol.MOMENTUM)
        layers += [dense, normalization, torch.nn.ReLU()]
        width = units
    network = torch.nn.Sequential(*layers[:-1])
    optimizer = torch.optim.Adam(network.parameters(), plan.rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, plan.steps)

    def epoch(images: np.ndarray, labels: np.ndarray) -> None:
        network.train()
        batches = torch.from_numpy(images).split(protocol.BATCH)
        answers = torch.from_numpy(labels).long().split(protocol.BATCH)
        for batch, answer in zip(batches, answers, strict=True):
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(network(batch), answer).backward()
            optimizer.step()
            schedule.step()

    def logits(images: np.ndarray) -> np.ndarray:
        network.eval()
        with torch.no_grad():
            return network(torch.from_numpy(images)).numpy()

    def kernels() -> list[np.ndarray]:
        weights = [dense.quant_weight() for dense in layers[::3]]
        if kind != "float":
            weights = [weight.value for weight in weights]
        return [weight.detach().numpy().T for weight in weights]

    return protocol.Run(epoch, logits, kernels, SETTINGS[kind])


protocol.main("brevitas", "torch", build)
