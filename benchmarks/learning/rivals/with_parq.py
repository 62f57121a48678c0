"""PARQ, from torchao: its proximal map through its optimizer, in PyTorch; see README.md."""

import functools

import numpy as np
import protocol
import torch
import torch_loop
from torchao.prototype.parq.optim import ProxPARQ, QuantOptimizer
from torchao.prototype.parq.quant import LSBQuantizer, Quantizer


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


def train(
    steepness: float, own: bool, kind: str, problem: protocol.Problem, rate: float
) -> np.ndarray:
    size = problem.rows.shape[-1]
    weights = torch.nn.Parameter(torch.from_numpy(problem.start(size**-0.5)))
    bits = {"signs": 1, "ternary": 0}.get(kind, 2)  # Of use to LSBQuantizer alone.
    optimizer = QuantOptimizer(
        torch.optim.Adam([{"params": [weights], "quant_bits": bits}], rate),
        LSBQuantizer() if own else Listed(problem.values),
        ProxPARQ(anneal_start=0, anneal_end=problem.steps - 1, steepness=steepness),
        quant_per_channel=own,  # An instance is a channel.
    )
    found = torch_loop.train(lambda: weights, optimizer, problem)
    return (found / found.abs().amax(dim=1, keepdim=True) if own else found).numpy()


def rule(steepness: float, own: bool = False) -> protocol.Rule:
    values = "LSBQuantizer, its scale left out of the score" if own else "the list as it is"
    settings = f"{values}, ProxPARQ over the run, steepness {steepness}, PyTorch's start"
    kinds = ("signs", "ternary") if own else protocol.LISTS
    return protocol.Rule(dict.fromkeys(kinds, settings), functools.partial(train, steepness, own))


RULES = {f"list, steepness {each}": rule(each) for each in (10, 1, 20)}
protocol.main("torchao", RULES | {"LSBQuantizer": rule(10, own=True)}, {})
