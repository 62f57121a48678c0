"""Functions of large tensors in PyTorch, in blocks that stay in the processor's cache.

Without its compiler PyTorch makes one pass over memory for each operation, and its `where` and
`searchsorted` branch on the numbers: a processor that guesses a random branch wrongly loses
twenty times what the operation costs. So tensors are computed block by block, by operations
that have no branches: comparisons whose result is a number, sums and look-ups in tables.
"""

import abc
import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
from numpy.typing import NDArray

from quantal._core.tensors.constants import Constant
from quantal._core.tensors.plain_torch import is_plain
from quantal._core.tensors.step_functions import Grid, Layout, StepFunction, lay_buckets
from quantal._core.tensors.step_table import Scaling, StepTable
from quantal._core.types import Tensor

_BLOCK = 2**17
"""The numbers in a block of each thread: its companions stay in the cache, and threads meet
seldom."""

LONGEST_SUM = 8
"""Up to so many steps, adding a number for each costs less than two look-ups in tables."""


class BlockForm(abc.ABC):
    """A block form evaluates a step function for one block, in memory that it is given.

    Attributes:
        dtypes: The dtypes of the buffers that it writes into.
    """

    dtypes: tuple[str, ...] = ()

    @abc.abstractmethod
    def write(self, x: Tensor, out: Tensor, *buffers: Tensor) -> None:
        """Write the levels of a block into `out`.

        Args:
            x: float32, shape (n,).
            out: The memory for the levels, of the same shape.
            *buffers: Memory of that shape, one for each of `dtypes`.
        """


class InBlocks(StepFunction):
    """A step function is evaluated in blocks where PyTorch computes at once on a processor.

    Args:
        form: The form for a block.
        dtype: The levels' dtype.
        other: The form for everything else: for compilers, transforms and other devices.
    """

    def __init__(self, form: BlockForm, dtype: str, other: StepFunction) -> None:
        self.other = other
        self._form, self._dtype = form, dtype

    @property
    def compiled(self) -> StepFunction:
        """The form that PyTorch's compiler traces."""
        return getattr(self.other, "compiled", self.other)

    def evaluate(self, x: Tensor) -> Tensor:
        return in_blocks(self._form, x, self._dtype) if is_plain(x) else self.other.evaluate(x)


def in_blocks(form: BlockForm, x: Tensor, dtype: str) -> Tensor:
    """Return the levels of a plain tensor in the shape of `x`."""
    import torch

    flat = x.contiguous().view(-1)
    out = torch.empty(flat.shape, dtype=getattr(torch, dtype))
    for block, levels, *buffers in blocks(form.dtypes, flat, out):
        form.write(block, levels, *buffers)
    return out.view(x.shape)


def blocks(dtypes: tuple[str, ...], *tensors: Tensor) -> Any:
    """Cut tensors into blocks, and give each block the same buffers.

    Args:
        dtypes: The dtypes of the buffers.
        *tensors: Plain tensors of shape (n,).

    Yields:
        A list: a block of each tensor, and the buffers in the block's length.
    """
    import torch

    count = len(tensors[0])
    size = min(count, _BLOCK * torch.get_num_threads())
    buffers = [torch.empty(size, dtype=getattr(torch, dtype)) for dtype in dtypes]
    if count == size:
        yield [*tensors, *buffers]
        return
    for start in range(0, count, size):
        stop = min(start + size, count)
        cut = buffers if stop - start == size else [b[: stop - start] for b in buffers]
        yield [*(tensor[start:stop] for tensor in tensors), *cut]


def elementwise(function: Callable[..., tuple[Tensor, ...]], *tensors: Tensor) -> Sequence[Tensor]:
    """Return what a function of tensors returns, computed block by block where that is faster.

    So what lies between stays in the cache, and takes no new memory from the system.

    Args:
        function: A function that computes tensors element by element from tensors.
        *tensors: Tensors of one shape, of which no gradient is asked.
    """
    if keras.config.backend() != "torch" or not all(map(is_plain, tensors)):
        return function(*tensors)
    import torch

    shape, count = tensors[0].shape, tensors[0].numel()
    size = _BLOCK * torch.get_num_threads()
    if count <= size:
        return function(*tensors)
    flat = [tensor.detach().contiguous().view(-1) for tensor in tensors]
    results: list[Tensor] = []
    for start in range(0, count, size):
        parts = function(*(tensor[start : start + size] for tensor in flat))
        results = results or [torch.empty(shape) for _ in parts]
        for result, part in zip(results, parts, strict=True):
            result.view(-1)[start : start + size] = part
    return results


def row_blocks(*tensors: Any) -> Any:
    """Cut tensors of one shape, and those that broadcast over them, along the first axis.

    Args:
        *tensors: Tensors, the first of which has the full shape; numbers stay as they are.

    Yields:
        A list: the rows of a block of each tensor, as views.
    """
    import torch

    first = tensors[0]
    rows = first.shape[0] if first.dim() else 1
    length = max(first.numel() // max(rows, 1), 1)
    size = max(_BLOCK * torch.get_num_threads() // length, 1)

    def is_cut(tensor: Any) -> bool:
        is_full = isinstance(tensor, torch.Tensor) and tensor.dim() == first.dim()
        return is_full and tensor.dim() > 0 and tensor.shape[0] == rows

    for start in range(0, rows, size):
        yield [t[start : start + size] if is_cut(t) else t for t in tensors]


def block_form(
    thresholds: NDArray[np.float32], levels: NDArray[Any], is_used_once: bool = False
) -> BlockForm:
    """Return the cheapest form for blocks; see `TableOfBlock` for the arguments."""
    if SumOfSteps.holds(thresholds, levels):
        return SumOfSteps(thresholds, levels)
    if len(thresholds) and Grid.holds(thresholds, levels) and GridOfBlock.holds(levels):
        return GridOfBlock(thresholds, levels)
    return TableOfBlock(thresholds, levels, is_used_once)


class SumOfSteps(BlockForm):
    """A sum of steps adds the difference of two levels wherever a threshold is passed.

    It serves short lists whose float32 sums are the levels themselves, to the bit: from the
    lowest level upwards, or from the one next to zero outwards, where sums lose less.
    """

    dtypes = ("float32", "float32")

    def __init__(self, thresholds: NDArray[np.float32], levels: NDArray[Any]) -> None:
        start, steps = _exact_steps(levels) or (0, levels[:0])
        self._first = levels[start].item()
        pairs = list(zip(thresholds.tolist(), steps.tolist(), strict=True))
        self._down, self._up = pairs[:start][::-1], pairs[start:]

    @staticmethod
    def holds(thresholds: NDArray[np.float32], levels: NDArray[Any]) -> bool:
        """Return whether there are few steps, whose sums are exactly the levels."""
        if len(thresholds) > LONGEST_SUM or levels.dtype != np.float32:
            return not len(thresholds)
        return _exact_steps(levels) is not None

    def write(self, x: Tensor, out: Tensor, *buffers: Tensor) -> None:
        import torch

        passed, numbers = buffers
        out.fill_(self._first)
        # A comparison into a tensor of numbers gives 1 and 0; NaN passes no threshold.
        for threshold, step in self._up:
            torch.ge(x, threshold, out=passed)
            out.add_(passed, alpha=step)
        if self._down:
            torch.nan_to_num(x, nan=-math.inf, posinf=math.inf, neginf=-math.inf, out=numbers)
        for threshold, step in self._down:
            torch.lt(numbers, threshold, out=passed)
            out.add_(passed, alpha=step)


def _exact_steps(levels: NDArray[np.float32]) -> tuple[int, NDArray[np.float32]] | None:
    """Return the level to start from, and the step away from it at each threshold.

    Returns:
        The start's position and float32 numbers, which added one by one to the start give each
        level exactly; None where there are none.
    """
    for start in (0, int(np.abs(levels).argmin())):
        pairs = [*zip(levels[1 : start + 1], levels[:start], strict=True)]
        pairs += zip(levels[start:-1], levels[start + 1 :], strict=True)
        steps = [_exact_step(*pair) for pair in pairs]
        if None not in steps:
            return start, np.array(steps, np.float32)
    return None


def _exact_step(source: np.float32, target: np.float32) -> np.float32 | None:
    """Return the float32 number that added to one gives another, if there is one."""
    with np.errstate(over="ignore", invalid="ignore"):
        step = target - source
        nearby = (step, *(np.nextafter(step, np.float32(end)) for end in (-np.inf, np.inf)))
        return next((s for s in nearby if np.isfinite(s) and source + s == target), None)


class GridOfBlock(BlockForm):
    """A grid rounds a block to multiples of a power of two, as `Grid` does."""

    dtypes = ("float32",)

    def __init__(self, thresholds: NDArray[np.float32], levels: NDArray[Any]) -> None:
        self._step = float(levels[1]) - float(levels[0])
        self._first, self._last = float(levels[0]) / self._step, float(levels[-1]) / self._step

    @staticmethod
    def holds(levels: NDArray[np.float32]) -> bool:
        """Return whether the step of a grid has an inverse, so that none has to be divided by."""
        return 2.0**-100 <= float(levels[1]) - float(levels[0]) <= 2.0**100

    def write(self, x: Tensor, out: Tensor, *buffers: Tensor) -> None:
        import torch

        (floor,) = buffers
        torch.mul(x, 1.0 / self._step, out=out)
        # One more on both sides: beyond the ends the last step still is to the end itself.
        first, last = self._first - 1.0, self._last + 1.0
        out.nan_to_num_(nan=first, posinf=last, neginf=first).clamp_(first, last)
        torch.floor(out, out=floor)
        floor.add_(out.sub_(floor).ge_(0.5))
        torch.mul(floor.clamp_(self._first, self._last), self._step, out=out)


class TableOfBlock(BlockForm):
    """Tables say where each number's search among the thresholds starts, as in `Buckets`.

    Where no bucket's search covers more than one threshold, a number is compared with that of
    its bucket, and the bucket with the result says which level it has. Where some cover more,
    buckets are as narrow as those of a `StepTable`, if it has not too many.

    The tables are created when they are needed first.

    Args:
        thresholds: As in `step_function`.
        levels: As in `step_function`.
        is_used_once: Whether the tables serve one step alone: narrow buckets take longer to lay.
    """

    dtypes = ("float32", "int32", "int32")

    def __init__(
        self, thresholds: NDArray[np.float32], levels: NDArray[Any], is_used_once: bool = False
    ) -> None:
        self._thresholds, self._numbers, self._is_used_once = thresholds, levels, is_used_once

    @functools.cached_property
    def _tables(self) -> "_Tables":
        layout = lay_buckets(self._thresholds)
        if layout.halvings > 1 and not self._is_used_once:
            table = StepTable.of(self._thresholds, self._numbers)
            if table is not None:
                return _Tables(table.scaling, table.buckets, table.thresholds(), table.levels())
        return _searched(self._thresholds, self._numbers, layout)

    def write(self, x: Tensor, out: Tensor, *buffers: Tensor) -> None:
        import torch

        numbers, index, count = buffers
        tables = self._tables
        tables.write_buckets(x, numbers, index)
        if tables.start is None:
            torch.index_select(tables.thresholds, 0, index, out=numbers)
            torch.ge(x, numbers, out=count)
            count.add_(index, alpha=2)
        else:
            torch.index_select(tables.start, 0, index, out=count)
            for halving in reversed(range(tables.halvings)):
                torch.add(count, 2**halving - 1, out=index)
                torch.index_select(tables.thresholds, 0, index, out=numbers)
                torch.ge(x, numbers, out=index)
                count.add_(index, alpha=2**halving)
        torch.index_select(tables.levels, 0, count, out=out)


class _Tables(NamedTuple):
    """The tables of a `TableOfBlock`.

    Attributes:
        scaling: How numbers become positions of buckets.
        buckets: The number of buckets.
        thresholds: float32 tensor: those of the buckets, infinite where a bucket has none;
            where searches cover more, all thresholds.
        levels: Tensor: two for each bucket, below its threshold and from it on; where searches
            cover more, all levels.
        start: int32 tensor: the first count of thresholds of each bucket's search; None where
            each covers one threshold or none.
        halvings: How often a bucket's search halves what it covers.
    """

    scaling: Scaling
    buckets: int
    thresholds: Tensor
    levels: Tensor
    start: Tensor = None
    halvings: int = 1

    def write_buckets(self, x: Tensor, numbers: Tensor, index: Tensor) -> None:
        """Write each number's bucket into `index`; NaN goes to the first one."""
        import torch

        if self.buckets == 1:
            index.zero_()
            return
        first, per_unit, smallest = self.scaling
        if smallest is None:
            torch.sub(x, first, out=numbers)
        else:
            torch.abs(x, out=numbers)
            numbers.clamp_(min=smallest).mul_(1.0 / smallest).log_()
            torch.copysign(numbers, x, out=numbers)
            numbers.sub_(first)
        last = self.buckets - 1.0
        numbers.mul_(per_unit).nan_to_num_(nan=0.0, posinf=last, neginf=0.0)
        index.copy_(numbers.clamp_(0.0, last))


def _searched(thresholds: NDArray[np.float32], levels: NDArray[Any], layout: Layout) -> _Tables:
    """Return the tables of buckets whose searches cover what a layout says."""
    scaling, buckets = Scaling(layout.below, layout.per_unit), len(layout.start)
    # Searches look beyond the last threshold, and infinity gets there.
    beyond = 2**layout.halvings
    padded = np.append(thresholds, np.full(beyond, np.inf, np.float32))
    reached = np.append(levels, np.full(beyond, levels[-1]))
    if layout.halvings > 1:
        padded, reached, start = (Constant(array)() for array in (padded, reached, layout.start))
        return _Tables(scaling, buckets, padded, reached, start, layout.halvings)
    padded = padded[layout.start]
    reached = np.stack([reached[layout.start], reached[layout.start + 1]], axis=-1).ravel()
    return _Tables(scaling, buckets, Constant(padded)(), Constant(reached)())
