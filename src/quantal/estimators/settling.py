"""Annealing with latents that settle, in steps of their own: the default estimator for vectors."""

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from quantal._core.estimator import Move
from quantal._core.numbers.checks import checked_not_negative, checked_positive
from quantal._core.tensors.blocks import elementwise
from quantal._core.tensors.projection import Projection
from quantal._core.tensors.pull import as_if_pulled
from quantal._core.tensors.scalars import Scalar, scalars_of, select, tensor_of
from quantal._core.types import Tensor
from quantal.estimators._hardening import Hardening, proximal_map
from quantal.estimators._pace import INITIAL_STATE, softness_at
from quantal.estimators._steps import INITIAL_STATISTICS, Statistics, step_of
from quantal.schedules import hyperbolic

_HALF_LIFE_PER_GAP = 20.0
"""The half-life of the softness is so many steps for each gap of the list: a latent may have to
cross all of them while values are soft."""

_PULL_HALF_LIFE = 20000.0
"""The pull has half of its strength after so many steps. With the default strength it reaches 1
after 2,900: by then values are nearly hard, and latents have had time to find their values."""

_MOVES = len(INITIAL_STATE)
"""The position of the number of moves in a state, and the first of the statistics."""


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

    Steps: the optimizer moves a variable of its own, whose numbers mean nothing. Its moves
    say which way latents go, by their signs, once the optimizer's momentum is taken out of them
    (`quantal.estimators._steps` has the formula). How far is this estimator's affair: by `step`
    at first, in latent units, about half the list's range, and by less as
    `1 / (1 + t / 600)`, where signs alternate, and as the root of the moves' size where that
    falls short of its largest so far: so a schedule of the user's counts.
    A step is counted when the optimizer has moved: those whose gradients
    are accumulated, a second call of the layer and a call of `model(x, training=True)`
    count for nothing.

    Gradient: with `g` that of `Annealed`, `u` the latent, `P(u)` its nearest value and
    `h` the half width of the gap around it,
    `g + pull s rms(g) (u - P(u)) / h` with `s = t / (t + 20,000)` and `rms` over
    all elements of the parameter. `|u - P(u)| / h` is at most 1: a latent at a midpoint
    is pulled with `pull s` times the typical gradient. The loss's scale does not matter.
    Above 1 nothing but large gradients moves a latent to another value any more: with the
    default from step 2,900 on.

    Memory: four numbers for each element besides the optimizer's.

    Args:
        half_life: Training steps until `r` is 1/2 without a callback; positive. None for
            `20 (K - 1)` with a list of K values.
        pull: The strength that the pull comes to, from 0.
        steepness: The steepness of the sigmoid schedule of a paced run; positive.
        step: The root mean square of the latents' first step, in latent units; positive.

    Raises:
        ValueError: half_life, steepness or step is not positive, or pull is negative.

    Sources: the map is PARQ's (Jin et al., ICML 2025). The late pull to the nearest
    value is CAGE's (2025), put on the gradient instead of on the step, so that it needs
    no optimizer of its own. Steps, pace and strength: measured, see benchmarks/learning.

    >>> Settling()
    Settling(half_life=None, pull=8.0, steepness=10.0, step=0.1)
    """

    initial_state = (*INITIAL_STATE, *INITIAL_STATISTICS)
    has_steps = True
    traces = 2

    def __init__(
        self,
        half_life: float | None = None,
        pull: float = 8.0,
        steepness: float = 10.0,
        step: float = 0.1,
    ) -> None:
        self.half_life = None if half_life is None else checked_positive("half_life", half_life)
        self.pull = checked_not_negative("pull", pull)
        self.steepness = checked_positive("steepness", steepness)
        self.step = checked_positive("step", step)

    def softness(self, state: Tensor, length: int) -> Scalar:
        half_life = self.half_life
        if half_life is None:
            half_life = _HALF_LIFE_PER_GAP * max(length - 1, 1)
        calls, end, moves = scalars_of(state)[: _MOVES + 1]
        # The end of a paced run is counted in calls, also where gradients are accumulated.
        return softness_at(select(end > 0.0, calls, moves), end, half_life, self.steepness)

    def forward(
        self, latent: Tensor, listed: Projection, training: bool, state: Tensor, seed: Any = None
    ) -> Tensor:
        fixed = ops.stop_gradient(latent)
        strength = self.pull * (1.0 - hyperbolic(scalars_of(state)[_MOVES], _PULL_HALF_LIFE))
        softness = self.softness(state, len(listed)) if training else 0.0
        ends = listed.low, listed.high

        def seen(latent: Tensor) -> tuple[Tensor, Tensor]:
            gap = listed.around(latent)
            return proximal_map(latent, gap, softness), gap.offsets(latent, *ends)

        # Elements of channels with lists of their own are no part of a block by themselves.
        value, direction = elementwise(seen, fixed) if isinstance(ends[0], float) else seen(fixed)
        return as_if_pulled(value, latent, direction, strength, *ends)

    def soft(self, latent: Tensor, nearest: Tensor, listed: Projection, softness: Scalar) -> Tensor:
        return proximal_map(latent, listed.around(latent), softness)

    def effective_move(self, move: Tensor, traces: Sequence[Tensor], state: Tensor) -> Move:
        last, signs = traces
        numbers = scalars_of(state)
        step = step_of(move, last, signs, Statistics(*numbers[_MOVES:]), self.step)
        return Move(step.latent, [move, step.signs], [*numbers[:_MOVES], *step.statistics])

    def next_state(self, state: Tensor) -> Tensor:
        calls, *others = scalars_of(state)
        return tensor_of([calls + 1.0, *others])

    def get_config(self) -> dict[str, Any]:
        return {
            "half_life": self.half_life,
            "pull": self.pull,
            "steepness": self.steepness,
            "step": self.step,
        }
