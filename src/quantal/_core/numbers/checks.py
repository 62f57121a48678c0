"""Checks of what users give as a list, as codes or as an axis.

Each check returns its argument in the form that the library works with, or raises an
error that says what came, what was expected and how to fix it.
"""

from collections.abc import Callable, Iterable
from numbers import Integral, Real
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from quantal._core.numbers.presets import NAMES

LONGEST_LIST = 65_536
"""The most values that a list may have, so that a code fits two bytes."""

SMALLEST_NORMAL = float(np.finfo(np.float32).smallest_normal)
LARGEST = float(np.finfo(np.float32).max)


def checked_list(values: Any) -> NDArray[np.float32]:
    """Return a user's list as float32 numbers, of shape (K,) or (channels, K).

    Raises:
        TypeError: An entry is no real number, or the argument is no list of any kind.
        ValueError: The list is empty, too long, of the wrong shape, or holds a number
            that is not finite, beyond float32, or equal to another one.
    """
    array = _as_real_array(values)
    if not 1 <= array.shape[-1] <= LONGEST_LIST or not array.size:
        raise ValueError(
            f"values has {array.shape[-1]} entries. A list has 1 to {LONGEST_LIST:,}. "
            "Give at least one number, and merge what lies close together in a longer list."
        )
    _refuse(
        array,
        ~np.isfinite(array),
        "{}. Every listed value must be a finite number. Remove it or give another number.",
    )
    _refuse(
        array,
        (np.abs(array) > LARGEST) | ((np.abs(array) < SMALLEST_NORMAL) & (array != 0)),
        "{}, which float32 cannot hold. "
        f"Magnitudes go from {SMALLEST_NORMAL:.3g} to {LARGEST:.3g}, or are 0. "
        "Multiply the whole list by a factor and divide the layer's output by it.",
    )
    numbers = array.astype(np.float32) + np.float32(0)  # -0.0 becomes 0.0
    _refuse_duplicates(array, numbers)
    return numbers


def check_finite_numbers(what: str, numbers: NDArray[Any], positive: bool = False) -> None:
    """Refuse the numbers of a parameter that training has let diverge.

    Args:
        what: Words that name the numbers and their parameter, such as "latents of dense/kernel".
        numbers: The numbers.
        positive: Whether they must be positive, too.

    Raises:
        ValueError: One of them is NaN or infinite, or not positive where it must be.
    """
    usable = np.isfinite(numbers)
    usable = usable & (numbers > 0) if positive else usable
    if usable.all():
        return
    first, kind = np.asarray(numbers)[~usable][0], "finite and positive" if positive else "finite"
    raise ValueError(
        f"{np.sum(~usable):,} of {np.size(numbers):,} {what} are not {kind}, such as {first}. "
        f"Expected {kind} numbers. Training has diverged: take weights from before that, and "
        "train with a lower learning rate."
    )


def checked_axis(axis: Any) -> int:
    """Return an axis as an integer.

    Raises:
        TypeError: The axis is not an integer.
    """
    if isinstance(axis, bool) or not isinstance(axis, (int, np.integer)):
        raise TypeError(
            f"axis is {axis!r}. Expected an integer, the axis of the weight that holds the "
            "channels. Give -1 for the last one."
        )
    return int(axis)


def checked_codes(codes: ArrayLike, length: int) -> NDArray[Any]:
    """Return codes of a list of this length as an array of integers.

    Raises:
        TypeError: The codes are not integers.
        ValueError: A code is negative or not below the length.
    """
    codes = np.asarray(codes)
    if codes.size == 0:
        return codes.astype(np.int32)
    if codes.dtype.kind not in "iu":
        raise TypeError(
            f"codes are of dtype {codes.dtype}. Codes are positions in the list, "
            "integers. Give integers, or use nearest() to go from numbers to values."
        )
    if codes.min() < 0 or codes.max() >= length:
        raise ValueError(
            f"codes go from {codes.min()} to {codes.max()}. The list has "
            f"{length} values, so codes go from 0 to {length - 1}. "
            "Check which list the codes belong to."
        )
    return codes


def _as_real_array(values: Any) -> NDArray[np.float64]:
    """Return one list as one dimension, and lists per channel as two."""
    if isinstance(values, (set, frozenset, dict)):
        raise TypeError(
            f"values is a {type(values).__name__}, which has no order. A code is a "
            "position in the list, so the order matters. Give a list or a tuple."
        )
    if hasattr(values, "__array__"):
        return _from_array(np.asarray(values))
    if not isinstance(values, Iterable) or isinstance(values, (bytes, bytearray)):
        raise TypeError(
            f"values is {values!r} of type {type(values).__name__}. Expected a list of "
            f"numbers or a preset's name ({', '.join(NAMES)}). "
            "For a single value give a list of one."
        )
    entries = list(values)
    if entries and all(isinstance(e, (list, tuple)) or np.ndim(e) == 1 for e in entries):
        return _from_rows([_as_real_array(entry) for entry in entries])
    return _from_entries(entries)


def _from_array(array: NDArray[Any]) -> NDArray[np.float64]:
    if array.ndim not in (1, 2):
        raise ValueError(
            f"values has the shape {array.shape}. A list has one dimension, lists for "
            "channels have two. Give one number after another, or a row for each channel."
        )
    if array.dtype.kind not in "iuf" and array.dtype.name != "bfloat16":
        raise TypeError(_not_real("values", f"of dtype {array.dtype}"))
    return array.astype(np.float64)


def _from_rows(rows: list[NDArray[np.float64]]) -> NDArray[np.float64]:
    if len({row.shape for row in rows}) > 1:
        raise ValueError(
            f"values has rows of {', '.join(str(row.size) for row in rows[:8])} entries. "
            "The lists of all channels have the same length. Make them equally long."
        )
    return np.stack(rows)


def _from_entries(entries: list[Any]) -> NDArray[np.float64]:
    for position, entry in enumerate(entries):
        if isinstance(entry, (bool, np.bool_)) or not isinstance(entry, (Real, np.floating)):
            raise TypeError(
                _not_real(f"values[{position}]", f"{entry!r} of type {type(entry).__name__}")
            )
    try:
        return np.array([float(entry) for entry in entries], np.float64)
    except OverflowError as error:
        raise ValueError(
            f"values holds an integer beyond every floating-point range ({error}). "
            f"Magnitudes go up to {LARGEST:.3g}. Divide the whole list by a factor."
        ) from None


def _not_real(name: str, what: str) -> str:
    return (
        f"{name} is {what}. Listed values are real numbers (integers or floats; not "
        "booleans, complex numbers or text). Convert it, for example True to 1."
    )


def _refuse(array: NDArray[np.float64], wrong: NDArray[np.bool_], words: str) -> None:
    """Raise a ValueError about the first number that is wrong, if there is one."""
    if wrong.any():
        index = tuple(int(i) for i in np.argwhere(wrong)[0])
        raise ValueError(f"{_entry(index)} is " + words.format(array[index]))


def _refuse_duplicates(array: NDArray[np.float64], numbers: NDArray[np.float32]) -> None:
    """Raise a ValueError if two numbers of one list are equal in float32."""
    for channel, row in enumerate(np.atleast_2d(numbers)):
        order = np.argsort(row, kind="stable")
        ascending = row[order]  # Not their differences, which may overflow.
        same = np.flatnonzero(ascending[1:] == ascending[:-1])
        if same.size:
            first, second = (
                (int(position),) if numbers.ndim == 1 else (channel, int(position))
                for position in sorted(order[same[0] : same[0] + 2])
            )
            in_float32 = " in float32" if array[first] != array[second] else ""
            raise ValueError(
                f"{_entry(first)} = {array[first]} and {_entry(second)} = {array[second]} "
                f"are the same number{in_float32}. "
                "The values of a list must differ. Remove one of them."
            )


def _entry(index: tuple[int, ...]) -> str:
    return f"values[{', '.join(map(str, index))}]"


def checked_not_negative(name: str, number: float) -> float:
    """Return a number as a float.

    Raises:
        TypeError: It is not a number.
        ValueError: It is below 0 or not finite.
    """
    return _checked_number(name, number, is_valid=lambda n: n >= 0, expected="a number from 0")


def checked_positive(name: str, number: float) -> float:
    """Return a number as a float.

    Raises:
        TypeError: It is not a number.
        ValueError: It is not above 0, or not finite.
    """
    return _checked_number(name, number, is_valid=lambda n: n > 0, expected="a positive number")


def checked_seed(seed: int) -> int:
    """Return the seed of random numbers as an int.

    Raises:
        ValueError: It is no whole number, or below 0.
    """
    if not isinstance(seed, Integral) or seed < 0:
        raise ValueError(
            f"seed is {seed!r}. Expected a whole number, 0 or above. Give one, say 0; another "
            "one for other random numbers."
        )
    return int(seed)


def _checked_number(
    name: str, number: float, is_valid: Callable[[float], bool], expected: str
) -> float:
    if isinstance(number, bool) or not isinstance(number, (int, float, np.number)):
        raise TypeError(
            f"{name} is {number!r} of type {type(number).__name__}. Expected {expected}."
        )
    if not (is_valid(number) and np.isfinite(number)):
        raise ValueError(f"{name} is {number!r}. Expected {expected}.")
    return float(number)
