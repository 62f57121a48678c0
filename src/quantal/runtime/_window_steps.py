"""Convolutions and poolings see windows of images, and put a number around these first."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from quantal._export.graph.steps import Window
from quantal.runtime._layout import BLOCK
from quantal.runtime._steps import Linear, Step

Floats = NDArray[np.float32]

_PATCHES = 2**18
"""Floats of the patches of a convolution that are multiplied at a time: they fit a cache."""


class Convolution(Step):
    """A convolution multiplies patches of positions by a matrix.

    Args:
        window: Which inputs each output sees.
        groups: A linear step for each group of channels.
        shape: The shape of its result for a sample.
    """

    def __init__(self, window: Window, groups: Sequence[Linear], shape: Sequence[int]) -> None:
        self._window, self.groups, self._shape = window, list(groups), tuple(shape)

    @property
    def nbytes(self) -> int:
        """The bytes of memory that its numbers take."""
        return sum(group.nbytes for group in self.groups)

    def then(self, factor: NDArray[np.floating], offset: NDArray[np.floating]) -> None:
        """Take a multiplication and an addition for each output into this step."""
        parts = zip(
            self.groups,
            np.split(factor, len(self.groups)),
            np.split(offset, len(self.groups)),
            strict=True,
        )
        for group, factors, offsets in parts:
            group.then(factors, offsets)

    def __call__(self, x: Floats) -> Floats:
        """Return the results of samples."""
        w = self._window
        images = x.reshape(len(x), w.in_height, w.in_width, w.in_channels)
        results = np.empty((len(x), w.out_height * w.out_width, w.out_channels), np.float32)
        # Blocks of eight images need no transposing of their patches.
        whole = len(x) // BLOCK * BLOCK if all(map(_padded_inputs, self.groups)) else 0
        for first, last, unit, compute in [
            (0, whole, BLOCK, self._compute_blocks),
            (whole, len(x), 1, self._compute_rows),
        ]:
            step = max(1, _PATCHES // max(1, self._numbers_of_line * w.out_height * unit)) * unit
            lines = max(1, _PATCHES // max(1, self._numbers_of_line * step))
            for start in range(first, last, step):
                stop = min(start + step, last)
                compute(images[start:stop], results[start:stop], lines)
        return results.reshape(len(x), *self._shape)

    @property
    def _numbers_of_line(self) -> int:
        """The numbers of the patches of a sample's line of outputs."""
        w = self._window
        return w.out_width * w.kernel_height * w.kernel_width * w.in_channels // w.groups

    def _compute_rows(self, images: Floats, results: Floats, lines: int) -> None:
        """Set the results of images from their patches, a row for each position.

        Args:
            images: The images.
            results: Shape (images, positions, outputs of all groups).
            lines: The lines of outputs whose patches are multiplied at a time.
        """
        w = self._window
        block, channels = padded(images, w, 0.0), w.in_channels // w.groups
        for index, group in enumerate(self.groups):
            part = block[..., index * channels : (index + 1) * channels]
            for first in range(0, w.out_height, lines):
                positions = slice(first * w.out_width, (first + lines) * w.out_width)
                target = results[:, positions, self._outputs_of(index)]
                length = w.kernel_height * w.kernel_width * channels
                rows = patches(part, w, length, slice(first, first + lines))
                target[...] = group.outputs_of(rows).reshape(target.shape)

    def _compute_blocks(self, images: Floats, results: Floats, lines: int) -> None:
        """Set the results of eight images at a time, which lie together for each number.

        Args:
            images: The images.
            results: Shape (images, positions, outputs of all groups).
            lines: The lines of outputs whose patches are multiplied at a time.
        """
        w = self._window
        shape = (len(images) // BLOCK, BLOCK, *images.shape[1:])
        together = np.moveaxis(images.reshape(shape), 1, -1)
        shape = (len(images) // BLOCK, w.in_height, w.in_width, w.in_channels * BLOCK)
        block = padded(np.ascontiguousarray(together).reshape(shape), w, 0.0)
        channels = w.in_channels // w.groups * BLOCK
        for index, group in enumerate(self.groups):
            part = block[..., index * channels : (index + 1) * channels]
            inputs = _padded_inputs(group)
            for first in range(0, w.out_height, lines):
                positions = slice(first * w.out_width, (first + lines) * w.out_width)
                target = results[:, positions, self._outputs_of(index)]
                rows = patches(part, w, inputs * BLOCK, slice(first, first + lines))
                blocks = rows.reshape(-1, inputs, BLOCK)
                products = group.finished(group.matrix.product_of_blocks(blocks))
                products = products.reshape(len(block), -1, BLOCK, target.shape[-1])
                target[...] = products.swapaxes(1, 2).reshape(target.shape)

    def _outputs_of(self, group: int) -> slice:
        outputs = self._window.out_channels // self._window.groups
        return slice(group * outputs, (group + 1) * outputs)


def _padded_inputs(line: Linear) -> int:
    """Return the inputs of a block of the step's matrix; 0 where it takes no blocks."""
    return line.matrix.padded_inputs


class Depthwise(Step):
    """A depthwise convolution multiplies each channel's positions by kernels of their own.

    Args:
        window: Which inputs each output sees.
        kernel: Float32 of shape (height, width, channels, outputs of a channel).
        bias: Float32 of shape (outputs,).
        shape: The shape of its result for a sample.
    """

    def __init__(self, window: Window, kernel: Floats, bias: Floats, shape: Sequence[int]) -> None:
        self._window, self._kernel, self._bias = window, kernel, bias
        self._shape = tuple(shape)

    @property
    def nbytes(self) -> int:
        """The bytes of memory that its numbers take."""
        return self._kernel.nbytes + self._bias.nbytes

    def then(self, factor: NDArray[np.floating], offset: NDArray[np.floating]) -> None:
        """Take a multiplication and an addition for each output into this step."""
        factors = factor.reshape(self._kernel.shape[2:])
        self._kernel = np.asarray(self._kernel * factors, np.float32)
        self._bias = np.asarray(self._bias * factor + offset, np.float32)

    def __call__(self, x: Floats) -> Floats:
        """Return the results of samples."""
        w = self._window
        images = padded(x.reshape(len(x), w.in_height, w.in_width, w.in_channels), w, 0.0)
        per_channel = self._kernel.shape[-1]
        shape = (len(x), w.out_height, w.out_width, w.in_channels, per_channel)
        results = np.zeros(shape, np.float32)
        for y in range(w.kernel_height):
            for column in range(w.kernel_width):
                part = seen(images, w, y, column)
                results += part[..., None] * self._kernel[y, column]
        results = results.reshape(len(x), w.out_height, w.out_width, -1) + self._bias
        return results.reshape(len(x), *self._shape)


class Pooling(Step):
    """Pooling takes the largest or the mean of the inputs in a window, without padding."""

    def __init__(self, window: Window, largest: bool, shape: Sequence[int]) -> None:
        self._window, self._largest, self._shape = window, largest, tuple(shape)

    def __call__(self, x: Floats) -> Floats:
        """Return the results of samples."""
        w = self._window
        images = x.reshape(len(x), w.in_height, w.in_width, w.in_channels)
        results = self._reduced(padded(images, w, -np.inf if self._largest else 0.0))
        if not self._largest:
            ones = np.ones((1, w.in_height, w.in_width, 1), np.float32)
            results = results / self._reduced(padded(ones, w, 0.0))
        return results.reshape(len(x), *self._shape)

    def _reduced(self, images: Floats) -> Floats:
        """Return the largest, or the sum, of what each window sees."""
        w, results = self._window, None
        for y in range(w.kernel_height):
            for column in range(w.kernel_width):
                part = seen(images, w, y, column)
                if results is None:
                    results = part.copy()
                elif self._largest:
                    np.maximum(results, part, out=results)
                else:
                    results += part
        if results is None:
            raise ValueError(
                "A window of pooling sees nothing. Expected one of at least one input."
            )
        return results


def padded(images: Floats, window: Window, number: float) -> Floats:
    """Return images with a number around them, as far as windows reach."""
    w = window
    bottom = _reach(w.out_height, w.stride_y, w.kernel_height, w.dilation_y) - w.top - w.in_height
    right = _reach(w.out_width, w.stride_x, w.kernel_width, w.dilation_x) - w.left - w.in_width
    pads = ((0, 0), (w.top, max(0, bottom)), (w.left, max(0, right)), (0, 0))
    return np.pad(images, pads, constant_values=number) if np.any(pads) else images


def seen(images: Floats, window: Window, y: int, x: int) -> Floats:
    """Return the inputs that all outputs see at one position of the kernel."""
    w = window
    top, left = y * w.dilation_y, x * w.dilation_x
    return images[
        :,
        top : top + (w.out_height - 1) * w.stride_y + 1 : w.stride_y,
        left : left + (w.out_width - 1) * w.stride_x + 1 : w.stride_x,
    ]


def patches(images: Floats, window: Window, length: int, lines: slice) -> Floats:
    """Return what the outputs of some lines see, shape (n * outputs, length), zeros at the end."""
    w, channels = window, images.shape[-1]
    taps = w.kernel_height * w.kernel_width
    count = len(range(w.out_height)[lines])
    results = np.empty((len(images), count, w.out_width, length), np.float32)
    results[..., taps * channels :] = 0
    for tap in range(taps):
        target = results[..., tap * channels : (tap + 1) * channels]
        target[...] = seen(images, w, *divmod(tap, w.kernel_width))[:, lines]
    return results.reshape(-1, length)


def _reach(outputs: int, stride: int, kernel: int, dilation: int) -> int:
    """Return how many positions all windows of an axis reach over together."""
    return (outputs - 1) * stride + (kernel - 1) * dilation + 1
