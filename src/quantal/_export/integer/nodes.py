"""Integer nodes are collected, and each is checked to fit its accumulator."""

from typing import Any, NamedTuple

from quantal._export.graph.steps import Node, Window
from quantal._export.integer.grids import meaning_of
from quantal._export.integer.layer_steps import IntegerStep, LookedUp, SimpleRecurrent
from quantal._export.integer.meaning import Affine, Meaning
from quantal._export.integer.program import Activation, IntegerInput, IntegerNode
from quantal._export.integer.refusal import refusal
from quantal._export.integer.steps import (
    BroadcastProduct,
    Copied,
    EvenTotal,
    Joined,
    Largest,
    Padded,
    Products,
    Range,
    Total,
)

LIMIT = 2**31 - 2
"""The largest sum: an int32, with a threshold above it that is never reached."""


class Quantity(NamedTuple):
    """A quantity is a value of the float graph: integers, and which numbers they stand for.

    Attributes:
        value: The number of the integer value.
        meaning: What an integer stands for.
        pools: Windows of which the largest number is still to be taken, first to last. They wait
            for the activation after them, since smaller integers can be pooled then.
    """

    value: int
    meaning: Meaning
    pools: tuple[Window, ...] = ()

    def then(self, *maps: Any) -> "Quantity":
        """Return the quantity with further maps."""
        return self._replace(meaning=self.meaning.then(*maps))


class IntegerNodes:
    """The nodes of an integer network are collected one after another.

    Args:
        inputs: The network's inputs, whose values have the first numbers.
    """

    def __init__(self, inputs: list[IntegerInput]) -> None:
        self.inputs = inputs
        self.nodes: list[IntegerNode] = []
        self.activations: list[Activation] = []
        self.of_inputs = [
            Quantity(index, meaning_of(each.grid) if each.grid else Meaning())
            for index, each in enumerate(inputs)
        ]

    def bounds_of(self, value: int) -> Range:
        """Return the smallest and the largest integer that a value holds."""
        count = len(self.inputs)
        return self.inputs[value].bounds if value < count else self.nodes[value - count].bounds

    def emit(self, step: IntegerStep, node: Node, bounds: Range, *sources: int) -> int:
        """Append a node, and return the number of its value."""
        self.checked(bounds, node)
        size = self._size_of(step, sources)
        self.nodes.append(IntegerNode(step, sources, size, bounds, node.name))
        return len(self.inputs) + len(self.nodes) - 1

    def checked(self, bounds: Range, node: Node) -> Range:
        """Return the bounds of sums, or refuse those beyond an int32."""
        if min(bounds) < -LIMIT or max(bounds) > LIMIT:
            raise refusal(
                node,
                f"can sum up to {max(map(abs, bounds)):,}. Expected at most {LIMIT:,}, since "
                "accumulators are int32. Put its inputs or its weights on shorter lists.",
            )
        return bounds

    def _size_of(self, step: IntegerStep, sources: tuple[int, ...]) -> int:
        if isinstance(step, Products | Largest | Total | EvenTotal):
            return step.window.size
        if isinstance(step, Joined):
            return step.parts * sum(step.lengths)
        if isinstance(step, Padded):
            return step.pad.size
        if isinstance(step, BroadcastProduct | LookedUp | SimpleRecurrent):
            return step.size
        if isinstance(step, Copied):
            return step.rearrange.size
        count = len(self.inputs)
        return (
            self.inputs[sources[0]].size
            if sources[0] < count
            else self.nodes[sources[0] - count].size
        )

    def pooled(self, source: Quantity, node: Node) -> Quantity:
        """Return a quantity whose pooling is done."""
        if source.pools and not source.meaning.is_monotone:
            raise refusal(
                node,
                "reads the largest of numbers that rise and fall. Expected a "
                "quantal.DiscreteActivation before it.",
            )
        for window in source.pools:
            step = Largest(window, source.meaning.falling)
            value = self.emit(step, node, self.bounds_of(source.value), source.value)
            source = source._replace(value=value)
        return source._replace(pools=())

    def affine_of(self, source: Quantity, node: Node) -> Affine:
        """Return which numbers the integers of a quantity stand for, or refuse a function."""
        affine = source.meaning.affine
        if affine is None:
            raise refusal(
                node,
                "reads the results of a function, which lie on no grid. Expected numbers on a "
                "list: put a quantal.DiscreteActivation between the function and this layer.",
            )
        return affine
