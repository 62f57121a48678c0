"""Read layers that pad, crop, repeat, resize or transpose."""

import math

from keras import layers

from quantal._export.graph.builder import Call, GraphBuilder, Reader
from quantal._export.graph.steps import Pad, Rearrange, Resize, Shape


def pad(builder: GraphBuilder, call: Call) -> int:
    """Read a ZeroPadding1D or ZeroPadding2D."""
    (top, bottom), (left, right) = _two(call.layer.padding)
    return builder.add(Pad(image_shape(call.before), top, bottom, left, right), call)


def crop(builder: GraphBuilder, call: Call) -> int:
    """Read a Cropping1D or Cropping2D."""
    (top, _), (left, _) = _two(call.layer.cropping)
    _, width, channels = image_shape(call.before)
    start = (top * width + left) * channels
    return builder.add(
        Rearrange(image_shape(call.after), (width * channels, channels, 1), start), call
    )


def upsample(builder: GraphBuilder, call: Call) -> int:
    """Read an UpSampling1D or UpSampling2D."""
    layer = call.layer
    kind = getattr(layer, "interpolation", "nearest")
    before, after = image_shape(call.before), image_shape(call.after)
    if kind == "bilinear":
        return builder.add(Resize(before, after), call)
    if kind != "nearest":
        raise builder.refusal(layer, f"with the interpolation {kind!r}")
    height, width, channels = before
    lengths = (height, after[0] // height, width, after[1] // width, channels)
    return builder.add(Rearrange(lengths, (width * channels, 0, channels, 0, 1)), call)


def permute(builder: GraphBuilder, call: Call) -> int:
    """Read a Permute."""
    steps = row_major(call.before)
    order = [axis - 1 for axis in call.layer.dims]
    return builder.add(Rearrange(call.after, tuple(steps[axis] for axis in order)), call)


def repeat(builder: GraphBuilder, call: Call) -> int:
    """Read a RepeatVector."""
    return builder.add(Rearrange(call.after, (0, 1)), call)


def row_major(shape: Shape) -> Shape:
    """Return by how much the index of a number grows along each axis of a sample.

    >>> row_major((2, 3, 4))
    (12, 4, 1)
    """
    return tuple(math.prod(shape[axis + 1 :]) for axis in range(len(shape)))


def image_shape(shape: Shape) -> tuple[int, int, int]:
    """Return the shape of a sample with two axes of positions, of which a sequence has one."""
    height, width, channels = (1,) * (3 - len(shape)) + shape
    return height, width, channels


def _two(margins: tuple[int, int] | tuple[tuple[int, int], tuple[int, int]]) -> tuple[
    tuple[int, int], tuple[int, int]
]:  # fmt: skip
    """Return margins along two axes; the first has none where they are given for one."""
    first, second = margins
    if isinstance(first, tuple) and isinstance(second, tuple):
        return first, second
    return (0, 0), margins  # type: ignore[return-value]


READERS: dict[type, Reader] = {
    layers.ZeroPadding1D: pad,
    layers.ZeroPadding2D: pad,
    layers.Cropping1D: crop,
    layers.Cropping2D: crop,
    layers.UpSampling1D: upsample,
    layers.UpSampling2D: upsample,
    layers.Permute: permute,
    layers.RepeatVector: repeat,
}
"""The readers of layers that move numbers about."""
