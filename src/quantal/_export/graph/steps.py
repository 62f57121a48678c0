"""Define the graph of steps that a model is read into, for targets that write programs.

A graph is read like this. Its values are arrays of floats, numbered from 0: first the inputs,
then the results of the nodes, one each. A node reads the values that its `sources` number, all of
which stand before it, and its step says what it computes; so a loop over the nodes is an
inference:

    values = [*inputs]
    for node in graph.nodes:
        values.append(compute(node.step, [values[source] for source in node.sources]))
    outputs = [values[output.value] for output in graph.outputs]

Samples lie as Keras holds them, the last axis running fastest, so flattening and reshaping are no
steps: `node.shape` is only how Keras sees the result. Everything linear is a `Product`, a
convolution over two axes of positions: a Dense sees one position, and a multiplication element by
element is a convolution in as many groups as channels. Steps on single numbers (`Function`,
`Nearest`, a `Product` for which `is_element_wise` holds) may write where they read.
"""

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Shape = tuple[int, ...]
Floats = NDArray[np.float64]

FUNCTIONS = (
    "relu", "sigmoid", "tanh", "elu", "softplus", "silu", "hard_sigmoid", "exponential", "gelu",
    "selu", "celu", "softsign", "mish", "log_sigmoid", "hard_silu", "hard_tanh", "hard_shrink",
    "soft_shrink", "tanh_shrink", "squareplus", "sparse_plus", "sparse_sigmoid",
)  # fmt: skip
"""These names of `keras.activations` are functions of single numbers."""

OPERATIONS = ("add", "subtract", "multiply", "divide", "average", "maximum", "minimum")
"""The operations of `Elementwise`."""


class Window(NamedTuple):
    """A window says which inputs each output sees, in a convolution or in pooling.

    Positions have two axes; where there is one, or none, the others have the length 1.
    `top` and `left` are the positions of padding before the first input. `spread_y` and `spread_x`
    are above 1 in transposed convolutions alone: so far apart do the inputs lie among the
    positions that the kernel meets, with nothing between them. Output `y` meets the position
    `p = y * stride_y + kernel_y * dilation_y - top`, which is the input `p / spread_y` where that
    has no remainder.
    """

    in_height: int
    in_width: int
    in_channels: int
    out_height: int
    out_width: int
    out_channels: int
    kernel_height: int
    kernel_width: int
    stride_y: int
    stride_x: int
    dilation_y: int
    dilation_x: int
    top: int
    left: int
    groups: int
    spread_y: int = 1
    spread_x: int = 1

    @property
    def size(self) -> int:
        """The number of outputs."""
        return self.out_height * self.out_width * self.out_channels


class Listed(NamedTuple):
    """Weights on lists are `lists[output, codes[output, input]]`.

    Attributes:
        codes: Integers, shape (outputs, inputs).
        lists: Shape (outputs, K), or (1, K) for one list for all.
    """

    codes: NDArray[Any]
    lists: Floats

    @property
    def numbers(self) -> Floats:
        """The listed values, shape (outputs, inputs)."""
        rows = np.broadcast_to(self.lists, (len(self.codes), self.lists.shape[1]))
        return np.take_along_axis(rows, self.codes.astype(np.intp), axis=1)


class Product(NamedTuple):
    """A product computes `scale * sum(weight * input) + bias` for each output channel.

    Attributes:
        window: Which inputs each output sees.
        weights: Shape (out_channels, kernel_height * kernel_width * channels of a group),
            in this order.
        scale: Shape (out_channels,).
        bias: Shape (out_channels,).
    """

    window: Window
    weights: Listed | Floats
    scale: Floats
    bias: Floats

    @property
    def size(self) -> int:
        """The number of outputs."""
        return self.window.size

    @property
    def is_element_wise(self) -> bool:
        """Whether each output is a multiple of the input at its own index, plus a constant."""
        w = self.window
        ones = (w.kernel_height, w.kernel_width, w.stride_y, w.stride_x, w.spread_y, w.spread_x)
        return w.groups == w.in_channels == w.out_channels and set(ones) == {1}


class Pool(NamedTuple):
    """Pooling takes the largest or the mean of the inputs in a window, without padding."""

    window: Window
    largest: bool

    @property
    def size(self) -> int:
        """The number of outputs."""
        return self.window.size


class Function(NamedTuple):
    """A function is applied to each number: one of `FUNCTIONS`, with its constants.

    Inside a `Recurrent` it may be `linear`, too.

    `relu` takes the slope below the threshold, the threshold and the largest output,
    `elu` the factor below 0; the others none.
    """

    name: str
    size: int
    numbers: tuple[float, ...] = ()


class Softmax(NamedTuple):
    """Softmax is `exp(x) / sum(exp(x))` over each row of `row` numbers, or its logarithm."""

    size: int
    row: int
    log: bool = False


class Slopes(NamedTuple):
    """Each number below 0 is multiplied by a slope: number `i` by `slopes[i % period]`."""

    size: int
    slopes: Floats


class Normalize(NamedTuple):
    """Groups of numbers are brought to one size each; factors and offsets are a step behind it.

    A sample is seen as the shape (positions, groups, width); the numbers of a group are at all
    positions. With the sums over a group's `n` numbers, `x` becomes

    | kind | result |
    |---|---|
    | `standard` | `(x - mean) / sqrt(mean((x - mean)^2) + epsilon)`, as in LayerNormalization |
    | `rms` | `x / sqrt(mean(x^2) + epsilon)` |
    | `unit` | `x / sqrt(max(sum(x^2), epsilon))` |
    """

    kind: str
    positions: int
    groups: int
    width: int
    epsilon: float

    @property
    def size(self) -> int:
        """The number of outputs."""
        return self.positions * self.groups * self.width


class Lookup(NamedTuple):
    """Each number, a whole one, is replaced by a row of a table.

    Attributes:
        count: How many numbers are looked up.
        weights: The table, shape (rows, width).
        scale: Factors of the rows, shape (rows,).
    """

    count: int  # type: ignore[assignment]  # It hides a method of tuples.
    weights: Listed | Floats
    scale: Floats

    @property
    def rows(self) -> int:
        """The number of rows of the table."""
        return len(self.scale)

    @property
    def width(self) -> int:
        """The length of a row."""
        weights = self.weights.codes if isinstance(self.weights, Listed) else self.weights
        return int(weights.shape[1])

    @property
    def size(self) -> int:
        """The number of outputs."""
        return self.count * self.width


class Recurrent(NamedTuple):
    """A recurrent layer reads a sequence step by step, and keeps a state that starts at 0.

    Attributes:
        cell: `"simple"`, `"lstm"`, `"gru"`, or `"gru_reset_after"`.
        time: The number of steps of the sequence.
        inputs: The product with a step's input, for all gates.
        states: Those with the state: one for all gates; the `"gru"` has one for its first two
            gates, and one, whose input is the reset state, for the third.
        activation: The function of new states.
        gate: The function of gates.
        sequences: Whether all states are the result, and not the last alone.
        backwards: Whether the sequence is read from its end, and its results stand in that order.
    """

    cell: str
    time: int
    inputs: Product
    states: tuple[Product, ...]
    activation: "Function | Nearest"
    gate: "Function | Nearest"
    sequences: bool
    backwards: bool

    @property
    def units(self) -> int:
        """The length of the state."""
        return self.states[0].window.in_channels

    @property
    def size(self) -> int:
        """The number of outputs."""
        return self.units * (self.time if self.sequences else 1)


class Nearest(NamedTuple):
    """Each number becomes the nearest level: `scale * nearest(number * (1 / scale))`, in float32.

    Attributes:
        size: The number of outputs.
        levels: The listed values in ascending order, float64, shape (K,).
        scale: Shape (period,): number `i` has the scale `scale[i % period]`.
    """

    size: int
    levels: Floats
    scale: Floats


class Repetition(NamedTuple):
    """Output `i` of a broadcast operation reads the number `i // repeat % period` of a source."""

    repeat: int
    period: int


class Elementwise(NamedTuple):
    """An operation of several sources, number by number, in their order.

    Attributes:
        operation: One of `OPERATIONS`; `subtract` and `divide` have two sources.
        size: The number of outputs.
        repetitions: How each source is read; `Repetition(1, size)` for one as large as the result.
    """

    operation: str
    size: int
    repetitions: tuple[Repetition, ...]


class Concatenate(NamedTuple):
    """Concatenation puts parts of its sources behind each other, `count` times.

    Attributes:
        count: The number of parts that each source has.
        lengths: The numbers in a part of each source.
    """

    count: int  # type: ignore[assignment]  # It hides a method of tuples.
    lengths: tuple[int, ...]

    @property
    def size(self) -> int:
        """The number of outputs."""
        return self.count * sum(self.lengths)


class Pad(NamedTuple):
    """Zeros are put around an image of rows, columns and channels, `shape` before it."""

    shape: tuple[int, int, int]
    top: int
    bottom: int
    left: int
    right: int

    @property
    def size(self) -> int:
        """The number of outputs."""
        height, width, channels = self.shape
        return (height + self.top + self.bottom) * (width + self.left + self.right) * channels


class Rearrange(NamedTuple):
    """Numbers are copied: cropped, transposed or repeated.

    Output (i, j, ...) of the shape `lengths` is the source's number
    `start + i * steps[0] + j * steps[1] + ...`.
    """

    lengths: Shape
    steps: Shape
    start: int = 0

    @property
    def size(self) -> int:
        """The number of outputs."""
        return math.prod(self.lengths)


class Resize(NamedTuple):
    """An image is resized bilinearly, with half-pixel centers and repeated edges.

    Attributes:
        before: Rows, columns and channels of the source.
        after: Those of the result.
    """

    before: tuple[int, int, int]
    after: tuple[int, int, int]

    @property
    def size(self) -> int:
        """The number of outputs."""
        return math.prod(self.after)


Step = (
    Product | Pool | Function | Slopes | Softmax | Normalize | Nearest | Lookup | Recurrent
    | Elementwise | Concatenate | Pad | Rearrange | Resize
)  # fmt: skip


class Node(NamedTuple):
    """A node is a step, the numbers of the values that it reads, and what it is called.

    Attributes:
        step: What it computes.
        sources: The numbers of the values that it reads.
        shape: The shape of a sample of the result.
        name: The name of the layer that it comes from.
    """

    step: Step
    sources: tuple[int, ...]
    shape: Shape
    name: str


class Output(NamedTuple):
    """An output of a model: the number of the value, and the shape of a sample."""

    value: int
    shape: Shape


class Graph(NamedTuple):
    """A graph holds a model's nodes in topological order, each after those that it reads.

    Attributes:
        nodes: The nodes; node `i` computes the value `len(inputs) + i`.
        inputs: The shape of a sample of each input.
        outputs: The outputs.
    """

    nodes: list[Node]
    inputs: list[Shape]
    outputs: list[Output]

    def value_of(self, node: int) -> int:
        """Return the number of the value that a node computes."""
        return len(self.inputs) + node

    def readers(self) -> list[int]:
        """Return how often each value is read, by nodes or as an output."""
        counts = [0] * (len(self.inputs) + len(self.nodes))
        for node in self.nodes:
            for source in node.sources:
                counts[source] += 1
        for output in self.outputs:
            counts[output.value] += 1
        return counts
