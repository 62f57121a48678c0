"""Convert steps that sum: products, means, recurrent layers."""

import numpy as np

from quantal._export.graph.steps import Listed, Nearest, Node, Pool, Product, Recurrent
from quantal._export.integer.combining import common_sum, total_of
from quantal._export.integer.convert_activations import rounding_for, way_of
from quantal._export.integer.grids import affine_of, grid_of, meaning_of
from quantal._export.integer.integer_weights import integer_weights
from quantal._export.integer.layer_steps import SimpleRecurrent
from quantal._export.integer.meaning import Affine, Meaning
from quantal._export.integer.nodes import IntegerNodes, Quantity
from quantal._export.integer.program import Activation
from quantal._export.integer.refusal import refusal
from quantal._export.integer.steps import EvenTotal, Range, Total, taps_of
from quantal._export.integer.sums import IntegerProduct, Sums


def convert_product(nodes: IntegerNodes, node: Node, source: Quantity) -> Quantity:
    """Convert a product: integer sums, or a map where it is element by element."""
    product: Product = node.step  # type: ignore[assignment]
    if product.is_element_wise:
        affine = _affine_of(product)
        falls = bool((affine.factor < 0).any())
        return (nodes.pooled(source, node) if falls else source).then(affine)
    source = nodes.pooled(source, node)
    affine = nodes.affine_of(source, node)
    sums = _sums_of(nodes, node, product, affine, nodes.bounds_of(source.value))
    value = nodes.emit(sums.step, node, sums.bounds, source.value)
    return Quantity(value, Meaning((sums.affine,)))


def convert_pool(nodes: IntegerNodes, node: Node, source: Quantity) -> Quantity:
    """Convert pooling: the largest waits for the activation; a mean is a sum."""
    pool: Pool = node.step  # type: ignore[assignment]
    if pool.largest:
        return source._replace(pools=(*source.pools, pool.window))
    source = nodes.pooled(source, node)
    affine = nodes.affine_of(source, node)
    counts = taps_of(pool.window).valid.sum(axis=1)
    count = int(np.lcm.reduce(counts))
    is_even = bool((counts == count).all())
    total = Total(pool.window) if is_even else EvenTotal(pool.window, count)
    bounds = Range(*(int(end) * count for end in nodes.bounds_of(source.value)))
    value = nodes.emit(total, node, bounds, source.value)
    return Quantity(value, Meaning((Affine(affine.factor / count, affine.offset),)))


def convert_recurrent(nodes: IntegerNodes, node: Node, source: Quantity) -> Quantity:
    """Convert a SimpleRNN whose state is on a list; the state of others is on none."""
    step: Recurrent = node.step  # type: ignore[assignment]
    if step.cell != "simple" or not isinstance(step.activation, Nearest):
        raise refusal(
            node,
            "has a state on no list. Expected a SimpleRNN with a list for its state, such as "
            "SimpleRNN(8, activation=DiscreteActivation(Values.signed(8, step=1 / 128))): the "
            "states of LSTM and GRU are sums of products, which lie on no list.",
        )
    source = nodes.pooled(source, node)
    grid = grid_of(node, step.activation)
    # The state is 0 at the start, also where 0 is not on its list.
    states = Range(min(grid.bounds.low, 0), max(grid.bounds.high, 0))
    of_inputs = _sums_of(
        nodes, node, step.inputs, nodes.affine_of(source, node), nodes.bounds_of(source.value)
    )
    of_states = _sums_of(nodes, node, step.states[0], affine_of(grid), states)
    bounds = [of_inputs.bounds, of_states.bounds]
    factors, meaning = common_sum([of_inputs.affine, of_states.affine], np.ones(2), bounds)
    total = nodes.checked(total_of(factors, bounds), node)
    layer = SimpleRecurrent(
        time=step.time,
        inputs=of_inputs.step,
        states=of_states.step,
        factors=factors,
        bounds=total,
        rounding=rounding_for(meaning, total, grid),
        sequences=step.sequences,
        backwards=step.backwards,
    )
    value = nodes.emit(layer, node, states, source.value)
    nodes.activations.append(Activation(node.name, value, grid, way_of(layer.rounding)))
    return Quantity(value, meaning_of(grid))


def _sums_of(
    nodes: IntegerNodes, node: Node, product: Product, affine: Affine, inputs: Range
) -> IntegerProduct:
    """Return the integer sums of a product of inputs in a range."""
    try:
        weights = integer_weights(product)
    except ValueError as error:
        raise refusal(node, f"{error}.") from None
    sums = Sums(product, weights.integers, weights.steps, affine).product_of(node, inputs)
    nodes.checked(sums.bounds, node)
    return sums


def _affine_of(product: Product) -> Affine:
    """Return a product element by element as a map of each channel."""
    weights = product.weights
    numbers = weights.numbers if isinstance(weights, Listed) else weights
    return Affine(product.scale * numbers[:, 0], np.asarray(product.bias, np.float64))
