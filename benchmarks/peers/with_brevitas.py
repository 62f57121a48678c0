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
    "binary": "QuantLinear, SignedBinaryWeightPerTensorConst; Adam 1e-3",
    "ternary": "QuantLinear, SignedTernaryWeightPerTensorConst as QuantType.TERNARY, threshold 0.5,"
    " started uniform in the scale; Adam 1e-3",
    "float": "QuantLinear without a quantizer; Adam 1e-3",
}


def build(kind: str, seed: int) -> protocol.Run:
    torch.manual_seed(seed)
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
    optimizer = torch.optim.Adam(network.parameters(), protocol.LEARNING_RATE)

    def epoch(images: np.ndarray, labels: np.ndarray) -> None:
        network.train()
        batches = torch.from_numpy(images).split(protocol.BATCH)
        answers = torch.from_numpy(labels).long().split(protocol.BATCH)
        for batch, answer in zip(batches, answers, strict=True):
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(network(batch), answer).backward()
            optimizer.step()

    def logits(images: np.ndarray) -> np.ndarray:
        network.eval()
        with torch.no_grad():
            return network(torch.from_numpy(images)).numpy()

    def kernels() -> list[np.ndarray]:
        return [dense.quant_weight().value.detach().numpy().T for dense in layers[::3]]

    return protocol.Run(epoch, logits, kernels, SETTINGS[kind])


protocol.main("brevitas", "torch", build)
