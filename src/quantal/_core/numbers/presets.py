"""Lists of numbers that the field has names for.

A preset's name is the name of the constructor in `Values`; a number behind a colon is
the constructor's `bits`: `Values("signed:4")` is `Values.signed(4)`. To add a preset,
add a function here, its name to `_WITH_BITS` or `_WITHOUT_BITS`, and a constructor of
the same name to `Values`.
"""

import functools
import re
from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray

# NormalFloat in 4 bits, as published: quantiles of a normal distribution, and zero.
_NF4 = (
    -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453,
    -0.28444138169288635, -0.18477343022823334, -0.09105003625154495, 0.0,
    0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
    0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0,
)  # fmt: skip


def binary() -> NDArray[np.float64]:
    """Return -1 and 1."""
    return np.array([-1.0, 1.0])


def ternary() -> NDArray[np.float64]:
    """Return -1, 0 and 1."""
    return np.array([-1.0, 0.0, 1.0])


def zero_one() -> NDArray[np.float64]:
    """Return 0 and 1."""
    return np.array([0.0, 1.0])


def nf4() -> NDArray[np.float64]:
    """Return the 16 values of 4-bit NormalFloat."""
    return np.array(_NF4)


def signed(bits: int, step: float = 1.0) -> NDArray[np.float64]:
    """Return the multiples of `step` from -2^(bits-1) to 2^(bits-1) - 1."""
    _check_bits("signed", bits, 1)
    half = 2 ** (bits - 1)
    return np.arange(-half, half) * float(step)


def unsigned(bits: int, step: float = 1.0) -> NDArray[np.float64]:
    """Return the multiples of `step` from 0 to 2^bits - 1."""
    _check_bits("unsigned", bits, 1)
    return np.arange(2**bits) * float(step)


def powers_of_two(bits: int, largest: float = 1.0) -> NDArray[np.float64]:
    """Return zero and 2^(bits-1) - 1 powers of two of either sign, down from `largest`."""
    _check_bits("powers_of_two", bits, 2, 7)
    return _with_both_signs(_halves_of(largest, 2 ** (bits - 1) - 1), zero=True)


def nonzero_powers_of_two(bits: int, largest: float = 1.0) -> NDArray[np.float64]:
    """Return 2^(bits-1) powers of two of either sign, down from `largest`."""
    _check_bits("nonzero_powers_of_two", bits, 1, 7)
    return _with_both_signs(_halves_of(largest, 2 ** (bits - 1)), zero=False)


def additive_powers_of_two(bits: int, largest: float = 1.0) -> NDArray[np.float64]:
    """Return sums of powers of two, as `Values.additive_powers_of_two` describes them."""
    _check_bits("additive_powers_of_two", bits, 2, 16)
    pairs, single = divmod(bits - 1, 2)
    terms: list[list[float]] = [[0.0] for _ in range(pairs + single)]
    dealt = [*range(pairs)] * 2 + [*range(pairs, pairs + single)] + [*range(pairs)]
    for exponent, term in enumerate(dealt, start=1):
        terms[term].append(2.0**-exponent)
    sums = functools.reduce(np.add.outer, terms, np.zeros(())).ravel()
    magnitudes = np.sort(sums[sums > 0])
    return _with_both_signs(magnitudes * (float(largest) / magnitudes[-1]), zero=True)


_WITHOUT_BITS: dict[str, Callable[[], NDArray[np.float64]]] = {
    "binary": binary,
    "ternary": ternary,
    "zero_one": zero_one,
    "nf4": nf4,
}
_WITH_BITS: dict[str, Callable[[int], NDArray[np.float64]]] = {
    "signed": signed,
    "unsigned": unsigned,
    "powers_of_two": powers_of_two,
    "nonzero_powers_of_two": nonzero_powers_of_two,
    "additive_powers_of_two": additive_powers_of_two,
}

NAMES = (*_WITHOUT_BITS, *(f"{name}:4" for name in _WITH_BITS))
"""All presets' names, for error messages; 4 stands for any number of bits."""


def numbers_of(name: str) -> NDArray[np.float64]:
    """Return the numbers of the preset with the given name.

    Args:
        name: For example `"ternary"` or `"signed:4"`.

    Raises:
        ValueError: There is no such preset, or not with so many bits.
    """
    match = re.fullmatch(r"([a-z0-9_]+?)(?::([0-9]{1,2}))?", name.strip())
    if match:
        word, bits = match.groups()
        if bits and word in _WITH_BITS:
            return _WITH_BITS[word](int(bits))
        if not bits and word in _WITHOUT_BITS:
            return _WITHOUT_BITS[word]()
    raise ValueError(
        f"values is the name {name!r}. Expected one of {', '.join(NAMES)} (4 stands "
        "for the bits per value). For other values give a list of numbers."
    )


def name_of(numbers: ArrayLike) -> str | None:
    """Return the name of the preset that a list is, in whatever order; None where it is none.

    A preset with another step or largest value is named as its constructor is called.

    >>> name_of([1, -1]), name_of([0, 0.5, -0.5, -1]), name_of([1, 2, 4])
    ('binary', 'signed(2, step=0.5)', None)
    """
    ascending = np.sort(np.asarray(numbers, np.float32))
    for name, preset in _WITHOUT_BITS.items():
        if np.array_equal(preset().astype(np.float32), ascending):
            return name
    count = len(ascending)
    bits = count.bit_length()
    if count == 2 ** (bits - 1):
        bits -= 1
    elif count != 2**bits - 1:
        return None
    return next(filter(None, (_name_with(name, bits, ascending) for name in _WITH_BITS)), None)


def _name_with(name: str, bits: int, ascending: NDArray[np.float32]) -> str | None:
    """Return how a preset of so many bits is called if it is this list; None if it is not."""
    try:
        plain = _WITH_BITS[name](bits)
    except ValueError:
        return None
    if np.array_equal(plain.astype(np.float32), ascending):
        return f"{name}:{bits}"
    argument = "step" if name in ("signed", "unsigned") else "largest"
    factor = float(str(ascending[-1])) / plain[-1] if plain[-1] else 0.0
    if factor > 0 and np.array_equal((plain * factor).astype(np.float32), ascending):
        return f"{name}({bits}, {argument}={np.float32(factor)})"
    return None


def _halves_of(largest: float, count: int) -> NDArray[np.float64]:
    return float(largest) * 2.0 ** -np.arange(count, dtype=np.float64)


def _with_both_signs(magnitudes: NDArray[np.float64], zero: bool) -> NDArray[np.float64]:
    return np.sort(np.concatenate([-magnitudes, [0.0] if zero else [], magnitudes]))


def _check_bits(name: str, bits: int, fewest: int, most: int = 16) -> None:
    if isinstance(bits, bool) or not isinstance(bits, (int, np.integer)):
        raise TypeError(f"{name}: bits is {bits!r}. Expected an integer. Give, say, 4.")
    if not fewest <= bits <= most:
        raise ValueError(
            f"{name}: bits is {bits}. Expected {fewest} to {most}. Give a number between them."
        )
