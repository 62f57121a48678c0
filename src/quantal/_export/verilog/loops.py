"""Write nested loops that advance by one iteration a clock, and numbers that follow them."""

import math
from collections.abc import Sequence
from typing import NamedTuple

from quantal._export.verilog.text import index_bits, sized


class Follower(NamedTuple):
    """A follower is a register that is linear in the loops' indices.

    Attributes:
        name: Its name.
        bits: Its bits; it counts modulo their power of two.
        start: Its first value.
        strides: What an iteration of each loop adds, the outermost loop first.
        declared: Whether the module declares it elsewhere, as a port.
    """

    name: str
    bits: int
    start: int
    strides: Sequence[int]
    declared: bool = False


class Loops:
    """Nested loops, the outermost first.

    Args:
        counts: The iterations of each loop.
    """

    def __init__(self, counts: Sequence[int]) -> None:
        self.counts = list(counts)
        self._real = [level for level, count in enumerate(counts) if count > 1]

    @property
    def iterations(self) -> int:
        """The number of iterations of all loops together."""
        return math.prod(self.counts)

    def ends(self, first: int = 0) -> str:
        """Return the condition that all loops from a level on are in their last iteration."""
        conditions = [f"last_{level}" for level in self._real if level >= first]
        return f"({' && '.join(conditions)})" if conditions else "1'b1"

    def text(self, followers: Sequence[Follower]) -> str:
        """Return the registers and what moves them while `running` is 1."""
        lines = []
        for level in self._real:
            bits, count = index_bits(self.counts[level]), self.counts[level]
            lines += [
                f"  reg [{bits - 1}:0] i_{level};",
                f"  wire last_{level} = i_{level} == {count - 1};",
            ]
        lines += [f"  reg [{f.bits - 1}:0] {f.name};" for f in followers if not f.declared]
        moves, resets = [], []
        for level in self._real:
            move = f"i_{level} <= last_{level} ? 0 : i_{level} + 1;"
            inner = self.ends(level + 1)
            moves.append(move if inner == "1'b1" else f"if {inner} {move}")
            resets.append(f"i_{level} <= 0;")
        for follower in followers:
            moves.append(f"{follower.name} <= {follower.name} + {self._advance(follower)};")
            resets.append(f"{follower.name} <= {sized(follower.start, follower.bits)};")
        lines += [
            "  always @(posedge clk) begin",
            "    if (running) begin",
            *(f"      {move}" for move in moves),
            "    end",
            "    if (reset) begin",
            *(f"      {reset}" for reset in resets),
            "    end",
            "  end",
        ]
        return "\n".join(lines)

    def _advance(self, follower: Follower) -> str:
        """Return what an iteration adds: it depends on the loops that start again."""
        advances, back = list[tuple[int, int]](), 0
        for level in reversed(self._real):
            advances.append((level, follower.strides[level] - back))
            back += (self.counts[level] - 1) * follower.strides[level]
        text = sized(-back, follower.bits)
        for level, advance in reversed(advances):
            number = sized(advance, follower.bits)
            text = number if number == text else f"(last_{level} ? {text} : {number})"
        return text
