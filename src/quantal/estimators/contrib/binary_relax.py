"""BinaryRelax: a mixture of the latent and its nearest value."""

import keras

from quantal._core.tensors.gradients import clamp
from quantal._core.tensors.projection import Projection
from quantal._core.tensors.scalars import Scalar
from quantal._core.types import Tensor
from quantal.estimators._hardening import Hardening


@keras.saving.register_keras_serializable(package="quantal")
class BinaryRelax(Hardening):
    """BinaryRelax mixes the latent and its nearest value, and ends at the nearest value.

    Use it where `Annealed` hardens too abruptly near the midpoints: every latent is
    pulled by the same share.

    Forward in training: `r u + (1 - r) P(u)`, with the latent `u` limited to the list
    and `P(u)` its nearest value. In inference: `P(u)`.

    Gradient, pace, state and arguments are those of `Annealed`; without a callback
    `r = 1 / (1 + lambda)` with `lambda = t / half_life`.

    Raises:
        ValueError: An argument is not positive.

    Source: Yin et al., "BinaryRelax: A Relaxation Approach for Training Deep Neural
    Networks with Quantized Weights", SIAM J. Imaging Sciences 2018, for any list.

    >>> BinaryRelax()
    BinaryRelax(half_life=500.0, steepness=10.0)
    """

    def soft(self, latent: Tensor, nearest: Tensor, listed: Projection, softness: Scalar) -> Tensor:
        limited = clamp(latent, listed.low, listed.high)
        return clamp(softness * limited + (1 - softness) * nearest, listed.low, listed.high)
