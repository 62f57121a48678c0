"""Ranks are positions in lists in ascending order, so that neighbouring ranks have near values."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quantal._core.parameter import Parameter
from quantal._core.tensors.distributed import whole_array
from quantal.objectives.problem import Integers, Problem


class AscendingLists:
    """Ascending lists translate an assignment of some parameters between ranks, codes and values.

    An assignment is an array of ranks (n,), the elements of all parameters one after the other.
    The rank of an element is the position of its value in its list in ascending order; its code
    is the position in the list as the user gave it.

    Args:
        parameters: The parameters.

    Attributes:
        sizes: The number of elements of each parameter.
        lengths: The number of values that each element may have, (n,).
    """

    def __init__(self, parameters: Sequence[Parameter]) -> None:
        self._parameters = list(parameters)
        self._lists = [_AscendingList(parameter) for parameter in parameters]
        self.sizes = [one.size for one in self._lists]
        self.lengths: Integers = np.repeat([one.length for one in self._lists], self.sizes)

    def __len__(self) -> int:
        return len(self.lengths)

    def ranks(self) -> Integers:
        """Return the ranks that the parameters have now."""
        pairs = zip(self._lists, self._parameters, strict=True)
        return np.concatenate([one.ranks(parameter.codes) for one, parameter in pairs])

    def follow(self) -> bool:
        """Read learnable lists anew, which have moved; return whether their order is as before."""
        same_order = True
        for index, parameter in enumerate(self._parameters):
            if parameter.values.learnable:
                before, self._lists[index] = self._lists[index], _AscendingList(parameter)
                same_order = same_order and self._lists[index].has_order_of(before)
        return same_order

    def assign(self, ranks: Integers) -> None:
        """Give the parameters an assignment; elements that have it already keep their latents."""
        for one, parameter, new, old in zip(
            self._lists, self._parameters, self.split(ranks), self.split(self.ranks()), strict=True
        ):
            changes = (new != old).reshape(parameter.shape)
            if changes.any():
                parameter.set_codes(one.codes(new).reshape(parameter.shape), changes)

    def values(self, ranks: Integers) -> NDArray[np.float32]:
        """Return the vectors of listed values (..., n) of assignments (..., n)."""
        pairs = zip(self._lists, self.split(ranks), strict=True)
        return np.concatenate([one.values(part) for one, part in pairs], axis=-1)

    def values_at(self, elements: Integers, ranks: Integers) -> NDArray[np.float32]:
        """Return the values (count,) that some elements have at ranks of theirs (count,)."""
        ends = np.cumsum(self.sizes)
        owners = np.searchsorted(ends, elements, side="right")
        values = np.empty(len(elements), np.float32)
        for index in np.unique(owners):
            mask = owners == index
            first = ends[index] - self.sizes[index]
            values[mask] = self._lists[index].values_at(elements[mask] - first, ranks[mask])
        return values

    def steps(self, before: Integers, after: Integers) -> NDArray[np.float64]:
        """Return by how much each element's value changes between two assignments."""
        return self.values(after).astype(float) - self.values(before)

    def neighbours(self, ranks: Integers, random: np.random.Generator) -> Integers:
        """Draw a neighbouring rank for each element, up or down with the same probability."""
        up = random.random(len(ranks)) < 0.5
        up = np.where(ranks == 0, True, np.where(ranks == self.lengths - 1, False, up))
        return np.clip(ranks + np.where(up, 1, -1), 0, self.lengths - 1)

    def problem(self, start: Integers) -> Problem:
        """Return the same assignments as a problem for search, whose codes are the ranks.

        Its memory grows with the number of elements times that of values.
        """
        rows = [row for one in self._lists for row in one.values_of_each_element()]
        return Problem(rows, None, start, None, 0)

    def split(self, array: NDArray[Any]) -> list[NDArray[Any]]:
        """Return the part (..., size) of each parameter, of an array (..., n)."""
        return np.split(array, np.cumsum(self.sizes)[:-1], axis=-1)


class _AscendingList:
    """An ascending list has the values of one parameter in order, with a row for each channel."""

    def __init__(self, parameter: Parameter) -> None:
        values = parameter.values
        self.size = int(np.prod(parameter.shape))
        self._ascending = np.atleast_2d(values.ascending)
        self._codes_of_ranks = np.atleast_2d(values.order)
        self._ranks_of_codes = np.argsort(self._codes_of_ranks, axis=1)
        self.length = self._ascending.shape[1]
        self._channels: NDArray[np.int64] | None = None
        """The channel of each element, for a list with channels."""
        if values.channels is not None:
            along_last = np.moveaxis(np.zeros(parameter.shape, np.int64), values.axis, -1)
            along_last = along_last + np.arange(values.channels)
            self._channels = np.moveaxis(along_last, -1, values.axis).reshape(-1)

    def has_order_of(self, other: "_AscendingList") -> bool:
        """Return whether each rank has the same code in both lists."""
        return np.array_equal(self._codes_of_ranks, other._codes_of_ranks)

    def values(self, ranks: Integers) -> NDArray[np.float32]:
        """Return the values of ranks (..., size)."""
        return self._entries(self._ascending, ranks)

    def values_at(self, positions: Integers, ranks: Integers) -> NDArray[np.float32]:
        """Return the values of ranks of the elements at some positions, both (count,)."""
        if self._channels is None:
            return self._ascending[0][ranks]
        return self._ascending[self._channels[positions], ranks]

    def codes(self, ranks: Integers) -> Integers:
        """Return the codes of ranks (size,)."""
        return self._entries(self._codes_of_ranks, ranks)

    def ranks(self, codes: Any) -> Integers:
        """Return the ranks (size,) of codes in the parameter's shape."""
        flat = np.asarray(whole_array(codes)).reshape(-1)
        return self._entries(self._ranks_of_codes, flat).astype(np.int64)

    def values_of_each_element(self) -> NDArray[np.float32]:
        """Return the list of each element, (size, length)."""
        channels = np.zeros(self.size, np.int64) if self._channels is None else self._channels
        return self._ascending[channels]

    def _entries(self, table: NDArray[Any], positions: Integers) -> NDArray[Any]:
        if self._channels is None:
            return table[0][positions]
        return table[self._channels, positions]
