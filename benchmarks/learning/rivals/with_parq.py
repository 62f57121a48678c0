"""PARQ, from torchao: its proximal map and optimizer, in PyTorch; see README.md.

    with_parq.py                       the list itself, handed to the map
    PARQ_QUANTIZER=own with_parq.py    LSBQuantizer's lists: ±1 and ternary times a fitted scale
"""

import os

import protocol
import torch
import torch_loop
from torchao.prototype.parq.optim import ProxPARQ, QuantOptimizer
from torchao.prototype.parq.quant import LSBQuantizer, Quantizer

OWN = os.environ.get("PARQ_QUANTIZER") == "own"
STEEPNESS = float(os.environ.get("PARQ_STEEPNESS", 10))
LINEAR = dict.fromkeys(("four_values", "nine_powers"), "its quantizers fit their values")


class Listed(Quantizer):
    """The listed values as they are: nothing is fitted."""

    def __init__(self, values: list[float]) -> None:
        super().__init__()
        self.values = torch.tensor(sorted(values), dtype=torch.float32)

    def get_quant_size(self, b: int) -> int:
        return len(self.values)

    def quantize(self, p, b: int, dim: int | None = None):
        middles = (self.values[1:] + self.values[:-1]) / 2
        return self.values[torch.bucketize(p, middles)], self.values


def train(kind: str, problem: protocol.Problem, rate: float) -> protocol.Trained:
    size = problem.rows.shape[-1]
    weights = torch.nn.Parameter(torch.from_numpy(problem.start(size**-0.5)))
    bits = {"signs": 1, "ternary": 0}.get(kind, 2) if OWN else 2
    quantizer = LSBQuantizer() if OWN else Listed(problem.values)
    optimizer = QuantOptimizer(
        torch.optim.Adam([{"params": [weights], "quant_bits": bits}], rate),
        quantizer,
        ProxPARQ(anneal_start=0, anneal_end=problem.steps - 1, steepness=STEEPNESS),
        quant_per_channel=OWN,  # An instance is a channel.
    )
    found = torch_loop.train(lambda: weights, optimizer, problem)
    if OWN:
        found = found / found.abs().amax(dim=1, keepdim=True)
    settings = (
        f"QuantOptimizer, {'LSBQuantizer, its scale left out of the score' if OWN else 'the list'},"
        f" ProxPARQ over the run, steepness {STEEPNESS:g}, PyTorch's start"
    )
    return protocol.Trained(found.numpy(), settings)


name = "-".join(["own"] * OWN + [f"s{STEEPNESS:g}"] * (STEEPNESS != 10))
protocol.main("torchao", train, LINEAR if OWN else {}, name)
