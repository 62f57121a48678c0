"""Write how the sums of a stage are rounded: by thresholds, or by a multiplier and a shift."""

from typing import NamedTuple

import numpy as np

from quantal._export.integer.steps import (
    Integers,
    Range,
    Requantization,
    Rounding,
    Staircase,
    Thresholds,
)
from quantal._export.verilog.requantization import narrowed
from quantal._export.verilog.sums import Sums
from quantal._export.verilog.text import (
    Width,
    bits_of,
    constant,
    index_bits,
    literal,
    packed,
    part,
    rom,
    signed_bits,
)


class Rounded(NamedTuple):
    """A rounding in Verilog: its source, and the clocks from the last sum to the next stage."""

    text: str
    clocks: int


def rounding_text(rounding: Rounding | None, sums: Sums, result: Width) -> Rounded:
    """Return what turns the wire `sum` into the register `y`, and says `write` and `done`.

    Args:
        rounding: The rounding; None where sums are written as they are.
        sums: The sums.
        result: How a result is held.
    """
    if rounding is None:
        lines = [*_valid(0), "  always @(posedge clk) y <= sum;"]
        return Rounded("\n".join(lines), 2)
    bits = signed_bits(sums.bounds)
    period = len(rounding.shift if isinstance(rounding, Requantization) else rounding.limits)
    lines = _channel(period)
    lines += [
        f"  reg signed [{bits - 1}:0] rounded_sum;",
        "  always @(posedge clk) rounded_sum <= sum;",
    ]
    if isinstance(rounding, Staircase):
        lines += _staircase(rounding, sums.bounds, result) + _valid(1)
        return Rounded("\n".join(lines), 3)
    if isinstance(rounding, Thresholds):
        lines += _thresholds(rounding, sums.bounds, result) + _valid(1)
        return Rounded("\n".join(lines), 3)
    lines += _requantization(rounding, sums.bounds, result) + _valid(2)
    return Rounded("\n".join(lines), 4)


def _valid(waits: int) -> list[str]:
    """Return the registers that say when a result is there, so many clocks after its sum."""
    names = [*(f"valid_{index}" for index in range(waits)), "write"]
    declared = [f"  reg {name};" for name in names[:-1]]
    moves = [
        f"    {a} <= {b} && !reset;" for a, b in zip(names, ["draining", *names], strict=False)
    ]
    return [
        *declared,
        f"  assign done = closing && !({' || '.join(names)});",
        "  always @(posedge clk) begin",
        *moves,
        "  end",
    ]


def _channel(period: int) -> list[str]:
    """Return the register that says which channel the first sum is of."""
    if period == 1:
        return []
    bits = index_bits(period)
    return [
        f"  reg [{bits - 1}:0] channel;",
        "  always @(posedge clk) begin",
        f"    if (draining) channel <= channel == {period - 1} ? 0 : channel + 1;",
        "    if (reset) channel <= 0;",
        "  end",
    ]


def _thresholds(step: Thresholds, bounds: Range, result: Width) -> list[str]:
    """Return a comparison for each threshold, and the level of as many as are reached."""
    limits, falling = _reached_from_below(step, bounds)
    count = limits.shape[1]
    width = bits_of(limits)
    words = [
        packed(row, width) | int(falls) << count * width
        for row, falls in zip(limits, falling, strict=True)
    ]
    counted = index_bits(count + 1)
    reached = " + ".join(
        f"((rounded_sum >= {part('limits', str(index), width)}) ^ limits[{count * width}])"
        for index in range(count)
    )
    lines = [
        rom("limits", words, count * width + 1, "channel"),
        f"  wire [{counted - 1}:0] reached = {reached};",
    ]
    levels = step.levels
    if (np.diff(levels) == 1).all():
        return [*lines, f"  always @(posedge clk) y <= reached + {literal(levels[0])};"]
    return [
        *lines,
        constant("levels", levels, result.bits),
        f"  always @(posedge clk) y <= levels[reached * {result.bits} +: {result.bits}];",
    ]


def _staircase(step: Staircase, bounds: Range, result: Width) -> list[str]:
    """Return a comparison for each limit, and the channel's level of as many as are reached."""
    limits = np.clip(step.limits, bounds.low, bounds.high + 1)
    count, width, bits = limits.shape[1], bits_of(limits), result.bits
    words = [
        packed(row, width) | packed(levels, bits) << count * width
        for row, levels in zip(limits, step.levels, strict=True)
    ]
    counted = index_bits(count + 1)
    reached = " + ".join(
        f"(rounded_sum >= {part('stairs', str(index), width)})" for index in range(count)
    )
    return [
        rom("stairs", words, count * width + (count + 1) * bits, "channel"),
        f"  wire [{counted - 1}:0] reached = {reached};",
        f"  always @(posedge clk) y <= stairs[{count * width} + reached * {bits} +: {bits}];",
    ]


def _reached_from_below(step: Thresholds, bounds: Range) -> tuple[Integers, Integers]:
    """Return limits of `sum >= limit`, and where that is to be turned, for each channel."""
    falling = step.falling.astype(np.int64)
    # A sum is at most a limit where it is not at least the integer above it.
    limits = step.limits + falling[:, None]
    # Beyond the range of sums a limit is always or never reached.
    return np.clip(limits, bounds.low, bounds.high + 1), falling


def _requantization(step: Requantization, bounds: Range, result: Width) -> list[str]:
    """Return a product with a multiplier, shifted and limited to the results' range."""
    multiplier, addend, shift = narrowed(step, bounds)
    ends = [m * end + a for m, a in zip(multiplier, addend, strict=True) for end in bounds]
    bits = max(bits_of(ends), shift + 2, bits_of([step.low, step.high]))
    m_bits, a_bits = bits_of(multiplier), bits_of(addend)
    words = [
        packed([m], m_bits) | packed([a], a_bits) << m_bits
        for m, a in zip(multiplier, addend, strict=True)
    ]
    m, a = f"$signed(scale[0 +: {m_bits}])", f"$signed(scale[{m_bits} +: {a_bits}])"
    low, high = literal(step.low), literal(step.high)
    return [
        rom("scale", words, m_bits + a_bits, "channel"),
        f"  reg signed [{bits - 1}:0] product;",
        f"  wire signed [{bits - 1}:0] shifted = product >>> {shift};",
        "  always @(posedge clk) begin",
        f"    product <= rounded_sum * {m} + {a};",
        f"    y <= shifted < {low} ? {low} : shifted > {high} ? {high} : shifted;",
        "  end",
    ]
