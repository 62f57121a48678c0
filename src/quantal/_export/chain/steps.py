"""Define the steps that a model is read into, for targets that write programs.

A step reads one array of floats and writes the next. Samples lie as Keras holds them, the
last axis running fastest, so flattening and reshaping are no steps. Everything linear is
a `Product`, a convolution over two axes of positions: a Dense sees one position, and a
multiplication element by element is a convolution in as many groups as channels.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Shape = tuple[int, ...]
Floats = NDArray[np.float64]

FUNCTIONS = (
    "relu", "sigmoid", "tanh", "elu", "softplus", "silu", "hard_sigmoid", "exponential",
)  # fmt: skip
"""These names of `keras.activations` are functions of single numbers."""


class Window(NamedTuple):
    """A window says which inputs each output sees, in a convolution or in pooling.

    Positions have two axes; where there is one, or none, the others have the length 1.
    `top` and `left` are the positions of padding before the first input.
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

    `relu` takes the slope below the threshold, the threshold and the largest output,
    `elu` the factor below 0; the others none.
    """

    name: str
    size: int
    numbers: tuple[float, ...] = ()


class Softmax(NamedTuple):
    """Softmax is `exp(x) / sum(exp(x))` over each row of `row` numbers."""

    size: int
    row: int


Step = Product | Pool | Function | Softmax


class Chain(NamedTuple):
    """A chain holds a model's steps in order, and the shapes of one input and output sample."""

    steps: list[Step]
    input_shape: Shape
    output_shape: Shape
