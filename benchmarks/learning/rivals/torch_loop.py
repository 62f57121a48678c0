"""Training in PyTorch, for Brevitas and PARQ."""

from collections.abc import Callable

import protocol
import torch
from protocol import Problem

torch.set_num_threads(1)


def train(weights: Callable[[], torch.Tensor], optimizer, problem: Problem) -> torch.Tensor:
    """What `weights()` gives (instances by size) after all steps."""
    rows, share = torch.from_numpy(problem.rows), torch.from_numpy(problem.share)
    targets = None if problem.targets is None else torch.from_numpy(problem.targets)
    order = None if problem.order is None else torch.from_numpy(problem.order).long()
    instances = torch.arange(len(rows))[:, None]
    for step in range(problem.steps):
        optimizer.zero_grad()
        used = weights()[:, :, None]
        if order is None:
            loss = ((torch.bmm(rows, used)[:, :, 0] - targets) ** 2 @ share).sum()
        else:
            batch = rows[instances, order[step]]
            answers = torch.bmm(batch, used)[:, :, 0] / rows.shape[-1] ** 0.5
            loss = (torch.nn.functional.softplus(-protocol.SLOPE * answers) @ share[step]).sum()
        loss.backward()
        optimizer.step()
    return weights().detach()
