"""The steps that a network consists of: what a layer computes, in NumPy."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from quantal._core.numbers.values import Values
from quantal.runtime._matrices import Matrix, PackedRows

Floats = NDArray[np.float32]


class Step(ABC):
    """A step computes one array of samples from another one."""

    @property
    def nbytes(self) -> int:
        """The bytes of memory that its numbers take."""
        return 0

    @abstractmethod
    def __call__(self, x: Floats) -> Floats:
        """Return the results of samples, which it leaves as they are."""


class Linear(Step):
    """A linear step multiplies the last axis by a matrix: `scale * (x @ matrix) + bias`."""

    def __init__(self, matrix: Matrix, scale: Floats, bias: Floats) -> None:
        self.matrix, self.scale, self.bias = matrix, scale, bias

    @property
    def nbytes(self) -> int:
        """The bytes of memory that its numbers take."""
        return self.matrix.nbytes + self.scale.nbytes + self.bias.nbytes

    def then(self, factor: NDArray[np.floating], offset: NDArray[np.floating]) -> None:
        """Take a multiplication and an addition for each output into this step."""
        self.bias = np.asarray(self.bias * factor + offset, np.float32)
        self.scale = np.asarray(self.scale * factor, np.float32)

    def __call__(self, x: Floats) -> Floats:
        """Return the products of samples."""
        rows = x.reshape(-1, x.shape[-1])
        return self.outputs_of(rows).reshape(*x.shape[:-1], self.matrix.outputs)

    def outputs_of(self, rows: Floats) -> Floats:
        """Return the outputs of rows of inputs."""
        return self.finished(self.matrix.product(rows))

    def finished(self, results: Floats) -> Floats:
        """Return products times the scale, plus the bias, in their place in memory."""
        np.multiply(results, self.scale, out=results)
        return np.add(results, self.bias, out=results)


class Affine(Step):
    """An affine step multiplies by numbers that broadcast over a sample, and adds others."""

    def __init__(self, factor: Floats, offset: Floats) -> None:
        self._factor, self._offset = factor, offset

    @property
    def nbytes(self) -> int:
        """The bytes of memory that its numbers take."""
        return self._factor.nbytes + self._offset.nbytes

    def __call__(self, x: Floats) -> Floats:
        """Return the results of samples."""
        return x * self._factor + self._offset


class Multiplier(Step):
    """A multiplier multiplies by listed values, which stay packed.

    Args:
        row: The values as one packed row.
        scale: A factor on the values, float32 of a shape that broadcasts.
        shape: The shape in which the values broadcast over a sample.
    """

    def __init__(self, row: PackedRows, scale: Floats, shape: Sequence[int]) -> None:
        self._row, self._scale, self._shape = row, scale, tuple(shape)

    @property
    def nbytes(self) -> int:
        """The bytes of memory that its numbers take."""
        return self._row.nbytes + self._scale.nbytes

    def __call__(self, x: Floats) -> Floats:
        """Return the results of samples."""
        return x * (self._row.decoded(slice(0, 1)) * self._scale).reshape(self._shape)


class Embedding(Step):
    """An embedding returns a row for each integer; the rows stay packed.

    Args:
        name: The layer's name, for messages.
        rows: The rows.
        scale: A factor on the rows, float32 of a shape that broadcasts over all of them.
    """

    def __init__(self, name: str, rows: PackedRows, scale: Floats) -> None:
        self._name, self._rows, self._scale = name, rows, scale

    @property
    def nbytes(self) -> int:
        """The bytes of memory that its numbers take."""
        return self._rows.nbytes + self._scale.nbytes

    def __call__(self, x: NDArray[np.generic]) -> Floats:
        """Return the rows of integers.

        Raises:
            ValueError: A number is no row's.
        """
        indices = np.asarray(x, np.intp).reshape(-1)
        if indices.size and not (indices.min() >= 0 and indices.max() < self._rows.rows):
            raise ValueError(
                f"The inputs of {self._name!r} reach from {indices.min()} to {indices.max()}. "
                f"Expected 0 to {self._rows.rows - 1}, the rows that it has."
            )
        floats = self._rows.decoded(indices)
        scale = self._scale[indices] if self._scale.shape[0] > 1 else self._scale
        return (floats * scale).reshape(*x.shape, self._rows.columns)


class Function(Step):
    """A function is applied to each number."""

    def __init__(self, function: Callable[[Floats], Floats]) -> None:
        self._function = function

    def __call__(self, x: Floats) -> Floats:
        """Return the results of samples."""
        return self._function(x)


class Nearest(Step):
    """Each number becomes the nearest listed value, times a scale; NaN stays NaN.

    Args:
        values: The list, or a list for each channel.
        scale: Positive float32, of shape () or one that broadcasts over samples.
    """

    def __init__(self, values: Values, scale: Floats) -> None:
        self._values, self._scale = values, scale
        self._is_scaled = bool(np.any(scale != 1))

    @property
    def nbytes(self) -> int:
        """The bytes of memory that its numbers take."""
        return self._values.numbers.nbytes + self._values.midpoints.nbytes + self._scale.nbytes

    def __call__(self, x: Floats) -> Floats:
        """Return the results of samples."""
        # A product and no quotient, as in Keras: compilers round quotients in ways of their own.
        numbers = x * (np.float32(1) / self._scale) if self._is_scaled else x
        # As in Keras, where the estimator's surrogate carries a NaN on.
        results = np.where(np.isnan(numbers), numbers, self._nearest(numbers))
        return results * self._scale if self._is_scaled else results

    def _nearest(self, numbers: Floats) -> Floats:
        values = self._values
        if values.channels is not None:
            return values.nearest(numbers)
        if len(values) == 2:
            low, high = values.ascending
            return np.where(numbers >= values.midpoints[0], high, low)
        return values.ascending[np.searchsorted(values.midpoints, numbers, side="right")]


class Reshape(Step):
    """A reshape gives each sample another shape."""

    def __init__(self, shape: Sequence[int]) -> None:
        self._shape = tuple(shape)

    def __call__(self, x: Floats) -> Floats:
        """Return the samples in the new shape."""
        return x.reshape(len(x), *self._shape)
