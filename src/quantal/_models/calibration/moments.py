"""The moments of a kernel's inputs say what its outputs lose on a list."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray

from quantal._core.by_identity import ByIdentity
from quantal._core.numbers.calibration import Floats
from quantal._core.tensors.distributed import whole_array
from quantal._core.types import Tensor
from quantal._models.calibration.flow import Flow
from quantal._models.calibration.products import Call, product_of
from quantal._models.calibration.samples import Samples
from quantal._models.calibration.watched_pass import SeenAll, kernels_in, watched_pass

_MOST_ROWS = 2**16
"""So many inputs of a kernel are seen, or 16 for each of its own inputs if that is more."""
_ROWS_FOR_EACH_INPUT = 16
_ROUNDINGS = 8
"""Roundings of a mean of products are below so many units of float64 for each input."""
_SMALLEST_SHARE = 1e-9
"""Outputs that vary by less than this share of their mean square are constant but for roundings."""


class Moments(NamedTuple):
    """Moments of a kernel's inputs are taken in the listed model and in the free one.

    Attributes:
        mean: The mean of the inputs in the listed model, (groups, inputs).
        free_mean: The mean of the inputs in the free model.
        second: The second moment in the listed model, (groups, inputs, inputs).
        cross: The mean product of an input in the listed model and one in the free model, alike.
        power: The mean square of the outputs of the free model, (groups, outputs).
    """

    mean: Floats
    free_mean: Floats
    second: Floats
    cross: Floats
    power: Floats

    def centred(self, weights: Floats) -> "Moments":
        """Return the moments of what differs from the means.

        Args:
            weights: The kernel of the free model, (groups, inputs, outputs).
        """
        cross = _outer(self.mean, self.free_mean)
        power = self.power - np.matmul(self.free_mean[:, None], weights)[:, 0] ** 2
        zeros = np.zeros_like(self.mean)
        # What is left of inputs that do not vary are roundings, which may be below 0, and squares
        # that float32 has none of.
        share = _ROUNDINGS * np.finfo(float).eps * self.mean.shape[1]
        floor = share * np.diagonal(self.second, axis1=1, axis2=2).max(axis=1)
        floor = np.maximum(floor, np.finfo(np.float32).tiny)[:, None, None]
        second = self.second - _outer(self.mean, self.mean)
        second += floor * np.eye(self.mean.shape[1])
        power = np.where(power > _SMALLEST_SHARE * self.power, power, 0.0)
        return Moments(zeros, zeros, second, self.cross - cross, power)

    @property
    def are_finite(self) -> bool:
        """Return whether all of them are finite."""
        return all(bool(np.isfinite(each).all()) for each in self)

    def error(self, weights: Floats, listed: Floats) -> float:
        """Return the distance of the listed kernel's outputs, relative to the free one's size.

        Args:
            weights: The kernel of the free model, (groups, inputs, outputs).
            listed: The kernel of the listed model, alike.
        """
        size = float(self.power.sum())
        loss = size + np.vdot(listed, np.matmul(self.second, listed))
        loss -= 2 * np.vdot(listed, np.matmul(self.cross, weights))
        return math.sqrt(max(float(loss), 0.0) / size) if size > 0 else 0.0


class Kernel(NamedTuple):
    """A kernel has a variable in the listed model and one in the free model."""

    listed: keras.Variable
    free: keras.Variable


class Models(NamedTuple):
    """The listed model is calibrated so that it computes what the free one does."""

    listed: keras.Model
    free: keras.Model


def moments_of(
    models: Models, samples: Samples, kernels: Sequence[Kernel], flow: Flow
) -> list[Moments]:
    """Return the moments of the inputs of some kernels, as the models compute them now.

    Args:
        models: The models.
        samples: The samples.
        kernels: The kernels, of one step.
        flow: The flow of the listed model.
    """
    layouts = [flow.layouts[kernel.listed] for kernel in kernels]
    uses = [flow.uses[kernel.listed] for kernel in kernels]
    sums = [
        _Sums(layout.arranged(whole_array(kernel.free).astype(np.float32)))
        for layout, kernel in zip(layouts, kernels, strict=True)
    ]
    limits = [each.limit(samples.batches * count) for each, count in zip(sums, uses, strict=True)]
    for inputs in samples:
        free = _rows_of(models.free, inputs, [k.free for k in kernels], flow, uses, limits)
        listed = _rows_of(models.listed, inputs, [k.listed for k in kernels], flow, uses, limits)
        for each, free_rows, listed_rows in zip(sums, free, listed, strict=True):
            for pair in zip(listed_rows, free_rows, strict=True):
                each.add(*pair)
    return [each.moments() for each in sums]


def _rows_of(
    model: keras.Model,
    inputs: Any,
    kernels: Sequence[keras.Variable],
    flow: Flow,
    uses: Sequence[int],
    limits: Sequence[int],
) -> list[list[Tensor]]:
    """Return what meets some kernels in one pass: tensors (groups, rows, inputs) of each.

    Args:
        model: The model.
        inputs: Its inputs.
        kernels: The kernels.
        flow: The flow of the listed model.
        uses: How often each is used.
        limits: The most rows of each use; of more, some that are spread evenly are taken.
    """
    rows: list[list[Tensor]] = [[] for _ in kernels]
    left = list(uses)
    indices = ByIdentity([(kernel, index) for index, kernel in enumerate(kernels)])

    def watch(call: Call) -> Tensor:
        for kernel, position in kernels_in(call, indices):
            index = indices[kernel]
            product = product_of(call, position, tuple(kernel.shape))
            parts = [] if product is None else list(product.rows())
            step = -(-sum(int(part.shape[1]) for part in parts) // limits[index])
            rows[index] += [part[:, :: max(step, 1)] for part in parts]
            left[index] -= 1
        # Not from within a loop, which TensorFlow reports as unfinished.
        if max(uses) == 1 and max(left) <= 0:
            raise SeenAll
        return call.function(*call.arguments, **call.options)

    watched_pass(model, inputs, watch, flow.has_loops)
    return rows


class _Sums:
    """Sums of the inputs of a kernel and of their products.

    Of each input a number near its mean is taken first, and accounted for in the end: products
    in float32 would lose what inputs with a large mean vary by.
    """

    def __init__(self, weights: NDArray[np.float32]) -> None:
        groups, inputs, outputs = weights.shape
        self._weights, self._power = ops.convert_to_tensor(weights), np.zeros((groups, outputs))
        self._means = np.zeros((2, groups, inputs))
        self._second, self._cross = np.zeros((2, groups, inputs, inputs))
        self._shifts = [ops.zeros((groups, 1, inputs))] * 2
        self._count = 0

    def limit(self, parts: int) -> int:
        """Return the most rows of each of so many parts."""
        return -(-max(_MOST_ROWS, _ROWS_FOR_EACH_INPUT * self._second.shape[1]) // parts)

    def add(self, listed: Tensor, free: Tensor) -> None:
        """Add rows (groups, rows, inputs) of the listed model and the same of the free one."""
        if not self._count:
            self._shifts = [ops.mean(rows, axis=1, keepdims=True) for rows in (listed, free)]
        listed, free = listed - self._shifts[0], free - self._shifts[1]
        transposed = ops.transpose(listed, (0, 2, 1))
        self._second += whole_array(ops.matmul(transposed, listed))
        self._cross += whole_array(ops.matmul(transposed, free))
        for sums, rows in zip(self._means, (listed, free), strict=True):
            sums += whole_array(ops.sum(rows, axis=1))
        outputs = ops.matmul(free, self._weights)
        self._power += whole_array(ops.sum(ops.square(outputs), axis=1))
        self._count += int(listed.shape[1])

    def moments(self) -> Moments:
        """Return the moments."""
        count = max(self._count, 1)
        near, free_near = (whole_array(shift)[:, 0].astype(float) for shift in self._shifts)
        mean, free_mean = self._means / count
        second = self._second / count + _outer(mean, near) + _outer(near, mean + near)
        cross = self._cross / count + _outer(mean, free_near) + _outer(near, free_mean + free_near)
        weights = whole_array(self._weights).astype(float)
        means, near_means = (
            np.matmul(each[:, None], weights)[:, 0] for each in (free_mean, free_near)
        )
        power = self._power / count + near_means * (2 * means + near_means)
        return Moments(mean + near, free_mean + free_near, second, cross, power)


def _outer(one: Floats, other: Floats) -> Floats:
    """Return the products of each number of one row with each of another, group by group."""
    return one[:, :, None] * other[:, None]
