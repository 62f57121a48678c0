"""The noise with which a device writes its values, drawn for each element of a weight."""

from typing import Any

import keras
import numpy as np
from keras import ops

from quantal._core.numbers.values import Values
from quantal._core.tensors.constants import Constant, along
from quantal._core.tensors.projection import Projection
from quantal._core.types import Tensor


class LevelNoise:
    """Level noise draws a normal number for each element, as large as its value's noise.

    Args:
        values: A list with noise; where it is learnable, each deviation stays with its code.
    """

    def __init__(self, values: Values) -> None:
        noise = np.zeros(values.numbers.shape, np.float32) if values.noise is None else values.noise
        self._length, self._axis = len(values), values.axis
        self._is_even = bool((noise == noise.flat[0]).all())
        # Created here, outside any compiler's trace.
        self._deviations = Constant(float(noise.flat[0]) if self._is_even else noise.ravel())
        self._first_indices = (
            None
            if values.channels is None
            else Constant(np.arange(values.channels, dtype=np.int32) * self._length)
        )

    def deviations(self, latent: Tensor, listed: Projection) -> Tensor:
        """Return the standard deviation of each element's value: a float, or float32.

        Args:
            latent: float32 tensor, in the units of the list.
            listed: The list as a projection.
        """
        if self._is_even:
            return self._deviations()
        indices = listed.codes(latent)
        if self._first_indices is not None:
            indices = indices + along(self._first_indices(), self._axis, len(latent.shape))
        return ops.take(self._deviations(), indices)

    def draw(self, latent: Tensor, listed: Projection, seed: Any) -> Tensor:
        """Return a normal number for each element, without gradient: float32.

        Args:
            latent: float32 tensor, in the units of the list.
            listed: The list as a projection.
            seed: An integer or a `keras.random.SeedGenerator`; None takes Keras's own.
        """
        normal = keras.random.normal(tuple(latent.shape), dtype="float32", seed=seed)
        return ops.stop_gradient(self.deviations(latent, listed) * normal)
