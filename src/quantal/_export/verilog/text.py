"""Write integers, constants and names in Verilog."""

import importlib.resources
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from quantal._export.integer.steps import Range


class Width(NamedTuple):
    """A width says how the integers of a range are held: how many bits, and with a sign or not."""

    bits: int
    signed: bool

    @classmethod
    def of(cls, bounds: Range) -> "Width":
        """Return the width of a range, without a sign where it starts at 0 or above."""
        if bounds.low < 0:
            return cls(signed_bits(bounds), True)
        return cls(max(int(bounds.high).bit_length(), 1), False)

    def number(self, name: str) -> str:
        """Return a signed expression of a wire of this width."""
        return f"$signed({name})" if self.signed else f"$signed({{1'b0, {name}}})"


def signed_bits(bounds: Range) -> int:
    """Return the bits that hold the integers of a range in two's complement."""
    low, high = int(bounds.low), int(bounds.high)
    return max(high.bit_length(), (-low - 1).bit_length() if low < 0 else 0) + 1


def bits_of(integers: Any) -> int:
    """Return the bits that hold integers in two's complement."""
    return signed_bits(Range(int(np.min(integers)), int(np.max(integers))))


def index_bits(count: int) -> int:
    """Return the bits of an index below a count: at least one."""
    return max((count - 1).bit_length(), 1)


def packed(integers: ArrayLike, bits: int) -> int:
    """Return integers in two's complement behind each other, the first in the lowest bits."""
    mask = (1 << bits) - 1
    digits = "".join(f"{int(number) & mask:0{bits}b}" for number in np.ravel(integers)[::-1])
    return int(digits, 2)


def constant(name: str, integers: Any, bits: int) -> str:
    """Return the declaration of a constant vector of integers."""
    size = np.size(integers) * bits
    return f"  localparam [{size - 1}:0] {name} = {size}'h{packed(integers, bits):x};"


def part(name: str, index: str, bits: int) -> str:
    """Return the signed integer at an index of a vector."""
    return f"$signed({name}[{index} * {bits} +: {bits}])"


def literal(number: int) -> str:
    """Return an integer as it stands in an expression."""
    return f"({int(number)})" if number < 0 else str(int(number))


def sized(number: int, bits: int) -> str:
    """Return an integer of so many bits, modulo the power of two."""
    return f"{bits}'d{int(number) % (1 << bits)}"


def in_comment(name: str) -> str:
    """Return a name without characters that could end a comment."""
    return "".join(c if c.isprintable() else "?" for c in name)


def template(name: str) -> str:
    """Return the text of a file in `templates`, its parts written as `@part@`.

    Args:
        name: The file's name without the last ending, such as `"stage.v"`.
    """
    folder = importlib.resources.files(__package__) / "templates"
    return (folder / f"{name}.in").read_text(encoding="utf-8")


def rom(name: str, words: Sequence[int], bits: int, address: str) -> str:
    """Return a memory of constants, and the register `name` that holds a word of it.

    The word comes a clock after its address.

    Args:
        name: The register's name; the memory's is `<name>_rom`.
        words: The words, not negative.
        bits: The bits of a word.
        address: The register that says which word.
    """
    if len(words) == 1:
        return f"  wire [{bits - 1}:0] {name} = {bits}'h{words[0]:x};"
    lines = [
        f"  reg [{bits - 1}:0] {name}_rom [0:{len(words) - 1}];",
        f"  reg [{bits - 1}:0] {name};",
        "  initial begin",
        *(f"    {name}_rom[{i}] = {bits}'h{word:x};" for i, word in enumerate(words)),
        "  end",
        f"  always @(posedge clk) {name} <= {name}_rom[{address}];",
    ]
    return "\n".join(lines)
