"""Follow which real numbers the integers of a network stand for."""

from typing import NamedTuple

import numpy as np

from quantal._export.graph.steps import Floats, Function, Slopes, Softmax
from quantal._export.integer.functions import evaluated, turns_of


class Affine(NamedTuple):
    """An affine map computes `factor * x + offset` for each channel.

    Attributes:
        factor: Shape (period,).
        offset: Shape (period,).
    """

    factor: Floats
    offset: Floats


Map = Affine | Function | Slopes | Softmax


class Clipped(NamedTuple):
    """A clipped affine map computes `min(max(factor * x + offset, low), high)`.

    Attributes:
        factor: Shape (period,).
        offset: Shape (period,).
        low: Shape (period,), infinite where nothing is clipped.
        high: Shape (period,), infinite where nothing is clipped.
    """

    factor: Floats
    offset: Floats
    low: Floats
    high: Floats


class Meaning(NamedTuple):
    """A meaning says which real number an integer stands for: maps, one after the other.

    Attributes:
        maps: The maps, applied in order to the integer as a float64.
    """

    maps: tuple[Map, ...] = ()

    @property
    def period(self) -> int:
        """The number of channels after which the maps repeat."""
        return int(np.lcm.reduce([1, *map(_period_of, self.maps)]))

    def split(self) -> "tuple[Affine, tuple[Map, ...]]":
        """Return the affine maps at the beginning as one, and the maps after them."""
        affine, position = uniform(1.0), 0
        for position in range(len(self.maps) + 1):
            joined = Meaning(self.maps[:position]).affine
            if joined is None:
                return affine, self.maps[position - 1 :]
            affine = joined
        return affine, ()

    @property
    def affine(self) -> Affine | None:
        """The maps as one affine map; None where one of them is another function."""
        factor, offset = np.ones(1), np.zeros(1)
        for each in self.maps:
            if not isinstance(each, Affine):
                return None
            factor, offset, *others = _aligned(factor, offset, *each)
            factor, offset = factor * others[0], offset * others[0] + others[1]
        return Affine(factor, offset)

    @property
    def clipped(self) -> Clipped | None:
        """The maps as a clipped affine map; None where they are another function."""
        factor, offset = np.ones(1), np.zeros(1)
        low, high = np.full(1, -np.inf), np.full(1, np.inf)
        for each in self.maps:
            if isinstance(each, Affine):
                factor, offset, low, high, f, o = _aligned(factor, offset, low, high, *each)
                factor, offset = factor * f, offset * f + o
                ends = _times(low, f) + o, _times(high, f) + o
                low, high = np.minimum(*ends), np.maximum(*ends)
            elif isinstance(each, Function) and each.name == "relu" and each.numbers[:2] == (0, 0):
                bottom, top = 0.0, each.numbers[2]
                low, high = np.clip(low, bottom, top), np.clip(high, bottom, top)
            elif isinstance(each, Function) and each.name == "hard_tanh":
                low, high = np.clip(low, -1, 1), np.clip(high, -1, 1)
            else:
                return None
        return Clipped(*_aligned(factor, offset, low, high))

    @property
    def is_monotone(self) -> bool:
        """Whether larger integers never stand for smaller numbers, or never for larger ones."""
        return self.is_by_number and not any(
            turns_of(each) for each in self.maps if isinstance(each, Function | Slopes)
        )

    @property
    def is_by_number(self) -> bool:
        """Each number depends on its own integer alone; not so after a softmax."""
        return not any(isinstance(each, Softmax) for each in self.maps)

    @property
    def falling(self) -> "np.ndarray[tuple[int, ...], np.dtype[np.bool_]]":
        """Where larger integers stand for smaller numbers, shape (period,), of a monotone one."""
        falling = np.zeros(self.period, bool)
        for each in self.maps:
            if isinstance(each, Affine):
                falling ^= np.resize(each.factor < 0, self.period)
        return falling

    def then(self, *maps: Map) -> "Meaning":
        """Return the meaning with further maps after its own."""
        return Meaning((*self.maps, *maps))

    def numbers(self, integers: Floats) -> Floats:
        """Return the real numbers of integers.

        Args:
            integers: float64, shape (..., a multiple of the period).
        """
        numbers = integers
        with np.errstate(over="ignore"):
            for each in self.maps:
                if isinstance(each, Affine):
                    repeats = integers.shape[-1] // len(each.factor)
                    numbers = np.tile(each.factor, repeats) * numbers
                    numbers = numbers + np.tile(each.offset, repeats)
                else:
                    numbers = evaluated(each, numbers)
        return numbers


def is_one_scale(affine: Affine) -> bool:
    """Return whether all integers stand for themselves times one scale above 0."""
    factor = affine.factor
    return bool((factor == factor[0]).all() and factor[0] > 0 and not affine.offset.any())


def uniform(factor: float, offset: float = 0.0) -> Affine:
    """Return one affine map for all channels."""
    return Affine(np.array([factor], np.float64), np.array([offset], np.float64))


def _period_of(each: Map) -> int:
    """Return the number of channels after which a map repeats."""
    if isinstance(each, Affine):
        return len(each.factor)
    return len(each.slopes) if isinstance(each, Slopes) else 1


def _times(numbers: Floats, factor: Floats) -> Floats:
    """Return a product in which infinity times 0 is 0."""
    return np.where(factor == 0, 0.0, numbers * np.where(factor == 0, 1.0, factor))


def _aligned(*arrays: Floats) -> tuple[Floats, ...]:
    """Return arrays repeated to the same period."""
    period = int(np.lcm.reduce([len(array) for array in arrays]))
    return tuple(np.resize(array, period) for array in arrays)
