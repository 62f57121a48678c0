"""Compose a module with a clock: a stage for each loop of an integer network, one after another."""

from collections import defaultdict

from quantal._export.c.text import filled
from quantal._export.c_integer.kernels import kernels_of
from quantal._export.integer.model import IntegerModel
from quantal._export.integer.steps import Products
from quantal._export.verilog.refusal import refusal
from quantal._export.verilog.stages import Stage, stages_of
from quantal._export.verilog.text import Width, index_bits, signed_bits, template
from quantal._export.verilog.weights import weight_codes

_MOST_BITS = 2**25
"""Weights of more bits are refused: the largest FPGAs have memories of so many."""


class ClockedModule:
    """A clocked module computes one sample after another, each layer in turn.

    Args:
        integer: The network.

    Raises:
        ValueError: It has several inputs or outputs, a step that the module does not hold, or too
            many weights.
    """

    def __init__(self, integer: IntegerModel) -> None:
        program = self._program = integer.program
        self._scale = integer.scales[0]
        if len(program.inputs) != 1 or len(program.outputs) != 1:
            raise refusal("several inputs or outputs")
        steps = [node.step for node in program.nodes]
        weights = [step.weights for step in steps if isinstance(step, Products)]
        if sum(array.size * weight_codes(array).bits for array in weights) > _MOST_BITS:
            raise refusal(f"more than {_MOST_BITS:,} bits of weights")
        self.input = Width.of(program.inputs[0].bounds)
        self._output = program.outputs[0].value
        self.output_bits = signed_bits(program.bounds_of(self._output))
        self._kernels = kernels_of(program)
        self.clocks = self._with_ends(self._stages("model"))

    @property
    def input_size(self) -> int:
        """The number of integers in a sample."""
        return self._program.inputs[0].size

    @property
    def output_size(self) -> int:
        """The number of integers in a result."""
        return self._program.size_of(self._output)

    def text(self, name: str) -> str:
        """Return the module's source, and its stages' behind it."""
        stages = self._stages(name)
        result = Width.of(self._program.bounds_of(self._output))
        top = filled(
            template("top.v"),
            inputs=str(self.input_size),
            input_bits=str(self.input.bits),
            outputs=str(self.output_size),
            output_bits=str(self.output_bits),
            input_sign="in two's complement" if self.input.signed else "without a sign",
            scale=repr(self._scale),
            clocks=f"{self.clocks:,}",
            name=name,
            input_end=str(self.input.bits - 1),
            output_end=str(self.output_bits - 1),
            fill_end=str(index_bits(self.input_size) - 1),
            last_input=str(self.input_size - 1),
            out_end=str(index_bits(self.output_size) - 1),
            last_output=str(self.output_size - 1),
            wires=self._wires(name, stages),
            result=result.number(f"q{self._output}"),
            finished=_started(len(stages)),
        )
        return top + "".join(stage.text for stage in stages)

    def _stages(self, name: str) -> list[Stage]:
        return [
            stage
            for index, kernel in enumerate(self._kernels, 1)
            for stage in stages_of(self._program, kernel, f"{name}_stage{index}")
        ]

    def _with_ends(self, stages: list[Stage]) -> int:
        """Return the clocks from the first number in to the last one out."""
        return self.input_size + sum(stage.clocks for stage in stages) + 2 * self.output_size + 1

    def _wires(self, name: str, stages: list[Stage]) -> str:
        """Return the memories of values, and the stages between them."""
        readers: dict[int, list[str]] = defaultdict(list)
        writers: dict[int, list[int]] = defaultdict(list)
        for index, stage in enumerate(stages, 1):
            writers[stage.value].append(index)
            for source in dict.fromkeys(stage.sources):
                readers[source].append(f"reads{index} ? address{index}")
        wires = [self._declared(stage, index) for index, stage in enumerate(stages, 1)]
        lines = [line for declared in wires for line in declared]
        lines += self._memory(0, ("takes", "fill", "x"), readers[0])
        for value, indices in writers.items():
            ports = tuple(_either(port, indices) for port in ("write", "to", "y"))
            lines += self._memory(value, ports, readers[value])
        for index, stage in enumerate(stages, 1):
            lines += _instance(stage, index)
        return "\n".join(lines)

    def _declared(self, stage: Stage, index: int) -> list[str]:
        """Return the wires of a stage."""
        width = Width.of(self._program.bounds_of(stage.value))
        to = index_bits(self._program.size_of(stage.value))
        return [
            f"  wire done{index}, reads{index}, write{index};",
            f"  wire [{index_bits(stage.source_size) - 1}:0] address{index};",
            f"  wire [{to - 1}:0] to{index};",
            f"  wire [{width.bits - 1}:0] y{index};",
        ]

    def _memory(self, value: int, ports: tuple[str, ...], readers: list[str]) -> list[str]:
        """Return the memory of a value, written by one stage and read by others."""
        write, to, y = ports
        size, width = self._program.size_of(value), Width.of(self._program.bounds_of(value))
        if value == self._output:
            readers = [*readers, "1 ? position"]
        address = " : ".join([*readers[:-1], readers[-1].split("? ")[1]])
        return [
            f"  reg [{width.bits - 1}:0] v{value} [0:{size - 1}];",
            f"  reg [{width.bits - 1}:0] q{value};",
            "  always @(posedge clk) begin",
            f"    if ({write}) v{value}[{to}] <= {y};",
            f"    q{value} <= v{value}[{address}];",
            "  end",
        ]


def _instance(stage: Stage, index: int) -> list[str]:
    """Return a stage with what it is connected to."""
    sources = "".join(f", .x{i}(q{source})" for i, source in enumerate(stage.sources))
    return [
        f"  {stage.name} stage{index} (.clk(clk), .reset(reset), .start({_started(index - 1)}),",
        f"    .done(done{index}), .reads(reads{index}), .address(address{index}){sources},",
        f"    .write(write{index}), .to(to{index}), .y(y{index}));",
    ]


def _started(index: int) -> str:
    """Return the wire that says that a stage is done, or that the input is there."""
    return f"done{index}" if index else "loaded"


def _either(port: str, indices: list[int]) -> str:
    """Return a port of the stage that writes."""
    if port == "write":
        return " || ".join(f"write{index}" for index in indices)
    conditions = [f"write{index} ? {port}{index} : " for index in indices[:-1]]
    return "".join(conditions) + f"{port}{indices[-1]}"
