"""Convert a graph of float steps into an integer network."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from quantal._export.graph.steps import (
    Concatenate,
    Elementwise,
    Floats,
    Function,
    Graph,
    Listed,
    Lookup,
    Nearest,
    Node,
    Normalize,
    Pad,
    Pool,
    Product,
    Rearrange,
    Recurrent,
    Slopes,
    Softmax,
    Step,
    Window,
)
from quantal._export.integer.combining import (
    common_sum,
    joined_meaning,
    moved_meaning,
    repeated_affine,
)
from quantal._export.integer.functions import turns_of
from quantal._export.integer.grids import affine_of, grid_of, input_of, meaning_of
from quantal._export.integer.integer_weights import integer_table, integer_weights
from quantal._export.integer.layer_steps import (
    IntegerStep,
    LookedUp,
    SimpleRecurrent,
)
from quantal._export.integer.meaning import Affine, Meaning, is_one_scale, uniform
from quantal._export.integer.normalizing import (
    bounds_of_normalized,
    fine_scales,
    fraction_of,
    normalized,
)
from quantal._export.integer.program import (
    Activation,
    Grid,
    IntegerNode,
    IntegerOutput,
    IntegerProgram,
)
from quantal._export.integer.refusal import EXPECTED, refusal
from quantal._export.integer.rounding import (
    FEW_LEVELS,
    fixed_point,
    requantization_of,
    thresholds_of,
)
from quantal._export.integer.staircase import staircase_of
from quantal._export.integer.steps import (
    BroadcastProduct,
    Copied,
    EvenTotal,
    Integers,
    Joined,
    Largest,
    Multiplied,
    Padded,
    Products,
    Range,
    Requantization,
    Rounding,
    Total,
    WeightedSum,
    taps_of,
)
from quantal._export.integer.sums import IntegerProduct, Sums, zero_point

LIMIT = 2**31 - 2
"""The largest sum: an int32, with a threshold above it that is never reached."""


def converted(graph: Graph) -> IntegerProgram:
    """Return the integer network that a graph of float steps stands for.

    Raises:
        ValueError: A step has no integer form; the message names its layer.
    """
    return _Converter(graph).program()


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


class _Converter:
    """A converter collects the integer nodes of a graph's nodes."""

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self._inputs = [input_of(graph, index) for index in range(len(graph.inputs))]
        self._nodes: list[IntegerNode] = []
        self._activations: list[Activation] = []
        self._quantities = [
            Quantity(index, meaning_of(each.grid) if each.grid else Meaning())
            for index, each in enumerate(self._inputs)
        ]

    def program(self) -> IntegerProgram:
        """Convert all nodes, and return the network."""
        for node in self._graph.nodes:
            sources = [self._quantities[source] for source in node.sources]
            convert = _CONVERSIONS.get(type(node.step))
            if convert is None:
                raise refusal(node, f"has no integer form ({type(node.step).__name__}). {EXPECTED}")
            self._quantities.append(convert(self, node, *sources))
        outputs = [self._output(value, shape) for value, shape in self._graph.outputs]
        return IntegerProgram(self._inputs, self._nodes, outputs, self._activations)

    def product(self, node: Node, source: Quantity) -> Quantity:
        """Convert a product: integer sums, or a map where it is element by element."""
        product: Product = node.step  # type: ignore[assignment]
        if product.is_element_wise:
            affine = _affine_of(product)
            falls = bool((affine.factor < 0).any())
            return (self._pooled(source, node) if falls else source).then(affine)
        source = self._pooled(source, node)
        affine = self._affine(source, node)
        sums = self._sums_of(node, product, affine, self._bounds(source.value))
        value = self._emit(sums.step, node, sums.bounds, source.value)
        return Quantity(value, Meaning((sums.affine,)))

    def _sums_of(
        self, node: Node, product: Product, affine: Affine, inputs: Range
    ) -> IntegerProduct:
        """Return the integer sums of a product of inputs in a range."""
        try:
            weights = integer_weights(product)
        except ValueError as error:
            raise refusal(node, f"{error}.") from None
        sums = Sums(product, weights.integers, weights.steps, affine).product_of(node, inputs)
        self._checked(sums.bounds, node)
        return sums

    def pool(self, node: Node, source: Quantity) -> Quantity:
        """Convert pooling: the largest waits for the activation; a mean is a sum."""
        pool: Pool = node.step  # type: ignore[assignment]
        if pool.largest:
            return source._replace(pools=(*source.pools, pool.window))
        source = self._pooled(source, node)
        affine = self._affine(source, node)
        counts = taps_of(pool.window).valid.sum(axis=1)
        count = int(np.lcm.reduce(counts))
        is_even = bool((counts == count).all())
        total = Total(pool.window) if is_even else EvenTotal(pool.window, count)
        bounds = Range(*(int(end) * count for end in self._bounds(source.value)))
        value = self._emit(total, node, bounds, source.value)
        return Quantity(value, Meaning((Affine(affine.factor / count, affine.offset),)))

    def function(self, node: Node, source: Quantity) -> Quantity:
        """Append a function to what the integers stand for."""
        step: Function | Slopes | Softmax = node.step  # type: ignore[assignment]
        # The largest of numbers is the largest of a function that rises with them, too.
        falls = isinstance(step, Softmax) or bool(turns_of(step))
        return (self._pooled(source, node) if falls else source).then(step)

    def nearest(self, node: Node, source: Quantity) -> Quantity:
        """Convert an activation on a list: thresholds, or a multiplier and a shift."""
        step: Nearest = node.step  # type: ignore[assignment]
        grid = grid_of(node, step)
        if source.value < len(self._inputs) and source == self._quantities[source.value]:
            given = self._inputs[source.value].grid
            if given is not None and given.is_like(grid):
                self._activations.append(Activation(node.name, source.value, grid, "the input"))
                return source
        meaning = source.meaning
        if not meaning.is_by_number:
            raise refusal(
                node,
                "stands after a softmax, which integers do not compute. Expected a softmax at an "
                "output alone, which is left off; or a function of single numbers, such as "
                "sigmoid or hard_sigmoid, in its place.",
            )
        rounding = self._rounding(meaning, self._bounds(source.value), grid)
        bounds = grid.bounds
        if isinstance(rounding, Requantization):
            bounds = Range(rounding.low, rounding.high)
        value = self._emit(rounding, node, bounds, source.value)
        quantity = Quantity(value, meaning_of(grid), source.pools)
        quantity = self._pooled(quantity, node)
        self._activations.append(Activation(node.name, quantity.value, grid, _way(rounding)))
        return quantity

    def elementwise(self, node: Node, *sources: Quantity) -> Quantity:
        """Convert sums and products of several sources."""
        step: Elementwise = node.step  # type: ignore[assignment]
        if step.operation not in (*_SIGNS, "multiply"):
            raise refusal(node, f"computes {step.operation!r}. {EXPECTED}")
        sources = tuple(self._pooled(source, node) for source in sources)
        affines = [
            repeated_affine(self._affine(source, node), repetition)
            for source, repetition in zip(sources, step.repetitions, strict=True)
        ]
        values = [source.value for source in sources]
        if step.operation == "multiply":
            return self._multiplied(node, values, affines)
        values = self._repeated(node, values)
        signs = _SIGNS[step.operation](len(sources))
        bounds = [self._bounds(value) for value in values]
        factors, meaning = common_sum(affines, signs, bounds)
        total = _total(factors, bounds)
        return Quantity(self._emit(WeightedSum(factors), node, total, *values), meaning)

    def _multiplied(self, node: Node, values: list[int], affines: list[Affine]) -> Quantity:
        if any(affine.offset.any() for affine in affines):
            raise refusal(
                node,
                "multiplies numbers with a bias or another offset, whose integer 0 does not stand "
                "for 0. Expected a quantal.DiscreteActivation on each of its inputs.",
            )
        step: Elementwise = node.step  # type: ignore[assignment]
        period = int(np.lcm.reduce([len(affine.factor) for affine in affines]))
        factor = np.prod([np.resize(affine.factor, period) for affine in affines], axis=0)
        bounds = Range(1, 1)
        for each in map(self._bounds, values):
            ends = [one * other for one in bounds for other in each]
            bounds = Range(min(*ends, bounds.low), max(*ends, bounds.high))
        is_plain = len(values) == 2 and not _is_broadcast(step)
        product = Multiplied() if is_plain else BroadcastProduct(step.size, step.repetitions)
        value = self._emit(product, node, bounds, *values)
        return Quantity(value, Meaning((Affine(factor, np.zeros(period)),)))

    def _repeated(self, node: Node, values: list[int]) -> list[int]:
        """Return values of one shape: copies of those that are broadcast."""
        step: Elementwise = node.step  # type: ignore[assignment]
        if not _is_broadcast(step):
            return values
        copies = [
            Rearrange((step.size // (r.repeat * r.period), r.period, r.repeat), (0, 1, 0))
            for r in step.repetitions
        ]
        return [
            value
            if copy.lengths == (1, step.size, 1)
            else self._emit(Copied(copy), node, self._bounds(value), value)
            for value, copy in zip(values, copies, strict=True)
        ]

    def concatenate(self, node: Node, *sources: Quantity) -> Quantity:
        """Convert a concatenation; what the integers stand for is joined, too."""
        step: Concatenate = node.step  # type: ignore[assignment]
        sources = tuple(self._pooled(source, node) for source in sources)
        meaning = joined_meaning([self._affine(s, node) for s in sources], step)
        if meaning is None:
            raise refusal(
                node,
                "joins numbers of different scales along another axis than the channels. Expected "
                "one scale: a DiscreteActivation after it in place of those before it.",
            )
        bounds = [self._bounds(source.value) for source in sources]
        joint = Range(min(b.low for b in bounds), max(b.high for b in bounds))
        values = [source.value for source in sources]
        return Quantity(self._emit(Joined(*step), node, joint, *values), meaning)

    def lookup(self, node: Node, source: Quantity) -> Quantity:
        """Convert rows of a table, which integers number."""
        step: Lookup = node.step  # type: ignore[assignment]
        source = self._pooled(source, node)
        affine, bounds = self._affine(source, node), self._bounds(source.value)
        numbers = (affine.factor == 1).all() and not affine.offset.any()
        if not numbers or bounds.low < 0 or bounds.high >= step.rows:
            raise refusal(
                node,
                f"looks up rows by numbers that are no integers from 0 to {step.rows - 1}. "
                "Expected it as the first layer, or behind a DiscreteActivation on these integers.",
            )
        try:
            table = integer_table(step)
        except ValueError as error:
            raise refusal(node, f"{error}.") from None
        bounds = Range(int(table.integers.min()), int(table.integers.max()))
        value = self._emit(LookedUp(table.integers, step.size), node, bounds, source.value)
        return Quantity(value, Meaning((uniform(table.scale),)))

    def normalize(self, node: Node, source: Quantity) -> Quantity:
        """Convert a normalization of each sample by itself: fixed point, close to a float32."""
        step: Normalize = node.step  # type: ignore[assignment]
        source = self._pooled(source, node)
        affine, bounds = self._affine(source, node), self._bounds(source.value)
        value = source.value
        if is_one_scale(affine):
            result = normalized(step, float(affine.factor[0]), bounds)
        else:
            for fine in fine_scales(affine, bounds, step.positions * step.width):
                result = normalized(step, fine.scale, fine.bounds)
                if result is not None:
                    value = self._emit(fine.rounding, node, fine.bounds, value)
                    break
        if result is None:
            raise refusal(
                node,
                f"normalizes {step.positions * step.width:,} numbers of too wide a range for an "
                "int64. Expected a DiscreteActivation before it.",
            )
        value = self._emit(result, node, bounds_of_normalized(result), value)
        return Quantity(value, Meaning((uniform(2.0 ** -fraction_of(result)),)))

    def recurrent(self, node: Node, source: Quantity) -> Quantity:
        """Convert a SimpleRNN whose state is on a list; the state of others is on none."""
        step: Recurrent = node.step  # type: ignore[assignment]
        if step.cell != "simple" or not isinstance(step.activation, Nearest):
            raise refusal(
                node,
                "has a state on no list. Expected a SimpleRNN with a list for its state, such as "
                "SimpleRNN(8, activation=DiscreteActivation(Values.signed(8, step=1 / 128))): the "
                "states of LSTM and GRU are sums of products, which lie on no list.",
            )
        source = self._pooled(source, node)
        grid = grid_of(node, step.activation)
        # The state is 0 at the start, also where 0 is not on its list.
        states = Range(min(grid.bounds.low, 0), max(grid.bounds.high, 0))
        of_inputs = self._sums_of(
            node, step.inputs, self._affine(source, node), self._bounds(source.value)
        )
        of_states = self._sums_of(node, step.states[0], affine_of(grid), states)
        bounds = [of_inputs.bounds, of_states.bounds]
        factors, meaning = common_sum([of_inputs.affine, of_states.affine], np.ones(2), bounds)
        total = self._checked(_total(factors, bounds), node)
        layer = SimpleRecurrent(
            time=step.time,
            inputs=of_inputs.step,
            states=of_states.step,
            factors=factors,
            bounds=total,
            rounding=self._rounding(meaning, total, grid),
            sequences=step.sequences,
            backwards=step.backwards,
        )
        value = self._emit(layer, node, states, source.value)
        self._activations.append(Activation(node.name, value, grid, _way(layer.rounding)))
        return Quantity(value, meaning_of(grid))

    def pad(self, node: Node, source: Quantity) -> Quantity:
        """Convert a border of zeros: it holds the integer that stands for 0."""
        step: Pad = node.step  # type: ignore[assignment]
        source = self._pooled(source, node)
        affine = self._affine(source, node)
        zero = zero_point(affine)
        if zero is None or zero[1] != 1:
            raise refusal(node, "pads with 0, which no integer stands for. Expected a list with 0.")
        low, high = self._bounds(source.value)
        bounds = Range(min(low, zero[0]), max(high, zero[0]))
        value = self._emit(Padded(step, zero[0]), node, bounds, source.value)
        return Quantity(value, Meaning((affine,)))

    def rearrange(self, node: Node, source: Quantity) -> Quantity:
        """Convert copies; what the integers stand for is moved, too."""
        step: Rearrange = node.step  # type: ignore[assignment]
        source = self._pooled(source, node)
        if not source.meaning.is_by_number:
            raise refusal(
                node,
                "moves the results of a softmax. Expected the softmax behind it, at an output.",
            )
        copied = Copied(step)
        meaning = moved_meaning(source.meaning, copied.indices, step.lengths)
        value = self._emit(copied, node, self._bounds(source.value), source.value)
        return Quantity(value, meaning)

    def _rounding(self, meaning: Meaning, bounds: Range, grid: Grid) -> Rounding:
        arguments = meaning, bounds, grid.levels, grid.scale, grid.integers
        if not meaning.is_monotone:
            return staircase_of(*arguments)
        rounding = None if len(grid.levels) <= FEW_LEVELS else requantization_of(*arguments)
        return rounding or thresholds_of(*arguments)

    def _pooled(self, source: Quantity, node: Node) -> Quantity:
        """Return a quantity whose pooling is done."""
        if source.pools and not source.meaning.is_monotone:
            raise refusal(
                node,
                "reads the largest of numbers that rise and fall. Expected a "
                "quantal.DiscreteActivation before it.",
            )
        for window in source.pools:
            step = Largest(window, source.meaning.falling)
            value = self._emit(step, node, self._bounds(source.value), source.value)
            source = source._replace(value=value)
        return source._replace(pools=())

    def _affine(self, source: Quantity, node: Node) -> Affine:
        affine = source.meaning.affine
        if affine is None:
            raise refusal(
                node,
                "reads the results of a function, which lie on no grid. Expected numbers on a "
                "list: put a quantal.DiscreteActivation between the function and this layer.",
            )
        return affine

    def _output(self, value: int, shape: tuple[int, ...]) -> IntegerOutput:
        """Return an output: integers with one scale, and the functions that are left to floats."""
        node = self._graph.nodes[-1] if self._graph.nodes else Node(None, (), shape, "output")  # type: ignore[arg-type]
        quantity = self._pooled(self._quantities[value], node)
        affine, rest = quantity.meaning.split()
        if is_one_scale(affine):
            meaning = Meaning((uniform(float(affine.factor[0])), *rest))
            return IntegerOutput(quantity.value, shape, meaning)
        bounds = self._bounds(quantity.value)
        ends = [affine.factor * end + affine.offset for end in bounds]
        largest = float(np.max(np.abs(ends))) or 1.0
        step = 2.0 ** (np.ceil(np.log2(largest)) - _OUTPUT_BITS)
        results = Range(int(np.min(ends) / step) - 1, int(np.max(ends) / step) + 1)
        rounding = fixed_point(affine.factor / step, affine.offset / step, bounds, results)
        rescaled = self._emit(rounding, node, results, quantity.value)
        return IntegerOutput(rescaled, shape, Meaning((uniform(float(step)), *rest)))

    def _bounds(self, value: int) -> Range:
        count = len(self._inputs)
        return self._inputs[value].bounds if value < count else self._nodes[value - count].bounds

    def _emit(self, step: IntegerStep, node: Node, bounds: Range, *sources: int) -> int:
        """Append a node, and return the number of its value."""
        self._checked(bounds, node)
        size = self._size_of(step, sources)
        self._nodes.append(IntegerNode(step, sources, size, bounds, node.name))
        return len(self._inputs) + len(self._nodes) - 1

    def _checked(self, bounds: Range, node: Node) -> Range:
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
        count = len(self._inputs)
        return (
            self._inputs[sources[0]].size
            if sources[0] < count
            else self._nodes[sources[0] - count].size
        )


def _affine_of(product: Product) -> Affine:
    """Return a product element by element as a map of each channel."""
    weights = product.weights
    numbers = weights.numbers if isinstance(weights, Listed) else weights
    return Affine(product.scale * numbers[:, 0], np.asarray(product.bias, np.float64))


def _total(factors: Integers, bounds: list[Range]) -> Range:
    """Return the smallest and the largest weighted sum, also before all are added."""
    ends = [_ends(factor, each) for factor, each in zip(factors, bounds, strict=True)]
    return Range(sum(min(e.low, 0) for e in ends), sum(max(e.high, 0) for e in ends))


def _ends(factor: Integers, bounds: Range) -> Range:
    products = np.stack([factor * bounds.low, factor * bounds.high])
    return Range(int(products.min()), int(products.max()))


def _is_broadcast(step: Elementwise) -> bool:
    return any((r.repeat, r.period) != (1, step.size) for r in step.repetitions)


def _way(rounding: Rounding) -> str:
    if not isinstance(rounding, Requantization):
        return "thresholds"
    is_shift = (np.abs(rounding.multiplier) <= 1).all()
    return "shift" if is_shift else "multiplier and shift"


_OUTPUT_BITS = 29
"""Rescaled outputs take so many bits and a sign, so that they are finer than a float32."""
_SIGNS: dict[str, Callable[[int], Floats]] = {
    "add": np.ones,
    "subtract": lambda count: np.array([1.0, -1.0]),
    "average": lambda count: np.full(count, 1 / count),
}
_CONVERSIONS: dict[type[Step], Callable[..., Quantity]] = {
    Product: _Converter.product,
    Pool: _Converter.pool,
    Function: _Converter.function,
    Slopes: _Converter.function,
    Softmax: _Converter.function,
    Nearest: _Converter.nearest,
    Elementwise: _Converter.elementwise,
    Concatenate: _Converter.concatenate,
    Lookup: _Converter.lookup,
    Normalize: _Converter.normalize,
    Recurrent: _Converter.recurrent,
    Pad: _Converter.pad,
    Rearrange: _Converter.rearrange,
}
