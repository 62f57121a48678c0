"""Write roundings in C: what becomes of a sum before it is stored."""

from typing import NamedTuple

import numpy as np

from quantal._export.c_integer.definitions import IntegerDefinitions
from quantal._export.integer.steps import (
    Integers,
    Range,
    Requantization,
    Rounding,
    Staircase,
    Thresholds,
)
from quantal._export.operations import Operations

_SHORT = 15
"""So many thresholds are compared one after the other; more are searched by halves."""
_NARROW = 256
"""So many different sums can be looked up one by one: those of int8."""
_BYTES_OF_LIMIT = 4
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
    rounding: Rounding | None,
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
    if not isinstance(rounding, Requantization):
        if is_table(rounding, bounds):
            return _table(define, rounding, bounds, to)
        if isinstance(rounding, Staircase):
            return _staircase(define, rounding, to)
        return _thresholds(define, rounding, to)
    return _requantization(define, rounding, bounds, to)


def rounding_operations(rounding: Rounding | None, bounds: Range, sums: int) -> Operations:
    """Return what the rounding of so many sums takes."""
    if isinstance(rounding, Thresholds | Staircase):
        if is_table(rounding, bounds):
            return Operations()
        count = rounding.limits.shape[1]
        return Operations(comparisons=sums * (count if count <= _SHORT else count.bit_length()))
    if isinstance(rounding, Requantization):
        is_product = not (rounding.multiplier == 1).all()
        return Operations(additions=sums, shifts=sums, products=sums * is_product)
    return Operations()


def is_table(rounding: Thresholds | Staircase, bounds: Range) -> bool:
    """Return whether the result of each sum is stored, which takes fewer bytes than limits.

    Args:
        rounding: The rounding.
        bounds: The smallest and the largest sum.
    """
    sums = bounds.high - bounds.low + 1
    return sums <= min(_NARROW, _BYTES_OF_LIMIT * rounding.limits.shape[1])


def _table(
    define: IntegerDefinitions, rounding: Thresholds | Staircase, bounds: Range, to: str
) -> Rounded:
    """Return the expression of a result that is looked up by its sum."""
    period = len(rounding.limits)
    sums = np.arange(bounds.low, bounds.high + 1)
    rows = rounding.run(np.repeat(sums[:, None], period, axis=1)).T
    if (rows == rows[0]).all():
        rows = rows[:1]
    table = define.array("table", to, rows.astype(to.removesuffix("_t")).ravel())
    start = f"@channel@ * {len(sums)} + " if len(rows) > 1 else ""
    shift = f" - {bounds.low}" if bounds.low > 0 else f" + {-bounds.low}" if bounds.low else ""
    return Rounded(f"table[{start}sum{shift}]", len(rows), {f"const {to} *table": table})


def _staircase(define: IntegerDefinitions, rounding: Staircase, to: str) -> Rounded:
    """Return the expression of the level behind the last limit that is reached."""
    limits, levels = rounding
    if (limits == limits[0]).all() and (levels == levels[0]).all():
        limits, levels = limits[:1], levels[:1]
    period, count = limits.shape
    dtype = to.removesuffix("_t")
    if not count:
        level = define.array("stairs", to, levels.astype(dtype).ravel())
        return Rounded("stairs[@channel@]", period, {f"const {to} *stairs": level})
    arguments = {
        "const int32_t *limits": define.array("limits", "int32_t", limits.astype(np.int32).ravel()),
        f"const {to} *stairs": define.array("stairs", to, levels.astype(dtype).ravel()),
    }
    function = define.function(
        "stair",
        "thresholds" if count <= _SHORT else "search",
        to=to,
        count=str(count),
        reached="sum >= limits[k]",
        parameters=f", const {to} *stairs",
        level="stairs[reached]",
    )
    rows = ["limits", "stairs"]
    if period > 1:
        rows = [f"limits + @channel@ * {count}", f"stairs + @channel@ * {count + 1}"]
    return Rounded(f"{function}(sum, {', '.join(rows)})", period, arguments)


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
