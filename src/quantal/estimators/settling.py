"""Annealing with latents that settle: the default estimator for vectors."""

from typing import Any

import keras

from quantal._core.numbers.checks import checked_not_negative
from quantal._core.tensors.gradients import pulled
from quantal._core.tensors.projection import Projection, offsets_in_half_gaps
from quantal._core.types import Tensor
from quantal.estimators._hardening import Hardening, proximal_map
from quantal.schedules import hyperbolic

_PULL_HALF_LIVES = 20
"""The pull has half of its strength after so many half-lives of the softness. By then values are
nearly hard, and a latent that the pull stops has had time to find its value."""


@keras.saving.register_keras_serializable(package="quantal")
class Settling(Hardening):
    """Settling is `Annealed` at a faster pace, and pulls latents to their nearest values.

    Use it for one vector that is the whole model; `"auto"` picks it there.
    An annealed latent whose value lies inside the list never comes to rest: the
    gradient there is not zero, and carries it to the next value and back for ever.
    Here each latent is also pulled to its nearest value, the harder the longer the
    training, until only a gradient that is large among those of its parameter moves it.

    Forward: `Annealed`'s. Without a callback `r = 1 / (1 + t / half_life)`.

    Gradient: with `g` that of `Annealed`, `u` the latent, `P(u)` its nearest value and
    `h` the half width of the gap around it,
    `g + pull s rms(g) (u - P(u)) / h` with `s = t / (t + 20 half_life)` and `rms` over
    all elements of the parameter. `|u - P(u)| / h` is at most 1: a latent at a midpoint
    is pulled with `pull s` times the typical gradient. The loss's scale does not matter.

    State: two numbers per parameter.

    Args:
        half_life: Training steps until `r` is 1/2 without a callback; positive.
        pull: The strength of the pull, from 0. Above about 1 nothing moves any more.
        steepness: The steepness of the sigmoid schedule of a paced run; positive.

    Raises:
        ValueError: half_life or steepness is not positive, or pull is negative.

    Sources: the map is PARQ's (Jin et al., ICML 2025). The late pull to the nearest
    value is CAGE's (2025), put on the gradient instead of on the step, so that it needs
    no optimizer of its own. Pace and strength: measured, see benchmarks/learning.

    >>> Settling()
    Settling(half_life=100.0, pull=0.5, steepness=10.0)
    """

    def __init__(
        self, half_life: float = 100.0, pull: float = 0.5, steepness: float = 10.0
    ) -> None:
        super().__init__(half_life, steepness)
        self.pull = checked_not_negative("pull", pull)

    def soft(self, latent: Tensor, nearest: Tensor, listed: Projection, softness: Tensor) -> Tensor:
        return proximal_map(latent, nearest, listed, softness)

    def with_pull(
        self, latent: Tensor, nearest: Tensor, listed: Projection, state: Tensor
    ) -> Tensor:
        falling = hyperbolic(state[0], _PULL_HALF_LIVES * self.pace.half_life)
        strength = self.pull * (1.0 - falling)
        return pulled(latent, strength * offsets_in_half_gaps(latent, nearest, listed))

    def get_config(self) -> dict[str, Any]:
        pace = self.pace
        return {"half_life": pace.half_life, "pull": self.pull, "steepness": pace.steepness}
