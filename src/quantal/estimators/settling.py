"""Annealing with latents that settle, in steps of their own: the default estimator for vectors."""

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from quantal._core.estimator import Move
from quantal._core.numbers.checks import checked_not_negative, checked_positive
from quantal._core.tensors.gradients import SMALLEST_WIDTH, pulled
from quantal._core.tensors.projection import Projection, offsets_in_half_gaps
from quantal._core.types import Tensor
from quantal.estimators._hardening import Hardening, proximal_map
from quantal.estimators._pace import softness_at
from quantal.schedules import hyperbolic

_HALF_LIFE_PER_GAP = 12.5
"""The half-life of the softness is so many steps for each gap of the list: a latent may have to
cross all of them while values are soft."""

_PULL_HALF_LIFE = 6000.0
"""The pull has half of its strength after so many steps. By then values are nearly hard, and a
latent that the pull stops has had time to find its value."""

_STEP_HALF_LIFE = 300.0
"""The step has half of its first size after so many steps."""

_MOVES, _LARGEST = 2, 3
"""Positions in a state: the moves so far, and the largest root mean square of one."""


@keras.saving.register_keras_serializable(package="quantal")
class Settling(Hardening):
    """Settling anneals in steps of its own size, and pulls latents to their nearest values.

    Use it for one vector that is the whole model; `"auto"` picks it there. It needs no
    setting: neither the optimizer's rate nor the length of the run nor the loss's scale
    has to be known.
    An annealed latent whose value lies inside the list never comes to rest: the
    gradient there is not zero, and carries it to the next value and back for ever.
    Here each latent is also pulled to its nearest value, the harder the longer the
    training, until only a gradient that is large among those of its parameter moves it.

    Forward: `Annealed`'s. Without a callback `r = 1 / (1 + t / half_life)`.

    Steps: the optimizer moves a variable of its own, `z`. Let `d` be its last move, and
    `m` the largest root mean square over the parameter's elements of a move so far. The latent
    goes by `step d / (m (1 + t / 300))`, in latent units, about half the list's
    range. So at first latents go by `step`, and as far as `d` falls short of the
    largest move, whether because gradients do or by a schedule of the user's,
    they go less far. A step is counted when the optimizer has moved: steps whose gradients
    are accumulated, a second call of the layer and a call of `model(x, training=True)`
    count for nothing.

    Gradient: with `g` that of `Annealed`, `u` the latent, `P(u)` its nearest value and
    `h` the half width of the gap around it,
    `g + pull s rms(g) (u - P(u)) / h` with `s = t / (t + 6,000)` and `rms` over
    all elements of the parameter. `|u - P(u)| / h` is at most 1: a latent at a midpoint
    is pulled with `pull s` times the typical gradient. The loss's scale does not matter.
    Above 1 nothing but large gradients moves a latent to another value any more: with the
    default from step 3,000 on.

    State: two numbers for each element, five for each parameter.

    Optimizers: take Adam, AdamW, Nadam or another one whose moves shrink as gradients do;
    the rate is free.

    Args:
        half_life: Training steps until `r` is 1/2 without a callback; positive. None for
            `12.5 (K - 1)` with a list of K values.
        pull: The strength that the pull comes to, from 0.
        steepness: The steepness of the sigmoid schedule of a paced run; positive.
        step: The root mean square of the latents' first step, in latent units; positive.

    Raises:
        ValueError: half_life, steepness or step is not positive, or pull is negative.

    Sources: the map is PARQ's (Jin et al., ICML 2025). The late pull to the nearest
    value is CAGE's (2025), put on the gradient instead of on the step, so that it needs
    no optimizer of its own. Steps, pace and strength: measured, see benchmarks/learning.

    >>> Settling()
    Settling(half_life=None, pull=3.0, steepness=10.0, step=0.1)
    """

    initial_state = (0.0, 0.0, 0.0, 0.0)
    """The parameter's state at first: the training calls so far; the call at which all is hard,
    0 where no callback has set it; the moves so far; the largest root mean square of a move."""

    has_steps = True

    def __init__(
        self,
        half_life: float | None = None,
        pull: float = 3.0,
        steepness: float = 10.0,
        step: float = 0.1,
    ) -> None:
        self.half_life = None if half_life is None else checked_positive("half_life", half_life)
        self.pull = checked_not_negative("pull", pull)
        self.steepness = checked_positive("steepness", steepness)
        self.step = checked_positive("step", step)

    def softness(self, state: Tensor, length: int) -> Tensor:
        half_life = self.half_life
        if half_life is None:
            half_life = _HALF_LIFE_PER_GAP * max(length - 1, 1)
        # The end of a paced run is counted in calls, also where gradients are accumulated.
        counted = ops.where(state[1] > 0.0, state[0], state[_MOVES])
        return softness_at(ops.stack([counted, state[1]]), half_life, self.steepness)

    def soft(self, latent: Tensor, nearest: Tensor, listed: Projection, softness: Tensor) -> Tensor:
        return proximal_map(latent, nearest, listed, softness)

    def with_pull(
        self, latent: Tensor, nearest: Tensor, listed: Projection, state: Tensor
    ) -> Tensor:
        strength = self.pull * (1.0 - hyperbolic(state[_MOVES], _PULL_HALF_LIFE))
        return pulled(latent, strength * offsets_in_half_gaps(latent, nearest, listed))

    def effective_move(self, move: Tensor, traces: Sequence[Tensor], state: Tensor) -> Move:
        calls, end, moves, largest = state[0], state[1], state[_MOVES], state[_LARGEST]
        largest = ops.maximum(largest, ops.sqrt(ops.mean(ops.square(move))))
        size = self.step * hyperbolic(moves, _STEP_HALF_LIFE)
        latent = size * (move / ops.maximum(largest, SMALLEST_WIDTH))
        return Move(latent, traces, ops.stack([calls, end, moves + 1.0, largest]))

    def next_state(self, state: Tensor) -> Tensor:
        return ops.stack([state[0] + 1.0, state[1], state[_MOVES], state[_LARGEST]])

    def get_config(self) -> dict[str, Any]:
        return {
            "half_life": self.half_life,
            "pull": self.pull,
            "steepness": self.steepness,
            "step": self.step,
        }
