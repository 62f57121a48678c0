"""Read the limit that a user gives for the size of a model, and the menu that comes with it."""

import math
import re
from typing import Any, NamedTuple

import numpy as np

_UNITS = {
    "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9,
    "kib": 2**10, "mib": 2**20, "gib": 2**30,
}  # fmt: skip


class Limit(NamedTuple):
    """A limit is the most bytes of all weights, or the most bits for an element of the menu's.

    Attributes:
        bytes: The bytes, or None.
        bits: The bits, or None.
    """

    bytes: int | None
    bits: float | None


def limit_of(budget: Any, bits: Any, values: Any, data: Any) -> Limit | None:
    """Return what arguments of `discretize` limit; None where they say nothing of a menu.

    Raises:
        TypeError: The menu is no list or tuple, or a limit is no number.
        ValueError: Some of the arguments are missing, or a limit cannot be read.
    """
    if budget is None and bits is None and values is None and data is None:
        return None
    if (budget is None) == (bits is None) or values is None or data is None:
        arguments = {"budget": budget, "bits": bits, "values": values, "data": data}
        given = [name for name, argument in arguments.items() if argument is not None]
        raise ValueError(
            f"discretize was given {', '.join(given)}. Expected one of budget and bits, together "
            "with values, the menu of lists, and data, samples to measure on. Give all three."
        )
    _check_menu(values)
    if bits is not None:
        if isinstance(bits, bool) or not isinstance(bits, (int, float, np.number)):
            raise TypeError(f"bits is {bits!r}. Expected a number above 0, such as 2.5.")
        if not 0 < bits < math.inf:
            raise ValueError(f"bits is {bits!r}. Expected a finite number above 0, such as 2.5.")
        return Limit(None, float(bits))
    return Limit(_bytes_of_text(budget), None)


def _check_menu(values: Any) -> None:
    is_menu = isinstance(values, (list, tuple)) and len(values) > 0
    if not is_menu or any(isinstance(entry, (int, float, np.number)) for entry in values):
        raise TypeError(
            f"values is {values!r}. Expected a menu: a list or tuple of lists, such as "
            "['binary', [-1, 0, 1], 'powers_of_two:4']. A list of numbers is one of its entries."
        )
    if all(entry is None for entry in values):
        raise ValueError(
            "values names no list, only None. Expected one list or more. Add one, such as "
            "'ternary'."
        )


def _bytes_of_text(budget: Any) -> int:
    """Return the bytes of a budget, such as 60000 or "60 kB"."""
    number, unit = math.nan, 1
    if isinstance(budget, str):
        match = re.fullmatch(r"\s*([0-9.]+(?:e[0-9]+)?)\s*([a-z]+)\s*", budget, re.IGNORECASE)
        if match is not None and match[2].lower() in _UNITS and match[1].count(".") < 2:
            number, unit = float(match[1].strip(".") or "nan"), _UNITS[match[2].lower()]
    elif isinstance(budget, (int, float, np.number)) and not isinstance(budget, bool):
        number = float(budget)
    if not 0 < number * unit < math.inf:
        raise ValueError(
            f"budget is {budget!r}. Expected bytes above 0: a number, or a text with a unit of B, "
            "kB, MB, GB, KiB, MiB, GiB, such as '60 kB'."
        )
    return math.floor(number * unit)
