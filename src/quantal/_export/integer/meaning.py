"""Follow which real numbers the integers of a network stand for."""

from typing import NamedTuple

import numpy as np

from quantal._export.graph.steps import Floats, Function, Softmax

RISING = (
    "relu", "sigmoid", "tanh", "elu", "softplus", "hard_sigmoid", "exponential", "hard_tanh",
    "softsign",
)  # fmt: skip
"""These functions never fall, with a slope and a factor of at least 0."""
_OTHERS = ("silu",)
"""Functions that fall somewhere: they can stand at an output alone."""


class Affine(NamedTuple):
    """An affine map computes `factor * x + offset` for each channel.

    Attributes:
        factor: Shape (period,).
        offset: Shape (period,).
    """

    factor: Floats
    offset: Floats


Map = Affine | Function | Softmax


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
        return int(np.lcm.reduce([1, *(len(m.factor) for m in self.maps if isinstance(m, Affine))]))

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
        return all(isinstance(each, Affine) or _rises(each) for each in self.maps)

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


def is_known(function: Function | Softmax) -> bool:
    """Return whether a function can be computed here."""
    return isinstance(function, Softmax) or function.name in (*RISING, *_OTHERS)


def is_one_scale(affine: Affine) -> bool:
    """Return whether all integers stand for themselves times one scale above 0."""
    factor = affine.factor
    return bool((factor == factor[0]).all() and factor[0] > 0 and not affine.offset.any())


def uniform(factor: float, offset: float = 0.0) -> Affine:
    """Return one affine map for all channels."""
    return Affine(np.array([factor], np.float64), np.array([offset], np.float64))


def evaluated(function: Function | Softmax, x: Floats) -> Floats:
    """Return a function of numbers in float64.

    Raises:
        KeyError: The function is not known here.
    """
    if isinstance(function, Softmax):
        return _softmax(function, x)
    with np.errstate(over="ignore"):
        match function.name:
            case "relu":
                slope, threshold, top = function.numbers
                return np.where(x < threshold, slope * (x - threshold), np.minimum(x, top))
            case "sigmoid":
                return 1 / (1 + np.exp(-x))
            case "tanh":
                return np.tanh(x)
            case "elu":
                return np.where(x < 0, function.numbers[0] * np.expm1(np.minimum(x, 0)), x)
            case "softplus":
                return np.logaddexp(0, x)
            case "hard_sigmoid":
                return np.clip(x / 6 + 0.5, 0, 1)
            case "hard_tanh":
                return np.clip(x, -1, 1)
            case "softsign":
                return x / (np.abs(x) + 1)
            case "silu":
                return x / (1 + np.exp(-x))
            case "exponential":
                return np.exp(x)
    raise KeyError(function.name)


def _softmax(function: Softmax, x: Floats) -> Floats:
    rows = x.reshape(*x.shape[:-1], -1, function.row)
    logarithms = rows - np.logaddexp.reduce(rows, axis=-1, keepdims=True)
    return (logarithms if function.log else np.exp(logarithms)).reshape(x.shape)


def _rises(function: Function | Softmax) -> bool:
    if isinstance(function, Softmax):
        return False
    if function.name == "relu":
        slope, threshold, _ = function.numbers
        return slope >= 0 and threshold >= 0
    return function.name in RISING and all(number >= 0 for number in function.numbers)


def _times(numbers: Floats, factor: Floats) -> Floats:
    """Return a product in which infinity times 0 is 0."""
    return np.where(factor == 0, 0.0, numbers * np.where(factor == 0, 1.0, factor))


def _aligned(*arrays: Floats) -> tuple[Floats, ...]:
    """Return arrays repeated to the same period."""
    period = int(np.lcm.reduce([len(array) for array in arrays]))
    return tuple(np.resize(array, period) for array in arrays)
