"""A network runs a saved model without Keras and without a framework."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from quantal.runtime._steps import Embedding, Step


class Network:
    """A network computes what a saved model predicts, in NumPy and machine code, without Keras.

    `quantal.runtime.load` returns one. Weights on lists of up to 16 values stay packed in 1, 2 or
    4 bits each, longer lists in one byte or two; none is decoded as a whole.

    Attributes:
        input_shape: The shape of a sample.
        output_shape: The shape of its result.
        engine: What multiplies: `"LLVM, AVX-512"`, `"LLVM, AVX2"` or `"NumPy"`.
    """

    def __init__(
        self,
        name: str,
        steps: Sequence[Step],
        input_shape: Sequence[int],
        output_shape: Sequence[int],
        engine: str,
    ) -> None:
        self._name, self._steps = name, list(steps)
        self.input_shape, self.output_shape = tuple(input_shape), tuple(output_shape)
        self.engine = engine

    @property
    def nbytes(self) -> int:
        """The bytes of memory that the network's numbers take."""
        return sum(step.nbytes for step in self._steps)

    def __call__(self, x: ArrayLike) -> NDArray[np.float32]:
        """Return the results of samples, all at once.

        Args:
            x: Numbers of shape (samples, *input_shape); integers where the first layer is an
                Embedding.

        Returns:
            Float32 of shape (samples, *output_shape).

        Raises:
            TypeError: The inputs are no real numbers.
            ValueError: They have another shape, or an Embedding has no row for one.
        """
        results: NDArray[Any] = self._checked(x)
        for step in self._steps:
            results = step(results)
        # A network of reshapes alone returns what it was given.
        return results.copy() if np.may_share_memory(results, x) else results

    def predict(self, x: ArrayLike, batch_size: int = 128) -> NDArray[np.float32]:
        """Return the results of samples, some at a time.

        Args:
            x: Numbers of shape (samples, *input_shape).
            batch_size: How many samples are computed at a time. More than by default are no
                faster and need more memory.

        Returns:
            Float32 of shape (samples, *output_shape).

        Raises:
            TypeError: The inputs are no real numbers.
            ValueError: They have another shape, or `batch_size` is not positive.
        """
        if batch_size < 1:
            raise ValueError(f"batch_size is {batch_size}. Expected at least 1.")
        samples = self._checked(x)
        results = np.empty((len(samples), *self.output_shape), np.float32)
        for start in range(0, len(samples), batch_size):
            results[start : start + batch_size] = self(samples[start : start + batch_size])
        return results

    def __repr__(self) -> str:
        """Return the summary of the network in a line."""
        return (
            f"<Network {self._name!r}: {self.input_shape} to {self.output_shape}, "
            f"{len(self._steps)} steps, {self.nbytes:,} bytes, {self.engine}>"
        )

    def _checked(self, x: ArrayLike) -> NDArray[Any]:
        """Return inputs as an array of the right shape, float32 unless integers are looked up."""
        array = np.asarray(x)
        if array.dtype.kind not in "fiub":
            raise TypeError(
                f"The inputs have the dtype {array.dtype}. Expected real numbers of shape "
                f"(samples, {', '.join(map(str, self.input_shape))})."
            )
        if array.ndim != len(self.input_shape) + 1 or array.shape[1:] != self.input_shape:
            one = " Give one sample as x[None]." if array.shape == self.input_shape else ""
            raise ValueError(
                f"The inputs have the shape {array.shape}. Expected (samples, "
                f"{', '.join(map(str, self.input_shape))}).{one}"
            )
        if self._steps and isinstance(self._steps[0], Embedding):
            return array
        return np.ascontiguousarray(array, np.float32)
