"""Residual: the nearest value and a share of the latent that fades out."""

from typing import Any

import keras

from quantal._core.numbers.checks import checked_not_negative
from quantal._core.tensors.projection import Projection
from quantal._core.tensors.scalars import Scalar, select
from quantal._core.types import Tensor
from quantal.estimators._hardening import Hardening


@keras.saving.register_keras_serializable(package="quantal")
class Residual(Hardening):
    """Residual adds a share of the latent to its nearest value; the share fades out.

    Use it where many weights are stuck, above all at a value 0 of ternary lists: the
    latent's share lets the loss feel each latent, also those far from a midpoint.

    Forward in training: `P(u) + strength r u`, with the latent `u`, its nearest value
    `P(u)` and `r` between 1 and 0. Nothing is clamped: in training values lie off
    the list and, for latents near its ends or beyond, outside it. The share is one of
    the latent itself, not of its distance to the list: on a list far from zero take a
    small strength. In inference, and in training once `r` is 0: `P(u)`.

    Gradient: the identity within the ends of the list; beyond them 1 for gradients that
    lead back, 0 for those that lead out. The published one, straight-through for `P(u)`,
    has the factor `1 + strength r`, which is not applied.

    Pace, state and the other arguments are those of `Annealed`; only a run paced by
    `quantal.callbacks.PaceToRun` ends on the list in training, too. The published pace
    warms up and then falls as a cosine; here `r` falls from the start.

    Args:
        strength: The share of the latent at first, from 0; 0 is `StraightThrough`.
        half_life: Training steps until `r` is 1/2 without a callback; positive.
        steepness: The steepness of the sigmoid schedule of a paced run; positive.

    Raises:
        ValueError: half_life or steepness is not positive, or strength is negative.

    Source: the annealed residual of "Sherry", Tencent AngelSlim, 2026, for any list.

    >>> Residual()
    Residual(strength=0.1, half_life=500.0, steepness=10.0)
    """

    def __init__(
        self, strength: float = 0.1, half_life: float = 500.0, steepness: float = 10.0
    ) -> None:
        super().__init__(half_life, steepness)
        self.strength = checked_not_negative("strength", strength)

    def soft(self, latent: Tensor, nearest: Tensor, listed: Projection, softness: Scalar) -> Tensor:
        share = self.strength * softness
        # 0 times an infinite latent would be NaN.
        return select(share > 0, nearest + share * latent, nearest)

    def get_config(self) -> dict[str, Any]:
        return {"strength": self.strength, **super().get_config()}
