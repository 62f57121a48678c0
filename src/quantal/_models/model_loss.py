"""A model's loss is an objective of the listed values of its parameters."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from quantal._models.batches import Batches
from quantal._models.compiled_loss import CompiledLoss
from quantal.objectives.objective import Objective
from quantal.objectives.problem import Floats

_MOST_NUMBERS = 2**25
"""The most float32 numbers that the candidates of one call may hold: 128 MiB."""
_MOST_CANDIDATES = 256
"""The most candidates in one call: more gain no speed, and each count is compiled anew."""
_PREPARED_WITH = 32
"""Samples on which a model is called before anything is compiled: enough for any shape."""


class LossAndGradient(NamedTuple):
    """A loss of an assignment comes with the monitored number and the loss's gradient (n,)."""

    loss: float
    monitored: float
    gradient: Floats


class ModelLoss(Objective):
    """A model's loss on data is an objective of the listed values of some parameters.

    A vector has the values of all elements, those of the first parameter first, each parameter in
    the order of its flattened shape.

    Args:
        compiled: The loss of a batch. Objectives on different data share it.
        batches: The data.

    >>> import keras, numpy as np, quantal
    >>> model = keras.Sequential([keras.Input((2,)), quantal.LearnableMultiplier()])
    >>> model.compile(loss="mse")
    >>> x = np.array([[1.0, 2.0]], "float32")
    >>> compiled = CompiledLoss(model, quantal.parameters_of(model))
    >>> loss = ModelLoss(compiled, Batches((x, x, None), 32))
    >>> loss(np.array([[1, 1], [1, -1]])).tolist()
    [0.0, 8.0]
    """

    def __init__(self, compiled: CompiledLoss, batches: Batches) -> None:
        self.compiled, self.batches = compiled, batches
        self._shapes = [parameter.shape for parameter in compiled.parameters]
        sizes = [int(np.prod(shape)) for shape in self._shapes]
        self._ends = np.cumsum(sizes)
        each = len(self) + batches.size * max(compiled.widest_activation(), batches.widest_sample)
        self.candidates = int(np.clip(_MOST_NUMBERS // each, 1, _MOST_CANDIDATES))
        """The most vectors that are computed at once."""
        compiled.prepare(batches.take(slice(0, _PREPARED_WITH)), batches.count)

    def __len__(self) -> int:
        return int(self._ends[-1])

    def __call__(self, vectors: ArrayLike) -> Floats:
        """Return the losses (batch,) of vectors (batch, n), on all data."""
        vectors = np.asarray(vectors)
        losses = np.zeros(len(vectors))
        for begin in range(0, len(vectors), self.candidates):
            values = self._by_parameter(vectors[begin : begin + self.candidates])
            for fraction, tensors in self.batches:
                losses[begin : begin + self.candidates] += fraction * self.compiled.losses(
                    values, tensors
                )
        return losses

    def prefer_faster(self, vectors: ArrayLike, clock: Callable[[], float]) -> None:
        """Compute losses one by one from now on, if that takes less time than many at once.

        It does for convolutions, whose kernels differ then. Where as many as possible fit into one
        call the model is small, and nothing is measured.

        Args:
            vectors: Vectors (batch, n) to measure with.
            clock: Returns seconds.
        """
        vectors = np.asarray(vectors)[: self.candidates]
        if self.candidates == _MOST_CANDIDATES or not self.compiled.vectorizes or len(vectors) < 2:
            return
        seconds = []
        for rows in (vectors, vectors[:1]):
            self(rows)  # It compiles.
            began = clock()
            self(rows)
            seconds.append((clock() - began) / len(rows))
        if seconds[1] < seconds[0]:
            self.compiled.stop_vectorizing()

    def gradients(self, vectors: Floats) -> Floats:
        """Return the gradient (batch, n) of each vector's loss."""
        return np.stack([self.loss_and_gradient(vector).gradient for vector in vectors])

    def loss_and_gradient(
        self, vector: NDArray[np.floating], samples: NDArray[np.int64] | None = None
    ) -> LossAndGradient:
        """Return the loss of a vector (n,), the monitored number, and the gradient (n,).

        Args:
            vector: The values.
            samples: The samples that count; None for all.
        """
        values = self._by_parameter(vector)
        loss, monitored, gradient = 0.0, 0.0, np.zeros(len(self))
        batches = self.batches if samples is None else [(1.0, self.batches.take(samples))]
        for fraction, tensors in batches:
            part = self.compiled.loss_and_gradients(values, tensors)
            loss += fraction * part.loss
            monitored += fraction * part.monitored
            gradient += fraction * np.concatenate([g.reshape(-1) for g in part.gradients])
        return LossAndGradient(loss, monitored, gradient)

    def variable_gradients(
        self, vector: NDArray[np.floating], samples: NDArray[np.int64] | None = None
    ) -> list[Floats]:
        """Return the gradients of a vector's loss to the variables that the loss trains.

        Args:
            vector: The values, (n,).
            samples: The samples that count; None for all.
        """
        values = self._by_parameter(vector)
        gradients = [np.zeros(tuple(variable.shape)) for variable in self.compiled.trained]
        batches = self.batches if samples is None else [(1.0, self.batches.take(samples))]
        for fraction, tensors in batches:
            parts = self.compiled.variable_gradients(values, tensors)
            for gradient, part in zip(gradients, parts, strict=True):
                gradient += fraction * part
        return gradients

    def monitored(self, vector: NDArray[np.floating]) -> float:
        """Return the monitored number of a vector (n,), on all data."""
        values = self._by_parameter(vector)
        return sum(
            fraction * self.compiled.loss(values, tensors)[1] for fraction, tensors in self.batches
        )

    def _by_parameter(self, vectors: NDArray[np.floating]) -> list[NDArray[np.float32]]:
        """Return the values (..., *shape) of each parameter, from vectors (..., n)."""
        vectors = np.asarray(vectors, np.float32)
        return [
            part.reshape(*vectors.shape[:-1], *shape)
            for part, shape in zip(
                np.split(vectors, self._ends[:-1], axis=-1), self._shapes, strict=True
            )
        ]
