"""The default: which estimator suits which parameter."""

import math
from collections.abc import Sequence
from typing import Any

import keras

from quantal._core.estimator import Estimator
from quantal._core.tensors.projection import Projection
from quantal.estimators.annealed import Settling
from quantal.estimators.straight_through import StraightThrough


@keras.saving.register_keras_serializable(package="quantal")
class Automatic(Estimator):
    """The default: `Settling` for a vector, `StraightThrough` for everything else.

    Use it unless you know better. A parameter is a vector if all its elements lie along
    one axis: a multiplier per feature, the kernel of a Dense layer with one unit. There
    straight-through stops at a poor choice. In kernels with many units the gradients of
    a batch are noise enough to go on, and soft values would spoil the statistics that
    batch normalisation learns. A learnable list gets `StraightThrough`, too: its
    entries learn from the elements that hold them, which soft values blur.

    Forward, gradient, state, memory: those of the estimator that it takes.

    Source: measured, see benchmarks/learning.

    >>> Automatic().suited_to((10,)), Automatic().suited_to((10, 3))
    (Settling(half_life=100.0, pull=0.5, steepness=10.0), StraightThrough(surrogate='identity', sharpness=None))
    """  # noqa: E501 (one line of output)

    def __call__(
        self,
        latent: Any,
        values: Any,
        training: bool = False,
        state: Any = None,
        seed: Any = None,
    ) -> Any:
        suited = self.suited_to(keras.ops.shape(latent))
        return suited(latent, values, training, state, seed)

    def forward(
        self, latent: Any, listed: Projection, training: bool, state: Any, seed: Any = None
    ) -> Any:
        return self.suited_to(latent.shape).forward(latent, listed, training, state, seed)

    def suited_to(self, shape: Sequence[int], learnable: bool = False) -> Estimator:
        is_vector = math.prod(shape) == max(shape, default=1)
        return _FOR_VECTORS if is_vector and not learnable else _FOR_OTHERS


# Made once: PyTorch's compiler cannot trace the checks of their arguments.
_FOR_VECTORS, _FOR_OTHERS = Settling(), StraightThrough()
