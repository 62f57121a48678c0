"""Write what a stage computes of the numbers that arrive: sums of products, or one number."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from quantal._export.integer.steps import Integers, Largest, Products, Range
from quantal._export.verilog.loops import Follower
from quantal._export.verilog.text import (
    Width,
    bits_of,
    index_bits,
    literal,
    packed,
    rom,
    signed_bits,
)
from quantal._export.verilog.weights import WeightCodes, weight_codes


class Sums(NamedTuple):
    """Sums are the registers in which a stage adds up, or holds one number.

    Attributes:
        numbers: The source of what arrives.
        text: The source of the registers; the first is the wire `sum`.
        bounds: The smallest and the largest sum.
        followers: The registers that follow the loops.
        lanes: How many outputs are summed up at a time.
    """

    numbers: str
    text: str
    bounds: Range
    followers: tuple[Follower, ...] = ()
    lanes: int = 1


def products(step: Products, blocks: int, bounds: Range, width: Width) -> Sums:
    """Return sums of products: a memory of weights, and an adder for each output of a block.

    Args:
        step: The products.
        blocks: In how many blocks the outputs of a group are summed up.
        bounds: The range of the sums.
        width: How an input is held.
    """
    w = step.window
    lanes = w.out_channels // w.groups // blocks
    taps = step.weights.shape[1]
    codes = weight_codes(step.weights)
    words = codes.codes.reshape(w.groups * blocks, lanes, taps).transpose(0, 2, 1)
    memory = [packed(word, codes.bits) for word in words.reshape(-1, lanes)]
    row = w.kernel_width * w.in_channels // w.groups
    strides = (0, 0, blocks * taps, taps, row, w.in_channels // w.groups, 1)
    follower = Follower("at", index_bits(len(memory)), 0, strides)
    ends = [step.multiple * end - step.zero for end in _ends(width)]
    number_bits = bits_of(ends)
    number = f"{width.number('x0')} * {step.multiple} - {literal(step.zero)}"
    numbers = [
        rom("w", memory, lanes * codes.bits, "at"),
        f"  wire signed [{number_bits - 1}:0] number = {number};",
    ]
    bits = signed_bits(bounds)
    if codes.magnitudes:
        numbers += _multiples(codes, number_bits)
    lane = _lane(codes, number_bits, bits)
    return Sums(
        "\n".join(numbers), _lanes(lanes, codes.bits, bits, lane), bounds, (follower,), lanes
    )


def _ends(width: Width) -> tuple[int, int]:
    """Return the smallest and the largest integer of a width."""
    if width.signed:
        return -(1 << (width.bits - 1)), (1 << (width.bits - 1)) - 1
    return 0, (1 << width.bits) - 1


def _multiples(codes: WeightCodes, number_bits: int) -> list[str]:
    """Return the multiples of the number, each computed once for all outputs."""
    if codes.shifts:
        return []
    bits = _multiple_bits(codes, number_bits)
    names, lines = list[str](), list[str]()
    for index, magnitude in enumerate(codes.magnitudes):
        lines.append(f"  wire signed [{bits - 1}:0] multiple_{index} = number * {magnitude};")
        names.append(f"multiple_{index}")
    # As many as the index can say; what no code says may be anything.
    names += [names[-1]] * ((1 << codes.index_bits) - len(names))
    joined = ", ".join(names[::-1])
    return [*lines, f"  wire [{bits * len(names) - 1}:0] multiples = {{{joined}}};"]


def _multiple_bits(codes: WeightCodes, number_bits: int) -> int:
    return number_bits + codes.magnitudes[-1].bit_length()


def _lane(codes: WeightCodes, number_bits: int, bits: int) -> list[str]:
    """Return what an output adds to its sum, or subtracts from it."""
    if not codes.magnitudes:
        return [f"    wire signed [{bits - 1}:0] total = before + $signed(code) * number;"]
    width = _multiple_bits(codes, number_bits)
    if codes.shifts:
        return [*_shifted(codes, width), *_added(codes, bits)]
    index = f"code[{codes.bits - 1}:{int(codes.has_sign)}]" if codes.index_bits else "0"
    lines = [
        f"    wire signed [{width - 1}:0] selected = multiples[{index} * {width} +: {width}];",
    ]
    return [*lines, *_added(codes, bits)]


def _shifted(codes: WeightCodes, width: int) -> list[str]:
    """Return the number, shifted to the left as far as a code says; or 0."""
    first = f"code[{codes.bits - 1}:{int(codes.has_sign)}]"
    text = f"number <<< {first}"
    if codes.magnitudes[0] == 0:
        text = f"{first} == 0 ? 0 : number <<< ({first} - 1)"
    first_shift = next(filter(None, codes.magnitudes)).bit_length() - 1
    wide = f"    wire signed [{width - 1}:0] far = {text};"
    return [
        wide,
        f"    wire signed [{width - 1}:0] selected = far <<< {first_shift};",
    ]


def _added(codes: WeightCodes, bits: int) -> list[str]:
    """Return the sum with the selected multiple added or subtracted."""
    lines = [f"    wire signed [{bits - 1}:0] multiple = selected;"]
    if not codes.has_sign:
        return [*lines, f"    wire signed [{bits - 1}:0] total = before + multiple;"]
    # One adder, whose lowest bit carries: a - b is a + ~b + 1.
    return [
        *lines,
        f"    wire [{bits}:0] carried ="
        f" {{before, 1'b1}} + {{multiple ^ {{{bits}{{code[0]}}}}, code[0]}};",
        f"    wire signed [{bits - 1}:0] total = carried[{bits}:1];",
    ]


def _lanes(lanes: int, code_bits: int, bits: int, lane: list[str]) -> str:
    """Return the sums of a block."""
    return "\n".join(
        [
            f"  reg [{lanes * bits - 1}:0] sums;",
            f"  wire signed [{bits - 1}:0] sum = sums[{bits - 1}:0];",
            "  genvar n;",
            f"  generate for (n = 0; n < {lanes}; n = n + 1) begin : lane_of",
            f"    wire [{code_bits - 1}:0] code = w[n * {code_bits} +: {code_bits}];",
            f"    wire signed [{bits - 1}:0] before = sums[n * {bits} +: {bits}];",
            f"    wire [{bits - 1}:0] above;",
            f"    if (n == {lanes - 1}) assign above = 0;",
            f"    else assign above = sums[(n + 1) * {bits} +: {bits}];",
            *lane,
            "    always @(posedge clk) begin",
            f"      if (reset) sums[n * {bits} +: {bits}] <= 0;",
            f"      else if (draining) sums[n * {bits} +: {bits}] <= above;",
            f"      else if (taken) sums[n * {bits} +: {bits}] <= total;",
            "    end",
            "  end endgenerate",
        ]
    )


def one_number(
    widths: Sequence[Width],
    bounds: Range,
    *,
    is_sum: bool = False,
    outside: int | None = None,
    factors: Integers | None = None,
    multiplies: bool = False,
) -> Sums:
    """Return one register: a number as it arrives, their sum, or a sum of several sources.

    Args:
        widths: How the inputs are held.
        bounds: The range of the results.
        is_sum: Whether the numbers of a window are added up.
        outside: The number that stands for padding.
        factors: What each source is multiplied by, shape (sources, period).
        multiplies: Whether two sources are multiplied.
    """
    bits = signed_bits(bounds)
    names = [width.number(f"x{index}") for index, width in enumerate(widths)]
    lines, followers, text = list[str](), tuple[Follower, ...](), names[0]
    if multiplies:
        text = " * ".join(names)
    if factors is not None:
        width = bits_of(factors)
        memory = [packed(column, width) for column in factors.T]
        lines.append(rom("w", memory, width * len(factors), "at"))
        followers = (Follower("at", index_bits(len(memory)), 0, (0, 1)),)
        text = " + ".join(
            f"{name} * $signed(w[{index * width} +: {width}])" for index, name in enumerate(names)
        )
    if outside is not None:
        text = f"taken ? {text} : {literal(outside)}"
    lines.append(f"  wire signed [{bits - 1}:0] number = {text};")
    after = "sum + number" if is_sum else "number"
    register = [
        f"  reg signed [{bits - 1}:0] sum;",
        "  always @(posedge clk) begin",
        "    if (reset || draining) sum <= 0;",
        f"    else if ({'taken' if outside is None else 'arrived'}) sum <= {after};",
        "  end",
    ]
    return Sums("\n".join(lines), "\n".join(register), bounds, followers)


def largest(step: Largest, bounds: Range, width: Width) -> Sums:
    """Return the largest number of a window, or the smallest of a falling channel."""
    bits = signed_bits(bounds)
    falling = np.resize(step.falling, step.window.in_channels).astype(np.int64)
    words = falling[:1] if (falling == falling[0]).all() else falling
    follower = Follower("at", index_bits(len(words)), 0, (0, 0, 1, 0, 0, 0, 0))
    numbers = [
        rom("falls", words.tolist(), 1, "at"),
        f"  wire signed [{bits - 1}:0] number = {width.number('x0')};",
    ]
    register = [
        f"  reg signed [{bits - 1}:0] sum;",
        "  reg empty;",
        "  wire beyond = falls ? number < sum : number > sum;",
        "  always @(posedge clk) begin",
        "    if (taken && (empty || beyond)) sum <= number;",
        "    empty <= reset || draining || (empty && !taken);",
        "  end",
    ]
    return Sums("\n".join(numbers), "\n".join(register), bounds, (follower,))
