"""Write roundings in C: what becomes of a sum before it is stored."""

from typing import NamedTuple

import numpy as np

from quantal._export.c_integer.definitions import IntegerDefinitions
from quantal._export.integer.steps import Integers, Range, Requantization, Thresholds

_SHORT = 15
"""So many thresholds are compared one after the other; more are searched by halves."""
_INT32 = np.iinfo(np.int32)


class Rounded(NamedTuple):
    """A rounding in C.

    Attributes:
        text: The expression of the result from `sum` and the arguments; `@channel@` is the index
            of the channel.
        period: The number of channels.
        arguments: The names of the arrays in C, by the parameters that they are for.
    """

    text: str
    period: int
    arguments: dict[str, str]


def rounded(
    define: IntegerDefinitions,
    rounding: Thresholds | Requantization | None,
    bounds: Range,
    to: str,
) -> Rounded:
    """Return the expression of a rounding.

    Args:
        define: The definitions of the source.
        rounding: The rounding; None for a cast alone.
        bounds: The smallest and the largest sum.
        to: The type of the result in C.
    """
    if rounding is None:
        return Rounded("sum" if to == "int32_t" else f"({to})sum", 1, {})
    if isinstance(rounding, Thresholds):
        return _thresholds(define, rounding, to)
    return _requantization(define, rounding, bounds, to)


def _thresholds(define: IntegerDefinitions, rounding: Thresholds, to: str) -> Rounded:
    limits, falling, levels = rounding
    if len(limits) > 1 and (limits == limits[0]).all() and (falling == falling[0]).all():
        limits, falling = limits[:1], falling[:1]
    period, count = limits.shape
    reached, parameters, arguments = "sum >= limits[k]", "", {}
    if count:
        arguments["const int32_t *limits"] = define.array(
            "limits", "int32_t", limits.astype(np.int32).ravel()
        )
    if falling.all():
        reached = "sum <= limits[k]"
    elif falling.any():
        reached = "(falling ? sum <= limits[k] : sum >= limits[k])"
        parameters = ", int falling"
        flags = falling.astype(np.uint8)
        arguments["const uint8_t *falling"] = define.array("falling", "uint8_t", flags)
    level = _level(define, levels, to)
    if not count:
        return Rounded(f"({to}){levels[0]}", 1, {})
    file = "thresholds" if count <= _SHORT else "search"
    parts = {"to": to, "count": str(count), "reached": reached, "parameters": parameters}
    function = define.function("level", file, level=level, **parts)
    row = "limits" if period == 1 else f"limits + @channel@ * {count}"
    flag = ", falling[@channel@]" if parameters else ""
    return Rounded(f"{function}(sum, {row}{flag})", period, arguments)


def _level(define: IntegerDefinitions, levels: Integers, to: str) -> str:
    """Return the C expression of the level after `reached` thresholds."""
    spacing = np.diff(levels)
    if len(spacing) and (spacing == spacing[0]).all():
        first = f"{levels[0]} + " if levels[0] else ""
        factor = f"{spacing[0]} * " if spacing[0] != 1 else ""
        return f"({to})({first}{factor}reached)"
    return f"{define.array('levels', to, levels.astype(to.removesuffix('_t')))}[reached]"


def _requantization(
    define: IntegerDefinitions, rounding: Requantization, bounds: Range, to: str
) -> Rounded:
    tables = np.stack(rounding[:3])
    if (tables == tables[:, :1]).all():
        tables = tables[:, :1]
    multiplier, addend, shift = tables
    period = tables.shape[1]
    limits = {"low": str(rounding.low), "high": str(rounding.high), "to": to}
    ends = [*(addend + bounds.low), *(addend + bounds.high)]
    is_shift = (multiplier == 1).all() and (shift < 32).all()
    if is_shift and _INT32.min <= min(ends) and max(ends) <= _INT32.max:
        function = define.function("shifted", "shifted", **limits)
        arrays = {"addend": ("int32_t", addend), "shift": ("uint8_t", shift)}
    else:
        function = define.function("requantized", "requantized", **limits)
        arrays = {
            "multiplier": ("int32_t", multiplier),
            "addend": ("int64_t", addend),
            "shift": ("uint8_t", shift),
        }
    arguments = {
        f"const {kind} *{name}": define.array(name, kind, numbers.astype(kind.removesuffix("_t")))
        for name, (kind, numbers) in arrays.items()
    }
    text = ", ".join(f"{name}[@channel@]" for name in arrays)
    return Rounded(f"{function}(sum, {text})", period, arguments)
