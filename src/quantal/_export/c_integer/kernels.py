"""Choose what is computed in one loop: sums together with the rounding that alone reads them."""

from typing import NamedTuple

from quantal._export.integer.layer_steps import IntegerStep
from quantal._export.integer.program import IntegerProgram
from quantal._export.integer.steps import (
    BroadcastProduct,
    EvenTotal,
    Multiplied,
    Products,
    Requantization,
    Rounding,
    Staircase,
    Thresholds,
    Total,
    WeightedSum,
)

_SUMS = (Products, Total, EvenTotal, WeightedSum, Multiplied, BroadcastProduct)
_ROUNDINGS = (Thresholds, Staircase, Requantization)


class Kernel(NamedTuple):
    """A kernel is a loop of a program.

    Attributes:
        step: The sum or other step; None where a value is rounded alone.
        rounding: What each sum is rounded by; None where it is written as it is.
        sources: The values that it reads.
        value: The value that it writes.
    """

    step: IntegerStep | None
    rounding: Rounding | None
    sources: tuple[int, ...]
    value: int


def kernels_of(program: IntegerProgram) -> list[Kernel]:
    """Return the kernels of a program in order; dead values have none."""
    first = len(program.inputs)
    readers: list[list[int]] = [[] for _ in range(first + len(program.nodes))]
    for index, node in enumerate(program.nodes):
        for source in node.sources:
            readers[source].append(index)
    outputs = {output.value for output in program.outputs}
    fused: set[int] = set()
    kernels = []
    for index, node in enumerate(program.nodes):
        if isinstance(node.step, _ROUNDINGS):
            (source,) = node.sources
            inner = program.nodes[source - first] if source >= first else None
            if source in fused and inner is not None:
                kernels.append(Kernel(inner.step, node.step, inner.sources, first + index))
            else:
                kernels.append(Kernel(None, node.step, node.sources, first + index))
            continue
        value = first + index
        users = readers[value]
        if (
            isinstance(node.step, _SUMS)
            and len(users) == 1
            and value not in outputs
            and isinstance(program.nodes[users[0]].step, _ROUNDINGS)
        ):
            fused.add(value)
        elif users or value in outputs:
            kernels.append(Kernel(node.step, None, node.sources, value))
    return kernels


def has_signs(program: IntegerProgram, value: int) -> bool:
    """Return whether the integers of a value are 1 and -1 alone."""
    first = len(program.inputs)
    if value < first:
        grid = program.inputs[value].grid
        return grid is not None and grid.integers.tolist() == [-1, 1]
    node = program.nodes[value - first]
    if isinstance(node.step, Thresholds):
        return bool(node.step.levels.tolist() == [-1, 1])
    moves = type(node.step).__name__ in ("Largest", "Joined", "Copied")
    return moves and all(has_signs(program, source) for source in node.sources)
