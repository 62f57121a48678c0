"""Numbers that parts come in: the E-series of resistors and capacitors, and steps in decibels."""

import math
from numbers import Integral, Real

import numpy as np
from numpy.typing import NDArray

_E24 = (
    100, 110, 120, 130, 150, 160, 180, 200, 220, 240, 270, 300,
    330, 360, 390, 430, 470, 510, 560, 620, 680, 750, 820, 910,
)  # fmt: skip
"""E24 in hundredths of a decade's start; it and the series in it do not follow the formula."""
_BY_TABLE, _BY_FORMULA = (3, 6, 12, 24), (48, 96, 192)
_EXCEPTION = (919, 920)
"""E192 has 9.20 where its formula gives 9.19 (IEC 60063)."""
_ROUNDING = 1e-9
"""A last step that misses the end by this share of a step is taken."""


def e_series(count: int, low: float, high: float) -> NDArray[np.float64]:
    """Return the numbers of an E-series from `low` to `high`, as `Values.e_series` describes."""
    if not isinstance(count, Integral) or count not in (*_BY_TABLE, *_BY_FORMULA):
        known = ", ".join(map(str, (*_BY_TABLE, *_BY_FORMULA)))
        raise ValueError(f"count is {count!r}. Expected one of {known}. Give 24 for E24.")
    if not _are_numbers(low, high) or not 0 < low <= high < math.inf:
        raise ValueError(
            f"low is {low!r} and high is {high!r}. Expected positive numbers, low first. Give, for "
            "example, low=1e3, high=1e6 for 1 kOhm to 1 MOhm."
        )
    if count in _BY_TABLE:
        digits = list(_E24[:: len(_E24) // count])
    else:
        digits = [round(100 * 10 ** (index / count)) for index in range(count)]
        digits = [_EXCEPTION[1] if digit == _EXCEPTION[0] else digit for digit in digits]
    decades = range(math.floor(math.log10(low)) - 1, math.ceil(math.log10(high)) + 1)
    # Read from text, each is the number that one would write.
    numbers = np.array([float(f"{digit}e{decade - 2}") for decade in decades for digit in digits])
    within = numbers[_is_within(numbers, low, high)]
    if not len(within):
        raise ValueError(
            f"E{count} has no number from {low:g} to {high:g}. Expected at least one. Widen them."
        )
    return within


def decibels(low: float, high: float, step: float) -> NDArray[np.float64]:
    """Return the factors of amplitudes from `low` to `high` decibels, in steps."""
    is_range = _are_numbers(low, high, step) and -math.inf < low <= high < math.inf
    if not is_range or not step > 0:
        raise ValueError(
            f"low is {low!r}, high is {high!r} and step is {step!r}. Expected finite decibels, low "
            "first, and a positive step. Give, for example, low=-31.5, high=0, step=0.5."
        )
    count = math.floor((high - low) / step + _ROUNDING) + 1
    return 10.0 ** ((low + step * np.arange(count)) / 20)


def between(numbers: NDArray[np.float32], low: float, high: float) -> NDArray[np.float32]:
    """Return those of some numbers that are from `low` to `high`, in their order."""
    if not _are_numbers(low, high):
        raise ValueError(f"low is {low!r} and high is {high!r}. Expected numbers: 4.7e3 for 4.7 k.")
    within = numbers[_is_within(numbers, low, high)]
    if not len(within):
        raise ValueError(
            f"No value is from {low:g} to {high:g}. Expected at least one of a list from "
            f"{numbers.min():g} to {numbers.max():g}. Widen the limits."
        )
    return within


def _are_numbers(*limits: object) -> bool:
    return all(isinstance(limit, Real) for limit in limits)


def _is_within(numbers: NDArray[np.floating], low: float, high: float) -> NDArray[np.bool_]:
    # Limits and numbers may be roundings of the same decimal.
    slack = 4 * np.finfo(numbers.dtype).eps
    return (numbers >= low - slack * abs(low)) & (numbers <= high + slack * abs(high))
