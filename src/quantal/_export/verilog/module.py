"""Compose the Verilog of an integer network: one block of logic for each of its steps."""

import numpy as np

from quantal._export.integer.model import IntegerModel
from quantal._export.integer.program import IntegerNode
from quantal._export.integer.steps import Products, Range, Requantization, Thresholds
from quantal._export.verilog.refusal import refusal
from quantal._export.verilog.text import (
    bits_of,
    constant,
    in_comment,
    literal,
    part,
    signed_bits,
)
from quantal._export.verilog.trees import tree_of_products

_MOST_TERMS = 2**14
"""Networks of more products become a module with a clock: these stand beside each other."""


def is_small_chain(integer: IntegerModel) -> bool:
    """Return whether a network is a chain of few products and roundings, for logic alone."""
    steps = [node.step for node in integer.program.nodes]
    terms = 0
    for step in steps:
        if isinstance(step, Products):
            if step.window.in_height * step.window.in_width > 1:
                return False
            terms += int(np.count_nonzero(step.weights))
        elif not isinstance(step, Thresholds | Requantization):
            return False
    return terms <= _MOST_TERMS


class VerilogModule:
    """A module computes one sample of an integer network, without a clock.

    Args:
        integer: The network.

    Raises:
        ValueError: It has several inputs or outputs, or a step that the module does not hold.
    """

    def __init__(self, integer: IntegerModel) -> None:
        self._program = integer.program
        self._scales = integer.scales
        if len(self._program.inputs) != 1 or len(self._program.outputs) != 1:
            raise refusal("several inputs or outputs")
        self.input_bits = signed_bits(self._program.inputs[0].bounds)
        self.output_bits = signed_bits(self._program.bounds_of(self._program.outputs[0].value))

    @property
    def input_size(self) -> int:
        """The number of integers in a sample."""
        return self._program.inputs[0].size

    @property
    def output_size(self) -> int:
        """The number of integers in a result."""
        return self._program.size_of(self._program.outputs[0].value)

    def text(self, name: str) -> str:
        """Return the module's source."""
        inputs, outputs = self.input_size * self.input_bits, self.output_size * self.output_bits
        last = self._program.outputs[0].value
        blocks = [
            block
            for value, node in enumerate(self._program.nodes, 1)
            for block in ["", f"  // {in_comment(node.name)}", *self._block(value, node)]
        ]
        return "\n".join(
            [
                f"// {self.input_size} integers of {self.input_bits} bits go in,"
                f" {self.output_size} of {self.output_bits} bits come out.",
                "// All are in two's complement, the first in the lowest bits.",
                f"// An integer 1 of the output stands for {self._scales[0]!r}.",
                f"module {name} (",
                f"  input wire [{inputs - 1}:0] x,",
                f"  output wire [{outputs - 1}:0] y",
                ");",
                f"  wire [{inputs - 1}:0] v0 = x;",
                f"  assign y = v{last};",
                *blocks,
                "endmodule",
                "",
            ]
        )

    def _block(self, value: int, node: IntegerNode) -> list[str]:
        """Return the declarations and the logic of a step."""
        (source,) = node.sources if len(node.sources) == 1 else (None,)
        bits = signed_bits(node.bounds)
        head = [f"  reg [{node.size * bits - 1}:0] v{value};", f"  integer i{value}, k{value};"]
        if source is None:
            raise refusal(f"{type(node.step).__name__} of the layer {node.name!r}")
        read = _Read(source, signed_bits(self._program.bounds_of(source)))
        match node.step:
            case Products() as step if step.window.in_height * step.window.in_width == 1:
                bounds = self._program.bounds_of(source)
                wire = f"  wire [{node.size * bits - 1}:0] v{value};"
                return [wire, *_products(value, step, bits, read, bounds)]
            case Thresholds() as step:
                bounds = self._program.bounds_of(source)
                return head + _thresholds(value, node.size, step, bits, read, bounds)
            case Requantization() as step:
                return head + _requantization(value, node.size, step, bits, read)
        raise refusal(f"{type(node.step).__name__} of the layer {node.name!r}")


class _Read:
    """How a step reads the integers of a value.

    Args:
        value: The number of the value.
        bits: The bits of its integers.
    """

    def __init__(self, value: int, bits: int) -> None:
        self._value = value
        self._bits = bits

    def __call__(self, index: str) -> str:
        return part(f"v{self._value}", index, self._bits)


def _products(value: int, step: Products, bits: int, read: _Read, bounds: Range) -> list[str]:
    """Return sums of products, one for each output: trees of adders."""
    ends = [step.multiple * end - step.zero for end in bounds]
    number_bits = bits_of(ends)
    lines, numbers = list[str](), list[str]()
    for index in range(step.weights.shape[1]):
        numbers.append(f"x{value}_{index}")
        number = f"{read(str(index))} * {step.multiple} - {literal(step.zero)}"
        lines.append(f"  wire signed [{number_bits - 1}:0] {numbers[-1]} = {number};")
    for index, row in enumerate(step.weights.tolist()):
        adders, total = tree_of_products(f"s{value}_{index}", row, numbers, Range(*ends))
        output = f"v{value}[{index * bits} +: {bits}]"
        lines += [*adders, f"  assign {output} = {total};"]
    return lines


def _thresholds(
    value: int, size: int, step: Thresholds, bits: int, read: _Read, bounds: Range
) -> list[str]:
    """Return levels by the number of thresholds that are reached."""
    period, count = step.limits.shape
    # Beyond the sums' range a threshold is always or never reached.
    limits = np.clip(step.limits, bounds.low - 1, bounds.high + 1)
    width = bits_of(limits)
    limit = part(f"t{value}", f"(i{value} % {period} * {count} + k{value})", width)
    falling = f"f{value}[i{value} % {period}]"
    number = read(f"i{value}")
    level = f"l{value}[n{value} * {bits} +: {bits}]"
    return [
        f"  integer n{value};",
        constant(f"t{value}", limits, width),
        constant(f"f{value}", step.falling.astype(np.int64), 1),
        constant(f"l{value}", step.levels, bits),
        "  always @* begin",
        f"    for (i{value} = 0; i{value} < {size}; i{value} = i{value} + 1) begin",
        f"      n{value} = 0;",
        f"      for (k{value} = 0; k{value} < {count}; k{value} = k{value} + 1)",
        f"        if ({falling} ? {number} <= {limit} : {number} >= {limit})",
        f"          n{value} = n{value} + 1;",
        f"      v{value}[i{value} * {bits} +: {bits}] = {level};",
        "    end",
        "  end",
    ]


def _requantization(
    value: int, size: int, step: Requantization, bits: int, read: _Read
) -> list[str]:
    """Return limited products with multipliers, shifted to the right."""
    period = len(step.multiplier)
    index = f"(i{value} % {period})"
    product = f"{read(f'i{value}')} * {part(f'm{value}', index, 32)}"
    shift = f"s{value}[{index} * 6 +: 6]"
    return [
        f"  reg signed [63:0] p{value};",
        constant(f"m{value}", step.multiplier, 32),
        constant(f"a{value}", step.addend, 64),
        constant(f"s{value}", step.shift, 6),
        "  always @* begin",
        f"    k{value} = 0;",
        f"    for (i{value} = 0; i{value} < {size}; i{value} = i{value} + 1) begin",
        f"      p{value} = {product} + {part(f'a{value}', index, 64)};",
        f"      p{value} = p{value} >>> {shift};",
        f"      if (p{value} < {literal(step.low)}) p{value} = {literal(step.low)};",
        f"      if (p{value} > {literal(step.high)}) p{value} = {literal(step.high)};",
        f"      v{value}[i{value} * {bits} +: {bits}] = p{value}[{bits - 1}:0];",
        "    end",
        "  end",
    ]
