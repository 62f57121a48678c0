"""How a kernel meets the data: a product of inputs and a kernel, seen as matrices.

Whatever the product is (a matrix product, an einsum, a convolution of any kind), each of its
outputs is a sum over some numbers of the inputs times some numbers of the kernel. `Product` says
which: it gives the inputs as rows, and arranges the kernel alike.
"""

import math
import string
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray

from quantal._core.types import Tensor

_MOST_NUMBERS = 2**24
"""The most float32 numbers that the rows of one part of a batch may have: 64 MiB."""

CONTRACTIONS = ("matmul", "dot", "tensordot", "einsum")
"""The products that are sums over axes."""
CONVOLUTIONS = ("conv", "depthwise_conv", "conv_transpose", "separable_conv")
"""The products that slide a kernel over the inputs."""


class Call(NamedTuple):
    """A call of one of the backend's products.

    Attributes:
        name: The product's name, one of `CONTRACTIONS` and `CONVOLUTIONS`.
        function: The backend's function.
        arguments: Its arguments.
        options: Its arguments by name.
    """

    name: str
    function: Callable[..., Tensor]
    arguments: tuple[Any, ...]
    options: dict[str, Any]


class Layout(NamedTuple):
    """A layout says which axes of a kernel are groups, inputs and outputs.

    Attributes:
        shape: The shape to which the kernel is brought first: an axis may have to be split.
        groups: The axes that index groups: outputs of one have nothing to do with another.
        inputs: The axes that are summed over.
        outputs: The others.
    """

    shape: tuple[int, ...]
    groups: tuple[int, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]

    @property
    def sizes(self) -> tuple[int, int, int]:
        """The numbers of groups, inputs and outputs."""
        axes = (self.groups, self.inputs, self.outputs)
        groups, inputs, outputs = (math.prod(self.shape[a] for a in each) for each in axes)
        return groups, inputs, outputs

    def arranged(self, kernel: NDArray[Any]) -> NDArray[Any]:
        """Return a kernel as (groups, inputs, outputs)."""
        axes = (*self.groups, *self.inputs, *self.outputs)
        return kernel.reshape(self.shape).transpose(axes).reshape(self.sizes)

    def restored(self, array: NDArray[Any], shape: tuple[int, ...]) -> NDArray[Any]:
        """Return an array (groups, inputs, outputs) in the shape of the kernel."""
        axes = (*self.groups, *self.inputs, *self.outputs)
        return (
            array.reshape([self.shape[axis] for axis in axes])
            .transpose(np.argsort(axes))
            .reshape(shape)
        )


class Product(NamedTuple):
    """A product of data and a kernel.

    Attributes:
        layout: How the kernel is arranged.
        rows: Returns the inputs part by part: tensors (groups, rows, inputs).
    """

    layout: Layout
    rows: Callable[[], Iterator[Tensor]]


def product_of(call: Call, position: int, shape: tuple[int, ...]) -> Product | None:
    """Return the product in which a call uses a kernel; None where it is of another kind.

    Args:
        call: The call.
        position: The kernel's position among the call's arguments.
        shape: The kernel's shape.
    """
    if call.name in CONTRACTIONS:
        return _contraction(call, position, shape)
    if call.name == "separable_conv":
        return _separable(call, position, shape)
    return _convolution(call, shape) if position == 1 else None


def _contraction(call: Call, position: int, shape: tuple[int, ...]) -> Product | None:
    """Return a sum over axes as a product."""
    operands = [a for a in call.arguments if hasattr(a, "shape")]
    if len(operands) != 2:
        return None
    index = next(i for i, a in enumerate(operands) if a is call.arguments[position])
    data = operands[1 - index]
    labels = _labels(call, [len(operand.shape) for operand in operands])
    if labels is None:
        return None
    kernel, others, results = labels.operands[index], labels.operands[1 - index], labels.result
    if len({*kernel}) < len(kernel) or len({*others}) < len(others):
        return None
    groups = [a for a, label in enumerate(kernel) if label in others and label in results]
    inputs = [a for a, label in enumerate(kernel) if label in others and label not in results]
    outputs = [a for a, label in enumerate(kernel) if label not in others]
    if not inputs or any(kernel[axis] not in results for axis in outputs):
        return None
    sizes = dict(zip(others, data.shape, strict=True))
    if any(sizes[kernel[axis]] != shape[axis] for axis in [*groups, *inputs]):
        return None
    layout = Layout(shape, tuple(groups), tuple(inputs), tuple(outputs))
    rest = [label for label in others if label in results and label not in kernel]
    order = [kernel[a] for a in groups] + rest + [kernel[a] for a in inputs]

    def rows() -> Iterator[Tensor]:
        tensor = ops.cast(data, "float32")
        arranged = ops.einsum(f"{''.join(others)}->{''.join(order)}", tensor)
        yield ops.reshape(arranged, (layout.sizes[0], -1, layout.sizes[1]))

    return Product(layout, rows)


class _Labels(NamedTuple):
    """Each axis of the operands and of the result of a contraction has a label."""

    operands: list[str]
    result: str


def _labels(call: Call, ranks: list[int]) -> _Labels | None:
    """Return the labels of a contraction of two operands; None for one of another kind."""
    if call.name == "einsum":
        return _labels_of_einsum(call.arguments[0], ranks)
    letters = iter(string.ascii_letters)
    first, second = ([next(letters) for _ in range(rank)] for rank in ranks)
    if min(ranks) < 1 or max(ranks) > 12:
        return None
    if call.name == "tensordot":
        axes = call.options.get("axes", call.arguments[2] if len(call.arguments) > 2 else 2)
        if isinstance(axes, int):
            axes = (range(ranks[0] - axes, ranks[0]), range(axes))
        pairs = [([a] if isinstance(a, int) else list(a)) for a in axes]
    else:
        pairs = [[-1], [-2 if ranks[1] > 1 else -1]]
    for axis, other in zip(*pairs, strict=True):
        second[other] = first[axis]
    summed = {first[axis] for axis in pairs[0]}
    if call.name == "matmul" and ranks[1] > 2:
        if ranks[0] != ranks[1]:
            return None
        second[:-2] = first[:-2]
    result = [label for label in first if label not in summed]
    result += [label for label in second if label not in first]
    return _Labels(["".join(first), "".join(second)], "".join(result))


def _labels_of_einsum(subscripts: Any, ranks: list[int]) -> _Labels | None:
    if not isinstance(subscripts, str) or "->" not in subscripts:
        return None
    left, result = subscripts.replace(" ", "").split("->")
    operands = left.split(",")
    if len(operands) != 2:
        return None
    free = [letter for letter in string.ascii_letters if letter not in left]
    widths = [
        rank - len(operand.replace("...", "")) if "..." in operand else 0
        for operand, rank in zip(operands, ranks, strict=True)
    ]
    # An ellipsis stands for the last of its axes, as in NumPy.
    ellipsis = free[: max(widths)]
    written = [
        operand.replace("...", "".join(ellipsis[len(ellipsis) - width :]))
        for operand, width in zip(operands, widths, strict=True)
    ]
    return _Labels(written, result.replace("...", "".join(ellipsis)))


def _convolution(call: Call, shape: tuple[int, ...]) -> Product | None:
    """Return a convolution as a product.

    With a unit kernel for each input, it gives the numbers that meet the kernel themselves:
    strides, padding, dilation and the order of axes are the backend's own.
    """
    data, spatial = call.arguments[0], shape[:-2]
    is_first = _data_format(call) == "channels_first"
    channels = int(data.shape[1 if is_first else -1])
    taps, axes = math.prod(spatial), tuple(range(len(spatial)))
    rank = len(shape)
    if call.name == "conv":
        groups, inputs = channels // shape[-2], taps * shape[-2]
        split = (*spatial, shape[-2], groups, shape[-1] // groups)
        layout = Layout(split, (rank - 1,), (*axes, rank - 2), (rank,))
        unit = np.eye(inputs, dtype=np.float32).reshape(*spatial, shape[-2], 1, inputs)
        unit = np.repeat(unit, groups, axis=-2).reshape(*spatial, shape[-2], groups * inputs)
    elif call.name == "depthwise_conv":
        groups, inputs = shape[-2], taps
        layout = Layout(shape, (rank - 2,), axes, (rank - 1,))
        unit = np.eye(inputs, dtype=np.float32).reshape(*spatial, 1, inputs)
        unit = np.repeat(unit, groups, axis=-2)
    else:
        groups, inputs = 1, taps * shape[-1]
        layout = Layout(shape, (), (*axes, rank - 1), (rank - 2,))
        unit = np.eye(inputs, dtype=np.float32).reshape(*spatial, shape[-1], inputs)
        unit = np.moveaxis(unit, -1, -2)
    return Product(layout, lambda: _unit_rows(call, data, unit, (groups, inputs), is_first))


def _data_format(call: Call) -> str:
    """Return the order of axes, which has another position in each of the backend's functions."""
    formats = [a for a in (*call.arguments[2:], *call.options.values()) if isinstance(a, str)]
    return next((a for a in formats if a.startswith("channels")), keras.config.image_data_format())


def _unit_rows(
    call: Call, data: Tensor, unit: NDArray[Any], sizes: tuple[int, int], is_first: bool
) -> Iterator[Tensor]:
    """Yield what meets the kernel of a convolution, for some samples at a time."""
    groups, inputs = sizes
    kernel, data = ops.convert_to_tensor(unit), ops.cast(data, "float32")
    numbers = math.prod(data.shape[1:]) // int(data.shape[1 if is_first else -1])
    step = max(_MOST_NUMBERS // max(numbers * groups * inputs, 1), 1)
    for begin in range(0, int(data.shape[0]), step):
        part = data[begin : begin + step]
        outputs = call.function(part, kernel, *call.arguments[2:], **call.options)
        outputs = ops.moveaxis(outputs, 1, -1) if is_first else outputs
        yield ops.transpose(ops.reshape(outputs, (-1, groups, inputs)), (1, 0, 2))


def _separable(call: Call, position: int, shape: tuple[int, ...]) -> Product | None:
    """Return one of the two products of a separable convolution."""
    settings = call.arguments[3:]
    if position == 1:
        first = Call(
            "depthwise_conv", ops.depthwise_conv, call.arguments[:2] + settings, call.options
        )
        return _convolution(first, shape)
    between = ops.depthwise_conv(*call.arguments[:2], *settings, **call.options)
    options = {"data_format": _data_format(call)}
    return _convolution(Call("conv", ops.conv, (between, call.arguments[2]), options), shape)
