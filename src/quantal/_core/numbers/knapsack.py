"""Choose one option of each group, so that all together fit and lose least: exactly."""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from quantal._core.numbers.values import Values

Floats = NDArray[np.float64]

_ROUNDING = 1e-9
"""The share of a loss by which sums in another order may differ."""


class Option(NamedTuple):
    """An option is a list that a weight may go on.

    Attributes:
        values: The list; None where the weight stays free.
        bytes: The bytes that the weight takes then.
        loss: What is lost by it.
    """

    values: Values | None
    bytes: int
    loss: float


@dataclasses.dataclass(frozen=True)
class Choice:
    """A choice is one of several options.

    Attributes:
        options: The options, in the order of the menu.
        index: The index of the one that was chosen.
    """

    options: tuple[Option, ...]
    index: int

    @property
    def option(self) -> Option:
        """The option that was chosen."""
        return self.options[self.index]


class _Bound(NamedTuple):
    """A bound gives for each group the least of `loss + price * bytes`, summed from it on.

    No assignment that fits loses less than the sum from the first group on less the price of the
    whole capacity, and the same holds for the rest of any assignment that was begun.
    """

    price: float
    rest: Floats


class _Begun(NamedTuple):
    """Assignments to the first groups have bytes, losses, and the way they were reached."""

    bytes: NDArray[np.int64]
    losses: Floats
    parents: NDArray[np.intp]
    options: NDArray[np.intp]


def choose(groups: Sequence[Sequence[Option]], capacity: int) -> list[int]:
    """Return the index of the option of each group with which the sum of losses is least.

    It is exact: dynamic programming over the assignments that no other one dominates, without
    those that a Lagrangian bound excludes. Of equal losses the fewest bytes are taken.

    Args:
        groups: The options of each group, one or more.
        capacity: The most bytes of all together.

    Raises:
        ValueError: The smallest options do not fit.

    Source: Kellerer, Pferschy, Pisinger, "Knapsack Problems", 2004, chapter 11.

    >>> small, large = Option(None, 1, 5.0), Option(None, 3, 1.0)
    >>> choose([[small, large], [small, large]], 4)
    [0, 1]
    """
    sizes = [np.array([option.bytes for option in group], np.int64) for group in groups]
    losses = [np.array([option.loss for option in group], np.float64) for group in groups]
    smallest = np.cumsum([0, *(size.min() for size in reversed(sizes))])[::-1]
    if smallest[0] > capacity:
        raise ValueError(
            f"The smallest options take {smallest[0]} bytes. Expected {capacity} or fewer. "
            "Give a larger capacity or smaller options."
        )
    bound, best = _bound_and_best(sizes, losses, capacity)
    tolerance = _ROUNDING * (1 + sum(float(np.abs(loss).max()) for loss in losses))
    begun = _Begun(np.zeros(1, np.int64), np.zeros(1), np.zeros(1, np.intp), np.zeros(1, np.intp))
    steps: list[_Begun] = []
    for group, (size, loss) in enumerate(zip(sizes, losses, strict=True)):
        parents, options = np.divmod(np.arange(len(begun.bytes) * len(size)), len(size))
        total = begun.bytes[parents] + size[options]
        lost = begun.losses[parents] + loss[options]
        least = lost + bound.rest[group + 1] + bound.price * (total - capacity)
        fits = (total + smallest[group + 1] <= capacity) & (least <= best + tolerance)
        kept = np.flatnonzero(fits)
        kept = kept[np.lexsort((lost[kept], total[kept]))]
        before = np.concatenate([[np.inf], np.minimum.accumulate(lost[kept])[:-1]])
        kept = kept[lost[kept] < before]
        begun = _Begun(total[kept], lost[kept], parents[kept], options[kept])
        steps.append(begun)
    index, result = len(begun.bytes) - 1, []
    for step in reversed(steps):
        result.append(int(step.options[index]))
        index = int(step.parents[index])
    return result[::-1]


def _bound_and_best(
    sizes: list[NDArray[np.int64]], losses: list[Floats], capacity: int
) -> tuple[_Bound, float]:
    """Return the highest bound of all prices, and the least loss that one of them reaches."""
    slopes = [np.zeros(1)]
    for size, loss in zip(sizes, losses, strict=True):
        more = size[None] - size[:, None]
        gains = (loss[:, None] - loss[None])[more > 0] / more[more > 0]
        slopes.append(gains[gains > 0])
    highest, bound = -np.inf, _Bound(0.0, np.zeros(len(sizes) + 1))
    # The smallest options fit, and the least loss of these is where the search begins.
    best = sum(
        float(loss[size == size.min()].min()) for size, loss in zip(sizes, losses, strict=True)
    )
    for price in np.unique(np.concatenate(slopes)):
        priced = [loss + price * size for size, loss in zip(sizes, losses, strict=True)]
        positions = [int(np.argmin(numbers)) for numbers in priced]
        total = sum(int(size[p]) for size, p in zip(sizes, positions, strict=True))
        if total <= capacity:
            lost = sum(float(loss[p]) for loss, p in zip(losses, positions, strict=True))
            best = min(best, lost)
        least = np.array([numbers.min() for numbers in priced])
        if least.sum() - price * capacity > highest:
            highest = float(least.sum() - price * capacity)
            bound = _Bound(float(price), np.cumsum([0.0, *least[::-1]])[::-1])
    return bound, best
