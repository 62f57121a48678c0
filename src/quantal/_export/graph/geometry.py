"""Compute the geometry of convolutions and pooling: which inputs each output sees."""

import math
from collections.abc import Sequence
from typing import NamedTuple

from quantal._export.graph.steps import Shape, Window


class _Axis(NamedTuple):
    """One axis of a convolution: the kernel's length and how it moves."""

    kernel: int
    stride: int
    dilation: int


class _Side(NamedTuple):
    """One axis of the outputs: their number, and the padding before the first input."""

    outputs: int
    padding: int


def window_of(
    shape: Sequence[int],
    outputs: int,
    kernel: Sequence[int] = (1,),
    strides: Sequence[int] = (1,),
    dilation: Sequence[int] = (1,),
    *,
    padding: str = "valid",
    groups: int = 1,
) -> Window:
    """Return the window of a convolution or pooling over positions of one or two axes.

    Args:
        shape: The shape of a sample, channels last.
        outputs: The number of output channels.
        kernel: The kernel's lengths along one or two axes.
        strides: The strides along these axes.
        dilation: The dilation along these axes.
        padding: `"valid"`, `"same"` or `"causal"`.
        groups: The number of groups of channels.

    Source: Keras's padding "same" is TensorFlow's: an odd one stands behind the inputs.
    """
    height, width, channels = (1,) * (3 - len(shape)) + tuple(shape)
    y, x = map(_Axis, *(_two(lengths) for lengths in (kernel, strides, dilation)))
    rows, columns = _side(height, y, padding), _side(width, x, padding)
    return Window(
        in_height=height,
        in_width=width,
        in_channels=channels,
        out_height=rows.outputs,
        out_width=columns.outputs,
        out_channels=outputs,
        kernel_height=y.kernel,
        kernel_width=x.kernel,
        stride_y=y.stride,
        stride_x=x.stride,
        dilation_y=y.dilation,
        dilation_x=x.dilation,
        top=rows.padding,
        left=columns.padding,
        groups=groups,
    )


def transposed_window_of(
    shape: Shape,
    after: Shape,
    kernel: Sequence[int],
    strides: Sequence[int],
    dilation: Sequence[int],
    *,
    padding: str,
    output_padding: Sequence[int] | None,
) -> Window:
    """Return the window of a transposed convolution: its inputs lie `strides` apart.

    Args:
        shape: The shape of a sample, channels last.
        after: That of the result.
        kernel: The kernel's lengths along one or two axes.
        strides: The strides along these axes.
        dilation: The dilation along these axes.
        padding: `"valid"` or `"same"`.
        output_padding: What Keras's layer has under this name.
    """
    extras: Sequence[int | None] = output_padding or [None] * len(kernel)
    sides = [
        _side_of_transposed(_Axis(*axis), padding, extra)
        for *axis, extra in zip(kernel, strides, dilation, extras, strict=True)
    ]
    height, width, channels = (1,) * (3 - len(shape)) + shape
    rows, columns, outputs = (1,) * (3 - len(after)) + after
    (kernel_height, kernel_width), (spread_y, spread_x) = _two(kernel), _two(strides)
    dilation_y, dilation_x = _two(dilation)
    return Window(
        in_height=height,
        in_width=width,
        in_channels=channels,
        out_height=rows,
        out_width=columns,
        out_channels=outputs,
        kernel_height=kernel_height,
        kernel_width=kernel_width,
        stride_y=1,
        stride_x=1,
        dilation_y=dilation_y,
        dilation_x=dilation_x,
        top=sides[0] if len(sides) > 1 else 0,
        left=sides[-1],
        groups=1,
        spread_y=spread_y,
        spread_x=spread_x,
    )


def _side_of_transposed(axis: _Axis, padding: str, extra: int | None) -> int:
    """Return the padding before the first input of a transposed convolution along one axis.

    Source: keras/src/backend/common/backend_utils.py of Keras 3.15.
    """
    reach = (axis.kernel - 1) * axis.dilation + 1
    if padding == "valid":
        return reach - 1
    missing = axis.stride if extra is None else reach % 2 + extra
    total = reach + missing - 2
    return min(total // 2 + total % 2, reach - 1)


def counts_padding(window: Window) -> bool:
    """Return whether Keras 3.15 on PyTorch counts padding into the means of a pooling.

    It repeats the edge where padding is uneven; a mean of two is the same either way.
    """
    w = window
    missing = (
        (w.out_height - 1) * w.stride_y + w.kernel_height - w.in_height,
        (w.out_width - 1) * w.stride_x + w.kernel_width - w.in_width,
    )
    uneven = any(size > 0 and size % 2 for size in missing)
    return uneven and max(w.kernel_height, w.kernel_width) > 2


def repeating_part(shape: Sequence[int], sample: Shape) -> tuple[Shape, int]:
    """Return the shape of the part of a sample over which numbers repeat, and its size.

    Args:
        shape: The numbers' shape, which broadcasts over the sample.
        sample: The sample's shape.

    >>> repeating_part((1, 5, 1), (4, 5, 6))
    ((1, 5, 6), 30)
    """
    first = next((axis for axis, size in enumerate(shape) if size > 1), len(shape))
    part = (1,) * first + sample[first:]
    return part, math.prod(part)


def _two(lengths: Sequence[int]) -> tuple[int, int]:
    """Return lengths along two axes; the first is 1 where it is missing."""
    return (1 if len(lengths) == 1 else lengths[0]), lengths[-1]


def _side(length: int, axis: _Axis, padding: str) -> _Side:
    reach = (axis.kernel - 1) * axis.dilation + 1
    if padding == "valid":
        return _Side((length - reach) // axis.stride + 1, 0)
    outputs = -(-length // axis.stride)
    if padding == "causal":
        return _Side(outputs, reach - 1)
    return _Side(outputs, max((outputs - 1) * axis.stride + reach - length, 0) // 2)
