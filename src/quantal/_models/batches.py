"""Batches cut data in memory into parts for a loss."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray

from quantal._core.processes import check_alike
from quantal._core.tensors.distributed import whole_array
from quantal._core.types import Tensor

Data = tuple[Any, Any, Any]
"""Inputs, targets and sample weights: arrays or structures of arrays; None for what is missing."""


class Batch(NamedTuple):
    """A batch has some samples as tensors, and the fraction that they are of all samples."""

    fraction: float
    tensors: tuple[Tensor, Tensor, Tensor]


class Batches:
    """Batches are consecutive parts of the data, each of at most so many samples.

    Args:
        data: Inputs, targets and sample weights, samples first.
        size: The most samples in a batch.

    Attributes:
        samples: The number of samples.
        size: The number of samples in a batch; the last batch may be smaller.
        count: The number of batches.

    Raises:
        ValueError: Something is no array, the arrays differ in their number of samples, or the data
            of several processes that run one program differ.
    """

    def __init__(self, data: Data, size: int) -> None:
        self._data = _map(_as_array, data)
        counts = {len(array) for array in self._arrays()}
        if len(counts) != 1 or not min(counts):
            raise ValueError(
                f"x, y and sample_weight have {sorted(counts)} samples. Expected as many in each, "
                "one or more. Give arrays whose first axis is the samples."
            )
        (self.samples,) = counts
        check_alike("data", self._arrays())
        self.size = min(size, self.samples)
        self.count = -(-self.samples // self.size)
        self._only_batch: tuple[Tensor, Tensor, Tensor] | None = None

    def __iter__(self) -> Iterator[Batch]:
        """Yield all batches; a single one stays where the backend computes."""
        if self.count == 1:
            if self._only_batch is None:
                self._only_batch = self.take(slice(None))
            yield Batch(1.0, self._only_batch)
            return
        for begin in range(0, self.samples, self.size):
            end = min(begin + self.size, self.samples)
            yield Batch((end - begin) / self.samples, self.take(slice(begin, end)))

    def take(self, samples: slice | NDArray[np.int64]) -> tuple[Tensor, Tensor, Tensor]:
        """Return some samples as tensors."""
        return _map(lambda array: ops.convert_to_tensor(array[samples]), self._data)

    def draw(self, random: np.random.Generator) -> NDArray[np.int64]:
        """Draw the samples of one batch, in ascending order."""
        return np.sort(random.choice(self.samples, self.size, replace=False))

    @property
    def widest_sample(self) -> int:
        """Return how many numbers a sample has in the widest of the arrays."""
        return max(int(np.prod(array.shape[1:])) for array in self._arrays())

    def _arrays(self) -> list[NDArray[Any]]:
        return [array for array in keras.tree.flatten(self._data) if array is not None]


def _map(function: Callable[[Any], Any], data: Any) -> Any:
    return keras.tree.map_structure(function, data, none_is_leaf=False)


def _as_array(leaf: Any) -> NDArray[Any]:
    if ops.is_tensor(leaf):
        return np.asarray(whole_array(leaf))
    array = np.asarray(leaf) if hasattr(leaf, "__array__") else None
    if array is None or not array.ndim or array.dtype == object:
        raise ValueError(
            f"x, y or sample_weight holds a {type(leaf).__name__}. Expected arrays, samples "
            "first, or structures of them. Collect what a generator or data set gives in arrays; "
            "np.array makes one of a list of numbers."
        )
    return array
