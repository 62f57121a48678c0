"""Increasing functions turn a loss into one of a known structure, with the same best vector.

A loss is often the square root, the decibels or the reciprocal of what has a structure.
"""

import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple

import numpy as np

from quantal.objectives.problem import Floats, Integers, Problem

_TRIALS = 4
"""So many third differences decide whether a loss is quadratic."""
TOLERANCE, TOLERANCE_OF_SINGLE = 1e-7, 1e-4
"""How far numbers may differ, relative to their range, for a loss in double and in single
precision."""
LOGARITHMS = tuple(
    factor * base
    for base in (1.0, math.log(2), math.log(10), math.log(10) / 10)
    for factor in (1, 2)
)
"""What `-log(x**2)` and `-log(x)` are multiplied by to be natural logarithms of squares, for the
bases e, 2 and 10, and in decibels."""
_MOST_EXPONENT = 300.0
"""Larger exponents are left out: their powers leave the range of a float."""
_SMALLEST_RANGE = 1e-300
"""A range below this is none: all losses are the same."""


class Increasing(NamedTuple):
    """An increasing function of losses.

    Attributes:
        name: What the loss is, in words.
        function: Takes losses (batch,) to numbers (batch,).
    """

    name: str
    function: Callable[[Floats], Floats]


AS_IT_IS = Increasing("a quadratic function", lambda losses: losses)
"""The loss itself."""


def tolerance_of(losses: Floats) -> float:
    """Return how far numbers may differ: more where losses come in single precision."""
    return TOLERANCE_OF_SINGLE if is_single(losses) else TOLERANCE


@np.errstate(over="ignore")
def is_single(losses: Floats) -> bool:
    """Return whether losses come in single precision."""
    return bool((losses == losses.astype(np.float32)).all())


class ThirdDifferences:
    """Third differences vanish where a function is quadratic in the terms of its elements.

    A few of them reject most other functions, whatever the lists are.

    Args:
        problem: The lists, and which elements are fixed.
        random: Draws assignments, and groups of elements that change together.

    Attributes:
        codes: The assignments whose losses are needed, (batch, n).
    """

    def __init__(self, problem: Problem, random: np.random.Generator) -> None:
        rows = []
        for _ in range(_TRIALS):
            first, second = problem.draw(random), problem.draw(random)
            group = random.integers(0, 3, len(problem))
            for subset in range(8):
                changed = (subset >> group & 1).astype(bool)
                rows.append(np.where(changed, second, first))
        self.codes: Integers = np.stack(rows)
        signs = [(-1) ** subset.bit_count() for subset in range(8)]
        self._signs = np.tile(signs, (_TRIALS, 1))

    @np.errstate(all="ignore")
    def of(self, losses: Floats) -> Floats:
        """Return the third differences, (trials,)."""
        return np.asarray((losses.reshape(self._signs.shape) * self._signs).sum(axis=1))

    @np.errstate(all="ignore")
    def quadratic_forms(self, losses: Floats) -> list[Increasing]:
        """Return increasing functions that make the losses quadratic, the most exact first.

        Infinite losses, and those whose squares leave the range of a float, give none.
        """
        residuals = []
        for form in _forms(losses, self):
            numbers = form.function(losses)
            spread = float(np.ptp(numbers))
            if np.isfinite(numbers).all() and spread > _SMALLEST_RANGE:
                residuals.append((float(np.abs(self.of(numbers)).max()) / spread, form))
        residuals.sort(key=lambda pair: pair[0])
        return [form for residual, form in residuals if residual <= tolerance_of(losses)]


def _forms(losses: Floats, differences: ThirdDifferences) -> Iterator[Increasing]:
    """Yield increasing functions that may make losses quadratic."""
    yield AS_IT_IS
    yield from _squares(losses, differences)
    yield from reciprocals(losses)
    yield from powers(losses)


def reciprocals(losses: Floats) -> Iterator[Increasing]:
    """Yield increasing reciprocals of losses that are all of one sign."""
    if (losses > 0).all():
        yield Increasing("a reciprocal of a square", lambda x: -1 / x)
        yield Increasing("a reciprocal of a magnitude", lambda x: -1 / x**2)
    if (losses < 0).all():
        yield Increasing("a negative reciprocal of a square", lambda x: -1 / x)
        yield Increasing("a negative reciprocal of a magnitude", lambda x: 1 / x**2)


def powers(losses: Floats) -> Iterator[Increasing]:
    """Yield increasing powers, for losses that are logarithms."""
    middle = float(np.median(losses))
    for factor in LOGARITHMS:
        if np.abs(factor * (losses - middle)).max() < _MOST_EXPONENT:
            yield Increasing("a negative logarithm", partial(_power, -factor, middle))
            yield Increasing("a logarithm", partial(_power, factor, middle))


def _squares(losses: Floats, differences: ThirdDifferences) -> Iterator[Increasing]:
    """Yield the square of the losses' distance from a constant on one side of them.

    Formula: the third differences of `(loss - c)**2` vanish for the constant `c`, which
    they determine.
    """
    of_losses, of_squares = differences.of(losses), differences.of(losses**2)
    square = float(of_losses @ of_losses)
    solved = float(of_losses @ of_squares) / (2 * square) if square > 0 else 0.0
    for constant in (0.0, solved):
        # On the other side the square would not grow with the loss.
        if (losses <= constant).all():
            yield Increasing("a negative magnitude", partial(_square, constant, -1.0))
        if (losses >= constant).all():
            yield Increasing("a magnitude", partial(_square, constant, 1.0))


def _square(constant: float, sign: float, losses: Floats) -> Floats:
    return np.asarray(sign * (losses - constant) ** 2)


def _power(factor: float, middle: float, losses: Floats) -> Floats:
    with np.errstate(over="ignore"):
        return np.asarray(np.sign(factor) * np.exp(factor * (losses - middle)))
