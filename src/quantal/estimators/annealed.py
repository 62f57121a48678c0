"""Annealing: soft at first, hard in the end, by PARQ's proximal map."""

import keras

from quantal._core.tensors.gaps import Gap
from quantal._core.tensors.projection import Projection
from quantal._core.tensors.scalars import Scalar
from quantal._core.types import Tensor
from quantal.estimators._hardening import Hardening, proximal_map


@keras.saving.register_keras_serializable(package="quantal")
class Annealed(Hardening):
    """Annealing pulls values to the nearest listed ones, softly at first, then fully.

    Use it for one vector that is the whole model, for correlated inputs and for lists
    with uneven gaps, where straight-through gets stuck. In deep networks with batch
    normalisation, statistics are learned on soft weights: use the callback below, or
    `StraightThrough`.

    Forward in training, with the listed neighbours `a <= u <= b` of the latent `u` and
    the inverse slope `r` between 1 and 0:
    `min(max((a + b) / 2 + (u - (a + b) / 2) / r, a), b)`. At `r = 1` that is `u`, limited
    to the list's range; at `r = 0` it is the nearest listed value. In inference: always the
    nearest listed value.

    Gradient: the identity, as in `StraightThrough`, taken at the soft value; no factor
    `1 / r`.

    Pace: without a callback `r = 1 / (1 + t / half_life)` at training step `t`, which
    needs no end, hardens most in the beginning and never quite finishes; what is
    read, saved and predicted is on the list all the same. With
    `quantal.callbacks.PaceToRun`, `r` follows PARQ's sigmoid schedule and is 0 from
    the step that the callback sets. A step is one call of the layer in training: a
    layer called twice in a step hardens twice as fast.

    State: two numbers per parameter.

    Args:
        half_life: Training steps until `r` is 1/2 without a callback; positive.
        steepness: The steepness of the sigmoid schedule, positive; 1 to 20 are usual, up
            to 75 for large networks.

    Raises:
        ValueError: An argument is not positive.

    Source: Jin et al., "PARQ: Piecewise-Affine Regularized Quantization", ICML 2025,
    for any list.

    >>> Annealed(half_life=200)
    Annealed(half_life=200.0, steepness=10.0)
    """

    def soft(self, latent: Tensor, nearest: Tensor, listed: Projection, softness: Scalar) -> Tensor:
        gap = Gap(listed.lower(latent), listed.upper(latent), nearest)
        return proximal_map(latent, gap, softness)
