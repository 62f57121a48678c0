"""Define an integer network: its inputs, its steps in order and what its outputs stand for."""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from quantal._export.graph.steps import Floats, Shape
from quantal._export.integer.layer_steps import IntegerStep
from quantal._export.integer.meaning import Meaning
from quantal._export.integer.rounding import codes_of
from quantal._export.integer.steps import Integers, Range


class Grid(NamedTuple):
    """A grid is a list with a scale, whose values are integers times one step.

    Attributes:
        levels: The listed values, rising, shape (K,).
        scale: The scale, shape (period,).
        integers: The integers that stand for the values, shape (K,).
        step: The number that an integer 1 stands for before the scale.
    """

    levels: Floats
    scale: Floats
    integers: Integers
    step: float

    @property
    def bounds(self) -> Range:
        """The smallest and the largest integer."""
        return Range(int(self.integers[0]), int(self.integers[-1]))

    def is_like(self, other: "Grid") -> bool:
        """Return whether another grid has the same values."""
        return self.step == other.step and all(
            np.array_equal(one, another) for one, another in zip(self[:3], other[:3], strict=True)
        )

    def nearest(self, numbers: Floats) -> Integers:
        """Return the integers that stand for the nearest values.

        Args:
            numbers: Shape (samples, a multiple of the scale's length).
        """
        return self.integers[codes_of(numbers, self.levels, self.scale)]


PIXELS = Range(0, 255)
"""What an input holds that is not put on a list first."""


class IntegerInput(NamedTuple):
    """An input of an integer network.

    Attributes:
        shape: The shape of a sample.
        bounds: The smallest and the largest integer.
        grid: The list that floats are put on; None where the inputs are integers.
        kind: The name of what they are: pixels, rows of a table, or integers of the list.
    """

    shape: Shape
    bounds: Range
    grid: Grid | None
    kind: str = "integers"

    @property
    def size(self) -> int:
        """The number of integers in a sample."""
        return math.prod(self.shape)


class IntegerNode(NamedTuple):
    """A node of an integer network.

    Attributes:
        step: What it computes.
        sources: The numbers of the values that it reads: first the inputs, then the nodes.
        size: The number of integers in its result.
        bounds: The smallest and the largest integer that can occur.
        name: The name of the layer that it comes from.
    """

    step: IntegerStep
    sources: tuple[int, ...]
    size: int
    bounds: Range
    name: str


class IntegerOutput(NamedTuple):
    """An output of an integer network.

    Attributes:
        value: The number of the value.
        shape: The shape of a sample.
        meaning: What an integer stands for: a scale, and the functions that are left to floats.
    """

    value: int
    shape: Shape
    meaning: Meaning


class Activation(NamedTuple):
    """An activation on a list, as the integers of a network hold it.

    Attributes:
        name: The name of the layer.
        value: The number of the value.
        grid: Its list and scale.
        way: How it is rounded: "thresholds", "shift", "multiplier and shift"; or "the input",
            whose codes are given.
    """

    name: str
    value: int
    grid: Grid
    way: str


class IntegerProgram(NamedTuple):
    """An integer network: inputs, nodes in topological order, outputs.

    Attributes:
        inputs: The inputs; they are the first values.
        nodes: The nodes; node `i` computes the value `len(inputs) + i`.
        outputs: The outputs.
        activations: The activations on lists, in the order of the model's.
    """

    inputs: list[IntegerInput]
    nodes: list[IntegerNode]
    outputs: list[IntegerOutput]
    activations: list[Activation]

    def bounds_of(self, value: int) -> Range:
        """Return the smallest and the largest integer of a value."""
        count = len(self.inputs)
        return self.inputs[value].bounds if value < count else self.nodes[value - count].bounds

    def size_of(self, value: int) -> int:
        """Return the number of integers of a value."""
        count = len(self.inputs)
        return self.inputs[value].size if value < count else self.nodes[value - count].size

    def values(self, *inputs: NDArray[np.integer]) -> list[Integers]:
        """Return all values: the reference of the integer arithmetic.

        Args:
            inputs: Integers of each input, shape (samples, size).
        """
        values = [x.astype(np.int64) for x in inputs]
        for node in self.nodes:
            values.append(node.step.run(*(values[source] for source in node.sources)))
        return values
