"""Samples to calibrate on are collected from arrays, data sets and loaders."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray

from quantal._core.tensors.distributed import whole_array
from quantal._core.types import Tensor

MOST_SAMPLES = 2**14
"""At most so many samples are used: moments of more hardly differ, and cost more."""
BATCH = 128
"""The most samples in a batch: memory is that of what meets the widest kernel."""

_EVERY = 4
"""Each so many samples one is left out of the calibration, where its loss is to be measured."""


class Samples:
    """Samples are inputs of a model, in memory.

    Args:
        data: Inputs: an array, or a list or dict of arrays, samples first; or an iterable of
            batches of these, such as a `tf.data.Dataset`, a `keras.utils.PyDataset` or a
            PyTorch `DataLoader`. A tuple is (x, y) or (x, y, sample_weight), of which x counts.
        batch: The number of samples in a batch that the model is built for; None for any.
        argument: The name of the argument of the user, for errors.
        with_targets: Whether a tuple counts as a whole, and so the samples are tuples.

    Raises:
        TypeError: The data is neither arrays nor an iterable of batches.
        ValueError: It has no sample, or less than a batch; arrays differ in their number of
            samples, or a number is NaN or infinite.

    >>> Samples((np.zeros((100, 2)), np.zeros(100))).count
    100
    """

    def __init__(
        self,
        data: Any,
        batch: int | None = None,
        argument: str = "calibrate",
        with_targets: bool = False,
    ) -> None:
        self._argument, self._batch, self._with_targets = argument, batch, with_targets
        data = data if with_targets else _inputs_of(data)
        arrays = keras.tree.flatten(data)
        if isinstance(data, (str, bytes)) or not (
            all(map(_is_array, arrays)) or isinstance(data, Iterable) or _is_dataset(data)
        ):
            raise TypeError(
                f"{argument} is {data!r} of type {type(data).__name__}. Expected inputs of the "
                "model: an array or a structure of arrays, or an iterable of batches. Give some "
                "thousand samples of the training data."
            )
        if not (arrays and all(map(_is_array, arrays))):
            data = _collected(data, argument, with_targets)
        self._inputs = keras.tree.map_structure(_as_array_of(argument), data)
        counts = {len(array) if array.ndim else 0 for array in keras.tree.flatten(self._inputs)}
        if len(counts) != 1 or not min(counts):
            raise ValueError(
                f"{argument} has inputs of {sorted(counts)} samples. Expected as many in each, one "
                "or more. Give some thousand samples of the training data."
            )
        (self.count,) = counts
        self._refuse_other_numbers()
        if batch is not None and self.count < batch:
            raise ValueError(
                f"{argument} has {self.count} samples. Expected {batch} or more, for the model is "
                "built for batches of this size. Give some thousand samples of the training data."
            )
        if self.count > MOST_SAMPLES:
            positions = np.linspace(0, self.count - 1, MOST_SAMPLES).astype(int)
            self._inputs = keras.tree.map_structure(lambda array: array[positions], self._inputs)
            self.count = MOST_SAMPLES
        if batch is None:
            # Equal sizes, since JAX compiles for each size anew.
            batch = -(-self.count // -(-self.count // BATCH))
        else:
            self.count -= self.count % batch
        self._size = batch

    def _refuse_other_numbers(self) -> None:
        for array in keras.tree.flatten(self._inputs):
            if array.dtype.kind in "fc" and not np.isfinite(array).all():
                raise ValueError(
                    f"{self._argument} holds NaN or infinity. Expected finite numbers, as the "
                    "model is trained on. Leave such samples out."
                )

    def __iter__(self) -> Iterator[Any]:
        """Yield the inputs batch by batch, as tensors in their structure."""
        for begin in range(0, self.count, self._size):
            yield self._take(begin, min(begin + self._size, self.count))

    @property
    def arrays(self) -> Any:
        """The samples, as arrays in their structure."""
        return self._inputs

    @property
    def batches(self) -> int:
        """The number of batches."""
        return -(-self.count // self._size)

    def split(self) -> "tuple[Samples, Samples]":
        """Return the samples in two parts: three quarters, and every fourth one.

        Where a part would have no batch, both are all samples.
        """
        is_second = np.arange(self.count) % _EVERY == _EVERY - 1
        if is_second.sum() < (self._batch or 1):
            return self, self

        def part(positions: NDArray[np.bool_]) -> Samples:
            arrays = keras.tree.map_structure(
                lambda array: array[: self.count][positions], self._inputs
            )
            # A tuple is inputs of the model here, unless the samples are tuples.
            arrays = arrays if self._with_targets else (arrays,)
            return Samples(arrays, self._batch, self._argument, self._with_targets)

        return part(~is_second), part(is_second)

    def _take(self, begin: int, end: int) -> Any:
        """Return some samples as tensors in their structure."""

        def tensor(array: NDArray[Any]) -> Tensor:
            part = array[begin:end]
            return part if part.dtype.kind in "OSU" else ops.convert_to_tensor(part)

        return keras.tree.map_structure(tensor, self._inputs)


def _inputs_of(data: Any) -> Any:
    """Return the inputs of (x, y) or (x, y, sample_weight), and other data as it is."""
    return data[0] if isinstance(data, tuple) and data else data


def _is_array(leaf: Any) -> bool:
    return ops.is_tensor(leaf) or hasattr(leaf, "__array__")


def _is_dataset(data: Any) -> bool:
    """Return whether data gives batches by position, as a `keras.utils.PyDataset` does."""
    return hasattr(data, "__getitem__") and hasattr(data, "__len__")


def _batches_of(data: Any) -> Iterator[Any]:
    if _is_dataset(data) and not hasattr(data, "__iter__"):
        yield from (data[position] for position in range(len(data)))
    else:
        yield from data


def _collected(data: Any, argument: str, with_targets: bool) -> Any:
    """Return the inputs of an iterable of batches, one behind the other."""
    parts: list[Any] = []
    count = 0
    is_loader = any(kind.__module__.startswith("torch.utils.data") for kind in type(data).__mro__)
    for batch in _batches_of(data):
        # PyTorch's loaders give (x, y) as a list.
        batch = tuple(batch) if is_loader and isinstance(batch, list) else batch
        counted = batch if with_targets else _inputs_of(batch)
        inputs = keras.tree.map_structure(_as_array_of(argument), counted)
        parts.append(inputs)
        count += len(keras.tree.flatten(inputs)[0])
        if count >= MOST_SAMPLES:
            break
    if not parts:
        raise ValueError(
            f"{argument} gives no batch. Expected an iterable that can be read now. Give some "
            "thousand samples of the training data."
        )
    return keras.tree.map_structure(lambda *arrays: np.concatenate(arrays), *parts)


def _as_array_of(argument: str) -> Callable[[Any], NDArray[Any]]:
    """Return the function that makes arrays of the leaves of an argument."""

    def as_array(leaf: Any) -> NDArray[Any]:
        if ops.is_tensor(leaf):
            return np.asarray(whole_array(leaf))
        if not _is_array(leaf):
            raise TypeError(
                f"{argument} holds a {type(leaf).__name__}. Expected arrays, samples first, or "
                "structures of them. np.array makes one of a list of numbers."
            )
        return np.asarray(leaf)

    return as_array
