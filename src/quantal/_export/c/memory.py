"""Plan the memory of a graph's values: where each lies, in as little memory as is easily had.

The memory between layers is one array. Values that live at the same time lie apart in it; others
share. The largest value is given the lowest gap first: the greedy-by-size planner of TensorFlow
Lite (Pisarchyk and Lee, "Efficient memory management for deep neural net inference", 2020).
"""

from typing import NamedTuple

from quantal._export.c.recurrent import scratch_of
from quantal._export.c.weights import unpacked_of
from quantal._export.graph.steps import (
    Elementwise,
    Function,
    Graph,
    Nearest,
    Node,
    Normalize,
    Product,
    Recurrent,
    Repetition,
    Slopes,
    Softmax,
)


class Span(NamedTuple):
    """A span of memory is used from one node to another, both included.

    Attributes:
        size: Its length, in floats.
        first: The index of the node that writes it.
        last: The index of the last node that reads it.
    """

    size: int
    first: int
    last: int


class Memory(NamedTuple):
    """The memory of a program.

    Attributes:
        locations: The C expression of the array of each value, by the value's number.
        copies: Pairs of C expressions, and a length: what is copied at the end, since an output
            is an input, or there twice.
        scratch: The C expression of the memory that each node needs while it runs; or empty.
        size: The length of the memory between layers, in floats.
    """

    locations: list[str]
    copies: list[tuple[str, str, int]]
    scratch: list[str]
    size: int


def plan(graph: Graph) -> Memory:
    """Return where the values of a graph lie.

    Functions of single numbers, and the like, write where they read, if nothing else reads that.
    """
    inputs, outputs = names_of("input", len(graph.inputs)), names_of("output", len(graph.outputs))
    last_reader = _last_readers(graph)
    roots = _roots(graph, last_reader)
    arrays: dict[int, str] = dict(enumerate(inputs))
    copies = []
    for output, name in zip(graph.outputs, outputs, strict=True):
        root = roots[output.value]
        if root in arrays:
            size = _size(graph, output.value)
            copies.append((name, arrays[root], size))
        else:
            arrays[root] = name
    spans = _spans_of_values(graph, roots, last_reader, arrays)
    lengths = {index: _scratch(node) for index, node in enumerate(graph.nodes)}
    nodes = [index for index, length in lengths.items() if length]
    all_spans = [*spans.values(), *(Span(lengths[index], index, index) for index in nodes)]
    offsets = offsets_of(all_spans)
    names = [f"memory + {offset}" if offset else "memory" for offset in offsets]
    arrays.update(zip(spans, names, strict=False))
    scratch = dict(zip(nodes, names[len(spans) :], strict=True))
    ends = [span.size + offset for span, offset in zip(all_spans, offsets, strict=True)]
    return Memory(
        [arrays[root] for root in roots],
        copies,
        [scratch.get(index, "") for index in range(len(graph.nodes))],
        max(ends, default=0),
    )


def _spans_of_values(
    graph: Graph, roots: list[int], last_reader: list[int], arrays: dict[int, str]
) -> dict[int, Span]:
    """Return the spans of the values that have no array yet, by the first value in each."""
    spans: dict[int, Span] = {}
    for value in range(len(graph.inputs), len(roots)):
        root = roots[value]
        if root not in arrays:
            first = spans[root].first if root in spans else value - len(graph.inputs)
            spans[root] = Span(_size(graph, value), first, last_reader[value])
    return spans


def _scratch(node: Node) -> int:
    """Return how many floats a node needs while it runs, besides its result."""
    if isinstance(node.step, Product):
        return unpacked_of(node.step)
    return scratch_of(node.step) if isinstance(node.step, Recurrent) else 0


def names_of(kind: str, count: int) -> list[str]:
    """Return the names of so many arguments in C.

    >>> names_of("input", 1), names_of("input", 2)
    (['input'], ['input_1', 'input_2'])
    """
    return [kind] if count == 1 else [f"{kind}_{index + 1}" for index in range(count)]


def offsets_of(spans: list[Span]) -> list[int]:
    """Return an offset for each span such that spans of the same time do not overlap.

    >>> offsets_of([Span(4, 0, 1), Span(6, 1, 2), Span(5, 2, 3)])
    [6, 0, 6]
    """
    offsets = [0] * len(spans)
    placed: list[int] = []
    for index in sorted(range(len(spans)), key=lambda index: -spans[index].size):
        span, start = spans[index], 0
        # In the order of their offsets, so that the first gap that is large enough is taken.
        for other in sorted(placed, key=lambda other: offsets[other]):
            is_free = spans[other].last < span.first or span.last < spans[other].first
            if is_free:
                continue
            if offsets[other] - start >= span.size:
                break
            start = max(start, offsets[other] + spans[other].size)
        offsets[index] = start
        placed.append(index)
    return offsets


def _size(graph: Graph, value: int) -> int:
    """Return the length of a value."""
    index = value - len(graph.inputs)
    if index >= 0:
        return graph.nodes[index].step.size
    length = 1
    for side in graph.inputs[value]:
        length *= side
    return length


def _last_readers(graph: Graph) -> list[int]:
    """Return the index of the node that reads each value last; an output is read after all."""
    last = [-1] * (len(graph.inputs) + len(graph.nodes))
    for index, node in enumerate(graph.nodes):
        for source in node.sources:
            last[source] = index
    for output in graph.outputs:
        last[output.value] = len(graph.nodes)
    return last


def _roots(graph: Graph, last_reader: list[int]) -> list[int]:
    """Return the first value in whose array each value is written."""
    roots = list(range(len(last_reader)))
    for index, node in enumerate(graph.nodes):
        for source in _overwritable(node):
            if source >= len(graph.inputs) and last_reader[source] == index:
                roots[graph.value_of(index)] = roots[source]
                break
    return roots


def _overwritable(node: Node) -> list[int]:
    """Return the sources in whose arrays a node may write its results."""
    match node.step:
        case Function() | Slopes() | Softmax() | Normalize() | Nearest():
            return list(node.sources)
        case Product() as step if step.is_element_wise:
            return list(node.sources)
        case Elementwise() as step:
            whole = Repetition(1, step.size)
            pairs = zip(node.sources, step.repetitions, strict=True)
            return [source for source, repetition in pairs if repetition == whole]
    return []
