"""The gap of a list in which a number lies has two ends, and one of them is the nearest value."""

from typing import Any, NamedTuple

import keras
import numpy as np
from keras import ops

from quantal._core.numbers.values import Values
from quantal._core.tensors.backend import taken
from quantal._core.tensors.cheapest_form import step_function
from quantal._core.tensors.constants import Constant
from quantal._core.tensors.gradients import SMALLEST_WIDTH, clamp
from quantal._core.tensors.plain_torch import is_plain
from quantal._core.tensors.step_functions import Grid, within
from quantal._core.types import Tensor


class Gap(NamedTuple):
    """A gap lies around each element of a tensor, between two neighbours in a list.

    Below the list it is the first gap, and above it the last one.

    Attributes:
        lower: The lower end: float32 tensor, or a float where it is the same for all elements.
        upper: The upper end, alike.
        nearest: The nearest listed value: float32 tensor without gradient.
    """

    lower: Any
    upper: Any
    nearest: Tensor

    def offsets(self, x: Tensor, low: Any, high: Any) -> Tensor:
        """Return how far elements lie from their nearest values, in half gaps: -1 to 1.

        Elements beyond the list count as at its ends. No gradient passes.

        Args:
            x: The elements around which the gaps lie.
            low: The smallest value of the list.
            high: The largest one.
        """
        half = (self.upper - self.lower) * 0.5
        is_number = isinstance(half, float)
        half = max(half, SMALLEST_WIDTH) if is_number else ops.maximum(half, SMALLEST_WIDTH)
        return (limited(ops.stop_gradient(x), low, high) - self.nearest) / half


class GapTable:
    """A gap table has the ends and the midpoints of the gaps of a long list.

    It searches once for what `Projection.lower`, `upper` and `nearest` would search each.

    Args:
        values: A list of two values or more; one for all channels.
    """

    def __init__(self, values: Values) -> None:
        ascending = values.ascending
        gaps = len(values) - 1
        self._index = step_function(ascending[1:-1], np.arange(gaps, dtype=np.int32))
        self._lower, self._upper = Constant(ascending[:-1]), Constant(ascending[1:])
        self._middle, self._ascending = Constant(values.midpoints), Constant(ascending)

    def around(self, x: Tensor) -> Gap:
        """Return the gaps around the elements of a float32 tensor."""
        x = ops.stop_gradient(x)
        index = self._index(x)
        lower, upper, middle = (
            _taken(table(), index) for table in (self._lower, self._upper, self._middle)
        )
        return Gap(lower, upper, self._nearer(x, middle, index, lower, upper))

    def _nearer(
        self, x: Tensor, middle: Tensor, index: Tensor, lower: Tensor, upper: Tensor
    ) -> Tensor:
        """Return the upper ends from the middle of their gaps on, and the lower ones below."""
        if keras.config.backend() != "torch" or not is_plain(x):
            return ops.where(x >= middle, upper, lower)
        import torch

        # PyTorch's selection branches on each number, which costs more than a look at a table.
        passed = torch.ge(x, middle, out=torch.empty_like(index))
        return _taken(self._ascending(), passed.add_(index))


class GridGaps:
    """Gaps of a grid have one width: their ends are computed, and looked up nowhere.

    Args:
        values: A list that a `Grid` holds.
    """

    def __init__(self, values: Values) -> None:
        ascending = values.ascending
        self._low, self._high = values.low, values.high
        self._step = float(ascending[1]) - float(ascending[0])
        self._last = float(ascending[-2]) / self._step

    @staticmethod
    def holds(values: Values) -> bool:
        """Return whether the values are neighbouring multiples of a power of two."""
        return len(values) > 1 and Grid.holds(values.midpoints, values.ascending)

    def around(self, x: Tensor) -> Gap:
        """Return the gaps around the elements of a float32 tensor."""
        x = ops.stop_gradient(x)
        # All of it is exact: the step is a power of two, and its multiples are small.
        multiple = ops.floor(within(x, self._low, self._high) / self._step)
        lower = ops.minimum(multiple, self._last) * self._step
        upper = lower + self._step
        return Gap(lower, upper, ops.where(x >= lower + self._step / 2, upper, lower))


def limited(x: Tensor, low: Any, high: Any) -> Tensor:
    """Return a tensor limited to [low, high], of which no gradient is asked."""
    are_numbers = isinstance(low, float) and isinstance(high, float)
    return ops.clip(x, low, high) if are_numbers else clamp(x, low, high)


def _taken(table: Tensor, index: Tensor) -> Tensor:
    if keras.config.backend() != "torch":
        return taken(table, index)
    import torch

    # Keras's take makes tensors of 64-bit positions on the way.
    return torch.index_select(table, 0, index.reshape(-1)).reshape(index.shape)
