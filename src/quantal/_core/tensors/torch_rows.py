"""Step functions of channels, and of lists that training moves, in PyTorch's blocks.

The general form of `RowSteps` selects or searches in a pass over memory for each step. Here the
steps of a block are counted while it is in the processor's cache; see `blocks`.
"""

import functools
from typing import Any

import numpy as np

from quantal._core.tensors.blocks import block_form, blocks, in_blocks, row_blocks
from quantal._core.tensors.plain_torch import is_plain
from quantal._core.types import Tensor

_FEW = 8
"""The gradients of so few numbers are summed by a comparison with each; a look-up of ranks and
counting them take as long as ten comparisons."""

_LONGEST_COUNT = 15
"""Up to so many steps, a comparison with each costs no more than a search among them."""


def plain_row_levels(x: Tensor, thresholds: Tensor, levels: Tensor, axis: int) -> Tensor:
    """Return the levels of a plain tensor; see `RowSteps` for the arguments."""
    steps, heights = (t.detach().numpy() for t in (thresholds, levels))
    # Numbers of a list that has diverged are in no order, which tables need.
    if len(steps) == 1 and np.isfinite(steps).all():
        form = block_form(steps[0], heights[0], is_used_once=True)
        return in_blocks(form, x, heights.dtype.name)
    return _levels_of_channels(x, thresholds.detach(), levels.detach(), axis)


def _levels_of_channels(x: Tensor, thresholds: Tensor, levels: Tensor, axis: int) -> Tensor:
    """Return the levels where each channel has thresholds of its own."""
    import torch

    channels, steps = thresholds.shape
    if not x.numel():
        return torch.empty(x.shape, dtype=levels.dtype)
    # Blocks are cut along the first axis: that of the channels, or one before it.
    is_first = channels == 1 or axis in (0, -x.dim())
    inner = 1 if axis == -1 else x.shape[axis + 1 :].numel()
    view = x.contiguous().view((channels, -1) if is_first else (-1, channels, inner))
    broadcast = (channels, 1) if is_first else (1, channels, 1)
    rows = torch.arange(channels, dtype=torch.int32).view(broadcast)
    out = torch.empty(view.shape, dtype=levels.dtype)
    table = levels.reshape(-1)
    columns = [t.contiguous().view(broadcast) for t in thresholds.unbind(1)]
    search = _Search(thresholds) if steps > _LONGEST_COUNT else None
    for block, result, row, *cut in row_blocks(view, out, rows, *([] if search else columns)):
        count = search.count(block, row) if search else _count(block, cut)
        index = count.add_(row, alpha=steps + 1).view(-1)
        torch.index_select(table, 0, index, out=result.view(-1))
    return out.view(x.shape)


def _count(block: Tensor, columns: list[Tensor]) -> Tensor:
    """Return how many of its channel's thresholds each number has passed, int32."""
    import torch

    count, passed = (torch.zeros(block.shape, dtype=torch.int32) for _ in range(2))
    for column in columns:
        torch.ge(block, column, out=passed)
        count.add_(passed)
    return count


class _Search:
    """A search halves the thresholds of each number's channel.

    Args:
        thresholds: float32, shape (channels, n), ascending along the last axis.
    """

    def __init__(self, thresholds: Tensor) -> None:
        import torch

        channels, self._steps = thresholds.shape
        self._halvings = self._steps.bit_length()
        # A search may look beyond the last threshold, where nothing is.
        beyond = 2**self._halvings - self._steps
        padding = torch.full((channels, beyond), torch.inf)
        self._table = torch.cat([thresholds, padding], dim=1).view(-1)

    def count(self, block: Tensor, row: Tensor) -> Tensor:
        """Return how many of its channel's thresholds each number has passed, int32."""
        import torch

        index, passed, count = (torch.zeros(block.shape, dtype=torch.int32) for _ in range(3))
        threshold = torch.empty(block.shape)
        for halving in reversed(range(self._halvings)):
            torch.add(count, row, alpha=2**self._halvings, out=index)
            index.add_(2**halving - 1)
            torch.index_select(self._table, 0, index.view(-1), out=threshold.view(-1))
            torch.ge(block, threshold, out=passed)
            count.add_(passed, alpha=2**halving)
        # Infinity passes what stands beyond the last threshold, too.
        return count.clamp_(max=self._steps)


def plain_with_entry_gradient(
    value: Tensor, ascending: Tensor, thresholds: Tensor, x: Tensor, axis: int
) -> Tensor:
    """Return `value`, with a gradient to the listed numbers besides its own.

    Each number of the list gets the sum of the gradients of the elements that have it.

    Args:
        value: A plain tensor.
        ascending: float32 tensor, shape (channels, K): the list in ascending order.
        thresholds: float32 tensor, shape (channels, K - 1).
        x: A plain tensor in the shape of `value`: what is compared with the thresholds.
        axis: The channels' axis.
    """
    result: Tensor = _entry_class().apply(value, ascending, thresholds.detach(), x.detach(), axis)
    return result


@functools.cache
def _entry_class() -> Any:
    import torch

    class Entry(torch.autograd.Function):
        # The gradients' context comes first: PyTorch's other form costs four times as much.
        @staticmethod
        def forward(
            ctx: Any, value: Tensor, ascending: Tensor, thresholds: Tensor, x: Tensor, axis: int
        ) -> Tensor:
            ctx.save_for_backward(ascending, thresholds, x)
            ctx.axis = axis
            return value.detach()

        @staticmethod
        def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
            ascending, thresholds, x = ctx.saved_tensors
            is_plainly_computed = is_plain(upstream) and not torch.is_grad_enabled()
            if is_plainly_computed and len(ascending) == 1 and ascending.numel() <= _FEW:
                total = _sums_of_few(x, thresholds[0].tolist(), upstream)
                return upstream, total.view(ascending.shape), None, None, None
            ranks = _ranks(ascending, thresholds, x, ctx.axis)
            if not is_plainly_computed:
                zeros = torch.zeros(ascending.numel(), dtype=upstream.dtype)
                total = zeros.index_add(0, ranks.view(-1), upstream.reshape(-1))
            else:
                total = _sums(ranks, upstream, ascending.numel())
            return upstream, total.view(ascending.shape), None, None, None

    return Entry


def _sums_of_few(x: Tensor, thresholds: list[float], upstream: Tensor) -> Tensor:
    """Return the sum of the gradients at each number of a short list, float32.

    A comparison with each threshold says which elements have a number: they need no ranks.
    """
    import torch

    total = torch.zeros(len(thresholds) + 1, dtype=torch.float64)
    tensors = x.contiguous().view(-1), upstream.contiguous().view(-1)
    for numbers, gradient, passed, next_passed, part in blocks(("float32",) * 3, *tensors):
        passed.fill_(1.0)
        for rank in range(len(thresholds) + 1):
            # The elements from this number on without those from the next one on; NaN is the first.
            if rank < len(thresholds):
                torch.ge(numbers, thresholds[rank], out=next_passed)
                passed.sub_(next_passed)
            total[rank] += torch.mul(passed, gradient, out=part).sum()
            passed, next_passed = next_passed, passed
    return total.float()


def _ranks(ascending: Tensor, thresholds: Tensor, x: Tensor, axis: int) -> Tensor:
    """Return the position of each element's number in the flat list of all channels, int32."""
    import torch

    ranks = torch.arange(ascending.numel(), dtype=torch.int32).view(ascending.shape)
    return plain_row_levels(x, thresholds, ranks, axis)


def _sums(ranks: Tensor, upstream: Tensor, length: int) -> Tensor:
    """Return the sum of the gradients at each rank, float32."""
    import torch

    total = torch.zeros(length, dtype=torch.float64)
    for rank, gradient in blocks((), ranks.view(-1), upstream.contiguous().view(-1)):
        # Millions of float32 gradients, added one by one, would lose their small ones.
        total += torch.bincount(rank, weights=gradient.double(), minlength=length)
    return total.float()
