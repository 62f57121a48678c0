"""A projection gives each element of a tensor its nearest value, its code and its gap.

`Values` says the same in NumPy, and both agree to the bit: nearest value, code and the
ends of the gap are all step functions of the element (`step_functions`).
"""

import weakref
from collections.abc import Callable
from typing import Protocol

import keras
from keras import ops

from quantal._core.numbers.values import Values
from quantal._core.tensors.cheapest_form import step_function
from quantal._core.tensors.constants import Constant, along
from quantal._core.tensors.gaps import Gap, GapTable, GridGaps
from quantal._core.tensors.plain_torch import is_plain
from quantal._core.tensors.row_steps import RowSteps
from quantal._core.tensors.step_functions import LONGEST_CHAIN, LONGEST_EAGER_CHAIN
from quantal._core.tensors.torch_rows import plain_with_entry_gradient
from quantal._core.types import Tensor


class Projection(Protocol):
    """A projection is a list in the form that tensors meet.

    Its functions take a float32 tensor of any shape and return a tensor of that shape
    without gradient. Its numbers are Python floats, or tensors that broadcast where
    channels have lists of their own or the list moves in training.
    """

    @property
    def nearest(self) -> Callable[[Tensor], Tensor]:
        """The nearest listed value of each element, float32."""

    @property
    def codes(self) -> Callable[[Tensor], Tensor]:
        """The nearest value's position in the user's list, int32."""

    @property
    def lower(self) -> Callable[[Tensor], Tensor]:
        """The lower end of the gap around each element; below the list, of the first gap."""

    @property
    def upper(self) -> Callable[[Tensor], Tensor]:
        """The upper end of the gap around each element; above the list, of the last gap."""

    def around(self, x: Tensor) -> Gap:
        """Return the gaps around elements with the nearest values, in the cheapest way."""

    @property
    def low(self) -> Tensor:
        """The smallest value."""

    @property
    def high(self) -> Tensor:
        """The largest value."""

    @property
    def middle(self) -> Tensor:
        """The middle of the list's range."""

    @property
    def mean_gap(self) -> Tensor:
        """The mean gap between neighbours; 1 for a list of one value."""

    @property
    def normalized(self) -> Tensor:
        """The sorted list in mean gaps from the middle, along a last axis."""

    def __len__(self) -> int:
        """Return the number of values in the list."""


class FixedProjection:
    """A fixed projection maps onto one list whose numbers do not move.

    Args:
        values: The list; one for all channels.
    """

    def __init__(self, values: Values) -> None:
        ascending = values.ascending
        first_gap, last_gap = _gap_ends(len(values))
        self._length = len(values)
        self.nearest = step_function(values.midpoints, ascending)
        self.codes = step_function(values.midpoints, values.order)
        self.lower = step_function(ascending[1:-1], ascending[:first_gap])
        self.upper = step_function(ascending[1:-1], ascending[last_gap:])
        self._gaps = None if len(values) <= _longest_chain() else _gaps_of(values)
        self.low, self.high = values.low, values.high
        self.middle = values.low / 2 + values.high / 2
        self.mean_gap = (values.high - values.low) / (len(values) - 1) if len(values) > 1 else 1.0
        self.normalized = ((ascending - self.middle) / self.mean_gap).tolist()

    def around(self, x: Tensor) -> Gap:
        """Return the gaps around elements with the nearest values: one search for all three."""
        if self._gaps is not None:
            return self._gaps.around(x)
        if self._length <= 2:
            return Gap(self.low, self.high, self.nearest(x))
        return Gap(self.lower(x), self.upper(x), self.nearest(x))

    def __len__(self) -> int:
        return self._length


class RowsProjection:
    """A rows projection is the one onto lists per channel, or onto numbers that are a tensor.

    Args:
        ascending: float32, shape (channels, K), sorted along the last axis.
        midpoints: float32, shape (channels, K - 1).
        order: int32, shape (channels, K): the code of each value.
        axis: The channels' axis.
        rank: The rank of the tensors that it is used on.

    Attributes:
        entry: The function `nearest` with a gradient to the listed numbers.
    """

    def __init__(
        self, ascending: Tensor, midpoints: Tensor, order: Tensor, axis: int, rank: int
    ) -> None:
        self._length = ascending.shape[-1]
        first_gap, last_gap = _gap_ends(self._length)
        inner = ascending[:, 1:-1]
        self.nearest = RowSteps(midpoints, ascending, axis)
        self.codes = RowSteps(midpoints, order, axis)
        self.lower = RowSteps(inner, ascending[:, :first_gap], axis)
        self.upper = RowSteps(inner, ascending[:, last_gap:], axis)
        self.entry = RowSteps(midpoints, ascending, axis, differentiable=True)
        self._ascending, self._axis, self._rank = Constant(ascending), axis, rank
        self._midpoints = Constant(midpoints)

    def with_entries(self, value: Tensor, latent: Tensor) -> Tensor:
        """Return `value`, with a gradient to the listed numbers besides its own.

        Each number of the list gets the sum of the gradients of all elements that have it.

        Args:
            value: A tensor.
            latent: A tensor in its shape: the element's number is the one nearest to it.
        """
        if keras.config.backend() == "torch" and is_plain(latent) and is_plain(value):
            numbers = self._ascending(), self._midpoints()
            return plain_with_entry_gradient(value, *numbers, latent, self._axis)
        entry = self.entry(latent)
        return value + (entry - ops.stop_gradient(entry))

    def _column(self, index: int) -> Tensor:
        return along(ops.stop_gradient(self._ascending())[:, index], self._axis, self._rank)

    def around(self, x: Tensor) -> Gap:
        """Return the gaps around elements with the nearest values: a search for each."""
        return Gap(self.lower(x), self.upper(x), self.nearest(x))

    @property
    def low(self) -> Tensor:
        return self._column(0)

    @property
    def high(self) -> Tensor:
        return self._column(self._length - 1)

    @property
    def middle(self) -> Tensor:
        return self.low / 2 + self.high / 2

    @property
    def mean_gap(self) -> Tensor:
        gap = (self.high - self.low) / max(self._length - 1, 1)
        return ops.where(gap > 0, gap, 1.0)

    @property
    def normalized(self) -> Tensor:
        middle, gap = self.middle, self.mean_gap
        columns = [(self._column(index) - middle) / gap for index in range(self._length)]
        return ops.stack(columns, axis=-1)

    def __len__(self) -> int:
        return self._length


def _longest_chain() -> int:
    """Return the length up to which chains of selects are faster than a search of gaps."""
    return LONGEST_EAGER_CHAIN if keras.config.backend() == "torch" else LONGEST_CHAIN


def _gaps_of(values: Values) -> GapTable | GridGaps:
    """Return the gaps of a long list."""
    # PyTorch without its compiler makes a pass for each operation, and looks up all three in two.
    computes = keras.config.backend() != "torch" and GridGaps.holds(values)
    return GridGaps(values) if computes else GapTable(values)


def _gap_ends(length: int) -> tuple[int, int]:
    """Return where the lower ends of a sorted list's gaps stop, and where the upper ones start.

    A list of one value has one gap, without width.
    """
    return max(length - 1, 1), min(length - 1, 1)


def projection_of(values: Values, rank: int = 1) -> "FixedProjection | RowsProjection":
    """Return the projection onto a list as it stands; it is created once for each `Values`.

    Args:
        values: The list, or the lists per channel.
        rank: The rank of the tensors that it is used on; lists per channel need it.
    """
    by_rank = _PROJECTIONS.get(id(values))
    if by_rank is None:
        by_rank = _PROJECTIONS[id(values)] = {}
        # The entry goes with the list, before another object can get its identity.
        weakref.finalize(values, _PROJECTIONS.pop, id(values), None)
    rank = 1 if values.channels is None else rank
    projection = by_rank.get(rank)
    if projection is None:
        projection = by_rank[rank] = (
            FixedProjection(values)
            if values.channels is None
            else RowsProjection(values.ascending, values.midpoints, values.order, values.axis, rank)
        )
    return projection


_PROJECTIONS: dict[int, dict[int, FixedProjection | RowsProjection]] = {}
"""This cache has the projections of each list, by its identity and the rank.

PyTorch's compiler traces this look-up, but neither functools.cache nor a WeakKeyDictionary,
which compares lists by their numbers."""


def moving_projection(numbers: Tensor, axis: int, rank: int) -> RowsProjection:
    """Return the projection onto numbers that training moves.

    The midpoints are `Values.midpoints` of a learnable list, to the bit.

    Args:
        numbers: float32 tensor, shape (K,) or (channels, K), in the user's order.
        axis: The channels' axis.
        rank: The rank of the tensors that it is used on.
    """
    numbers = ops.convert_to_tensor(numbers)
    numbers = ops.reshape(numbers, (-1, numbers.shape[-1]))
    order = ops.cast(ops.argsort(ops.stop_gradient(numbers), axis=-1), "int32")
    ascending = ops.take_along_axis(numbers, order, axis=-1)
    fixed = ops.stop_gradient(ascending)
    below, above = fixed[:, :-1], fixed[:, 1:]
    middle = below * 0.5 + above * 0.5
    midpoints = ops.where(middle > below, middle, above)
    return RowsProjection(ascending, midpoints, order, axis, rank)


def offsets_in_half_gaps(latent: Tensor, nearest: Tensor, listed: Projection) -> Tensor:
    """Return how far latents lie from their nearest values, in half gaps: -1 to 1.

    Latents beyond the list count as at its ends. No gradient passes.

    Args:
        latent: float32 tensor, in the units of the list.
        nearest: The latents' nearest values.
        listed: The list.
    """
    gap = Gap(listed.lower(latent), listed.upper(latent), nearest)
    return gap.offsets(latent, listed.low, listed.high)
