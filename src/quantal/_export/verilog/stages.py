"""Write the stages of a clocked module: one for each loop of an integer network."""

import math
from collections.abc import Sequence
from typing import NamedTuple

from quantal._export.c.text import filled
from quantal._export.c_integer.kernels import Kernel
from quantal._export.graph.steps import Window
from quantal._export.integer.program import IntegerProgram
from quantal._export.integer.steps import (
    Copied,
    Joined,
    Largest,
    Multiplied,
    Padded,
    Products,
    Range,
    Total,
    WeightedSum,
)
from quantal._export.verilog.loops import Follower, Loops
from quantal._export.verilog.refusal import refusal
from quantal._export.verilog.rounding import rounding_text
from quantal._export.verilog.sums import Sums, largest, one_number, products
from quantal._export.verilog.text import Width, in_comment, index_bits, signed_bits, template

MOST_LANES = 64
"""So many outputs are summed up at a time, each in an adder of its own."""


class Target(NamedTuple):
    """A target says where a stage writes: `length` numbers in a row, then a gap, and so on.

    Attributes:
        size: The numbers in the value that it writes.
        start: The first index.
        length: The numbers that follow each other.
        stride: How far the beginnings of these parts lie from each other.
    """

    size: int
    start: int = 0
    length: int = 0
    stride: int = 0


class Stage(NamedTuple):
    """A stage is a Verilog module that reads values and writes one.

    Attributes:
        name: The module's name.
        text: The source.
        clocks: The clocks from its start to the next stage's.
        sources: The values that it reads.
        source_size: The numbers of each of them.
        value: The value that it writes.
    """

    name: str
    text: str
    clocks: int
    sources: tuple[int, ...]
    source_size: int
    value: int


class _Walk(NamedTuple):
    """A walk says in which order a stage reads its inputs.

    Attributes:
        counts: The iterations of its loops, the outermost first.
        inner: The first of the loops that are walked for one result.
        address: What an iteration of each adds to the address of the input.
        start: The first address.
        row: The same for the row of the input, before it the first row, and behind it the number of
            rows; None where all rows are among the inputs.
        column: The same for columns.
    """

    counts: list[int]
    inner: int
    address: list[int]
    start: int = 0
    row: tuple[int, list[int], int] | None = None
    column: tuple[int, list[int], int] | None = None


def stages_of(program: IntegerProgram, kernel: Kernel, name: str) -> list[Stage]:
    """Return the stages of a loop: one, or one for each part where values are joined.

    Raises:
        ValueError: The loop is one that a clocked module does not hold.
    """
    writer = _StageWriter(program, kernel)
    if isinstance(kernel.step, Joined):
        return writer.joined(kernel.step, name)
    return [writer.stage(name, kernel.sources, *writer.walked())]


class _StageWriter:
    def __init__(self, program: IntegerProgram, kernel: Kernel) -> None:
        self._program = program
        self._kernel = kernel
        self._size = program.size_of(kernel.value)
        self._node = program.nodes[kernel.value - len(program.inputs)]

    def walked(self) -> tuple[_Walk, Sums]:
        """Return how inputs are walked over, and what is computed of them."""
        step, sums = self._kernel.step, self._sum_bounds()
        widths = [Width.of(self._program.bounds_of(source)) for source in self._kernel.sources]
        match step:
            case Products():
                if step.window.spread_y > 1 or step.window.spread_x > 1:
                    raise refusal(f"the transposed convolution {self._name!r}")
                blocks = _blocks(step.window)
                walk = _over(step.window, step.window.groups, blocks)
                return walk, products(step, blocks, sums, widths[0])
            case Total():
                walk = _over(step.window, step.window.out_channels)
                return walk, one_number(widths, sums, is_sum=True)
            case Largest():
                walk = _over(step.window, step.window.out_channels)
                return walk, largest(step, sums, widths[0])
            case Padded():
                walk = _around(step)
                return walk, one_number(widths, sums, outside=step.zero)
            case Copied():
                r = step.rearrange
                walk = _Walk([*r.lengths], len(r.lengths), [*r.steps], r.start)
                return walk, one_number(widths, sums)
            case WeightedSum():
                period = step.factors.shape[1]
                walk = _Walk([self._size // period, period], 2, [period, 1])
                return walk, one_number(widths, sums, factors=step.factors)
            case Multiplied():
                return self._each(), one_number(widths, sums, multiplies=True)
            case None:
                return self._each(), one_number(widths, sums)
        raise refusal(f"{type(step).__name__} of the layer {self._name!r}")

    def joined(self, step: Joined, name: str) -> list[Stage]:
        """Return the stages that copy each source into its parts of the result."""
        stages, start = [], 0
        for index, (source, length) in enumerate(
            zip(self._kernel.sources, step.lengths, strict=True)
        ):
            bounds = self._program.bounds_of(source)
            count = step.parts * length
            target = Target(self._size, start, length, sum(step.lengths))
            walk = _Walk([count], 1, [1])
            sums = one_number([Width.of(bounds)], bounds)
            stages.append(self.stage(f"{name}_{index}", (source,), walk, sums, target))
            start += length
        return stages

    def stage(
        self,
        name: str,
        sources: Sequence[int],
        walk: _Walk,
        sums: Sums,
        target: Target | None = None,
    ) -> Stage:
        """Return a stage, its module of this name."""
        target = target or Target(self._size)
        loops = Loops(walk.counts)
        source_size = self._program.size_of(sources[0])
        followers, inside = _followers(walk, source_size)
        followers = [*followers, *sums.followers]
        result = Width.of(self._program.bounds_of(self._kernel.value))
        rounded = rounding_text(self._kernel.rounding, sums, result)
        ports = [
            f"  input wire [{width.bits - 1}:0] x{index},"
            for index, width in enumerate(
                Width.of(self._program.bounds_of(source)) for source in sources
            )
        ]
        to = index_bits(target.size)
        text = filled(
            template("stage.v"),
            comment=f"{in_comment(self._name)}: {self._what()}",
            name=name,
            address_end=str(index_bits(source_size) - 1),
            sources="\n".join(ports),
            to_end=str(to - 1),
            result_end=str(result.bits - 1),
            loops=loops.text(followers),
            inside=inside,
            window_ends=loops.ends(walk.inner),
            all_end=loops.ends(),
            lane_end=str(index_bits(sums.lanes) - 1),
            last_lane=str(sums.lanes - 1),
            numbers=sums.numbers,
            sums=sums.text,
            lanes=str(sums.lanes),
            rounding=rounded.text,
            first_to=str(target.start),
            next_to=_next_to(target),
            parts=_parts(target),
        )
        windows = math.prod(walk.counts[: walk.inner])
        taps = math.prod(walk.counts[walk.inner :])
        # Of each window the taps, their arrival and the lanes; then the last one's rounding.
        clocks = windows * (taps + 1 + sums.lanes) + rounded.clocks
        return Stage(name, text, clocks, tuple(sources), source_size, self._kernel.value)

    @property
    def _name(self) -> str:
        """The name of the layer that the loop comes from."""
        if self._kernel.step is None or self._kernel.rounding is None:
            return self._node.name
        return self._program.nodes[self._node.sources[0] - len(self._program.inputs)].name

    def _each(self) -> _Walk:
        return _Walk([self._size], 1, [1])

    def _sum_bounds(self) -> Range:
        """Return the range of what is rounded."""
        kernel = self._kernel
        if kernel.rounding is None:
            return self._program.bounds_of(kernel.value)
        return self._program.bounds_of(self._node.sources[0])

    def _what(self) -> str:
        kinds = [type(step).__name__ for step in self._kernel[:2] if step is not None]
        return ", ".join(kinds)


def _blocks(window: Window) -> int:
    """Return in how many blocks the outputs of a group are summed up."""
    outputs = window.out_channels // window.groups
    return next(n for n in range(1, outputs + 1) if outputs % n == 0 and outputs // n <= MOST_LANES)


def _over(window: Window, groups: int, blocks: int = 1) -> _Walk:
    """Return the walk over windows: rows, columns, groups, blocks; then taps and channels."""
    w = window
    channels = w.in_channels // groups
    row = w.in_width * w.in_channels
    counts = [
        w.out_height, w.out_width, groups, blocks, w.kernel_height, w.kernel_width, channels,
    ]  # fmt: skip
    address = [
        w.stride_y * row, w.stride_x * w.in_channels, channels, 0,
        w.dilation_y * row, w.dilation_x * w.in_channels, 1,
    ]  # fmt: skip
    start = -w.top * row - w.left * w.in_channels
    rows = -w.top, [w.stride_y, 0, 0, 0, w.dilation_y, 0, 0], w.in_height
    columns = -w.left, [0, w.stride_x, 0, 0, 0, w.dilation_x, 0], w.in_width
    return _Walk(
        counts,
        4,
        address,
        start,
        *(None if _is_inside(each, counts) else each for each in (rows, columns)),
    )


def _around(step: Padded) -> _Walk:
    """Return the walk over an image and its border."""
    height, width, channels = step.pad.shape
    p, row = step.pad, width * channels
    counts = [height + p.top + p.bottom, width + p.left + p.right, channels]
    rows = -p.top, [1, 0, 0], height
    columns = -p.left, [0, 1, 0], width
    start = -p.top * row - p.left * channels
    return _Walk(counts, 3, [row, channels, 1], start, rows, columns)


def _range(position: tuple[int, list[int], int], counts: Sequence[int]) -> Range:
    """Return the smallest and the largest row or column that a walk meets."""
    start, strides, _ = position
    last = sum((count - 1) * stride for count, stride in zip(counts, strides, strict=True))
    return Range(start, start + last)


def _is_inside(position: tuple[int, list[int], int], counts: Sequence[int]) -> bool:
    low, high = _range(position, counts)
    return low >= 0 and high < position[2]


def _followers(walk: _Walk, size: int) -> tuple[list[Follower], str]:
    """Return the registers of a walk, and the condition that an input is not padding."""
    followers = [Follower("address", index_bits(size), walk.start, walk.address, declared=True)]
    inside = ""
    for name, position in (("row", walk.row), ("column", walk.column)):
        if position is None:
            continue
        start, strides, count = position
        # Rows above the first are large numbers, modulo the bits.
        low, high = _range(position, walk.counts)
        bits = signed_bits(Range(low, max(high, count)))
        followers.append(Follower(name, bits, start, strides))
        inside += f" && {name} < {count}"
    return followers, inside


def _next_to(target: Target) -> str:
    """Return the index behind `to`, and the first one behind the last."""
    last = target.start + target.size - (target.stride - target.length) - 1
    after = "to + 1"
    if target.length != target.stride:
        after = f"part_ends ? to + {target.stride - target.length + 1} : to + 1"
    return f"to == {last} ? {target.start} : {after}"


def _parts(target: Target) -> str:
    """Return the register that counts the numbers of a part, where there are parts."""
    if target.length == target.stride:
        return ""
    bits, last = index_bits(target.length), target.length - 1
    return f"""
  reg [{bits - 1}:0] part;
  wire part_ends = part == {last};
  always @(posedge clk) begin
    if (write) part <= part_ends ? 0 : part + 1;
    if (reset) part <= 0;
  end
"""
