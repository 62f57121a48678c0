"""Fold a graph: merge products with those before them, and leave out what nothing reads."""

import numpy as np

from quantal._export.graph.steps import Graph, Listed, Node, Pad, Product


def folded(graph: Graph) -> Graph:
    """Return a graph that computes the same with fewer nodes.

    A multiplication and addition for each channel (batch normalization, rescaling, a
    LearnableMultiplier) becomes part of the product before it, and padding part of the product
    behind it, where nothing else reads what lies between them.
    """
    rows: list[Node | None] = [*([None] * len(graph.inputs)), *graph.nodes]
    counts = graph.readers()
    for value, node in enumerate(rows):
        if node is None or len(node.sources) != 1:
            continue
        (source,) = node.sources
        before = rows[source]
        if before is None or counts[source] != 1:
            continue
        step = _merged(before, node)
        if step is not None:
            rows[value] = node._replace(step=step, sources=before.sources)
            rows[source] = None
    return _renumbered(graph, rows)


def _merged(before: Node, node: Node) -> Product | None:
    """Return the one product that computes two steps; None where none does."""
    match before.step, node.step:
        case Product() as first, Product() as second if second.is_element_wise:
            return _multiplied(first, second)
        case Pad() as first, Product() as second:
            return _padded(first, second)
    return None


def _multiplied(first: Product, second: Product) -> Product | None:
    """Return a product whose outputs are multiplied and added to."""
    repeated, rest = divmod(len(first.scale), len(second.scale))
    if rest:
        return None
    numbers = second.weights.numbers if isinstance(second.weights, Listed) else second.weights
    factor = np.tile(second.scale * numbers[:, 0], repeated)
    offset = np.tile(second.bias, repeated)
    return first._replace(scale=first.scale * factor, bias=first.bias * factor + offset)


def _padded(first: Pad, second: Product) -> Product | None:
    """Return a product that sees zeros around its inputs."""
    window = second.window
    image = (
        first.shape[0] + first.top + first.bottom,
        first.shape[1] + first.left + first.right,
        first.shape[2],
    )
    if image != (window.in_height, window.in_width, window.in_channels):
        return None
    if window.top or window.left or window.spread_y > 1 or window.spread_x > 1:
        return None
    height, width, _ = first.shape
    window = window._replace(in_height=height, in_width=width, top=first.top, left=first.left)
    return second._replace(window=window)


def _renumbered(graph: Graph, rows: list[Node | None]) -> Graph:
    """Return the graph of the rows that are read, with the values numbered anew."""
    needed = {output.value for output in graph.outputs}
    for value in range(len(rows) - 1, -1, -1):
        node = rows[value]
        if value in needed and node is not None:
            needed.update(node.sources)
    numbers = {value: value for value in range(len(graph.inputs))}
    nodes: list[Node] = []
    for value, node in enumerate(rows):
        if node is None or value not in needed:
            continue
        sources = tuple(numbers[source] for source in node.sources)
        numbers[value] = len(graph.inputs) + len(nodes)
        nodes.append(node._replace(sources=sources))
    outputs = [output._replace(value=numbers[output.value]) for output in graph.outputs]
    return Graph(nodes, graph.inputs, outputs)
