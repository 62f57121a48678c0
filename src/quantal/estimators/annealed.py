"""Soft at first, hard in the end: the value wanders from the latent to the list."""

import abc
from typing import Any

import keras
from keras import ops

import quantal.schedules as schedules
from quantal._core.estimator import (
    Estimator,
    as_if,
    aside,
    clamp,
    inward,
    not_negative,
    positive,
    pulled,
)
from quantal._core.tensors.projection import Projection


class Paced(Estimator):
    """Goes from soft to hard as training goes on.

    The state is (training steps so far, step at which all is hard). The second is 0
    where no callback has set it: then the pace needs no end.
    """

    initial_state = (0.0, 0.0)

    def __init__(self, half_life: float = 500.0, steepness: float = 10.0) -> None:
        self.half_life = positive("half_life", half_life)
        self.steepness = positive("steepness", steepness)

    def softness(self, state: Any) -> Any:
        """1 where the latent passes as it is, 0 where only listed values do."""
        step, end = state[0], state[1]
        fraction = ops.minimum(step / ops.maximum(end, 1.0), 1.0)
        paced = schedules.sigmoid(fraction, self.steepness)
        # At fraction 1 rounding must not leave a rest of softness.
        paced = ops.where(fraction < 1.0, ops.maximum(paced, 0.0), ops.zeros_like(paced))
        return ops.where(end > 0.0, paced, schedules.hyperbolic(step, self.half_life))

    def next_state(self, state: Any) -> Any:
        return ops.stack([state[0] + 1.0, state[1]])

    def get_config(self) -> dict[str, Any]:
        return {"half_life": self.half_life, "steepness": self.steepness}


class Hardening(Paced):
    """Soft at first, hard in the end: a soft value between the latent and the list."""

    def forward(
        self, latent: Any, listed: Projection, training: bool, state: Any, seed: Any = None
    ) -> Any:
        value = listed.nearest(latent)
        if training:
            value = self.soft(latent, value, listed, ops.stop_gradient(self.softness(state)))
        return as_if(value, inward(latent, listed.low, listed.high))

    @abc.abstractmethod
    def soft(self, latent: Any, nearest: Any, listed: Projection, softness: Any) -> Any:
        """The value of the forward pass in training; `nearest` where softness is 0."""


@keras.saving.register_keras_serializable(package="quantal")
class Annealed(Hardening):
    """PARQ's proximal map: pulled to the nearest value, softly at first, then fully.

    Use it for one vector that is the whole model, for correlated inputs and for lists
    with uneven gaps, where straight-through gets stuck. In deep networks with batch
    normalisation, statistics are learned on soft weights: give it the callback below
    or take `StraightThrough`.

    Forward in training, with the listed neighbours `a <= u <= b` of the latent `u` and
    the inverse slope `r` between 1 and 0:
    `min(max((a + b) / 2 + (u - (a + b) / 2) / r, a), b)`. At `r = 1` that is `u`, held
    within the list; at `r = 0` the nearest listed value. In inference: always the
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
        steepness: Of the sigmoid schedule, positive; 1 to 20 are usual, up to 75 for
            large networks.

    Raises:
        ValueError: An argument is not positive.

    Source: Jin et al., "PARQ: Piecewise-Affine Regularized Quantization", ICML 2025,
    for any list.

    >>> Annealed(half_life=200)
    Annealed(half_life=200.0, steepness=10.0)
    """

    def soft(self, latent: Any, nearest: Any, listed: Projection, softness: Any) -> Any:
        lower, upper = listed.lower(latent), listed.upper(latent)
        middle = lower + (upper - lower) * 0.5
        slope = ops.maximum(softness, 1e-30)
        mapped = ops.minimum(ops.maximum(middle + (latent - middle) / slope, lower), upper)
        return ops.where(softness > 0.0, mapped, nearest)


@keras.saving.register_keras_serializable(package="quantal")
class BinaryRelax(Hardening):
    """A mixture of the latent and its nearest value that ends at the nearest value.

    Use it where `Annealed` hardens too abruptly near the midpoints: every latent is
    pulled by the same share.

    Forward in training: `r u + (1 - r) P(u)`, with the latent `u` held within the list
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

    def soft(self, latent: Any, nearest: Any, listed: Projection, softness: Any) -> Any:
        held = clamp(latent, listed.low, listed.high)
        return clamp(softness * held + (1 - softness) * nearest, listed.low, listed.high)


@keras.saving.register_keras_serializable(package="quantal")
class Residual(Hardening):
    """The nearest value and a little of the latent, which fades out.

    Use it where many weights are stuck, above all at a value 0 of ternary lists: the
    latent's share lets the loss feel each latent, also those far from a midpoint.

    Forward in training: `P(u) + strength r u`, with the latent `u`, its nearest value
    `P(u)` and `r` between 1 and 0. Nothing is clamped: in training values lie beside
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
        strength: Share of the latent at first, from 0; 0 is `StraightThrough`.
        half_life: Training steps until `r` is 1/2 without a callback; positive.
        steepness: Of the sigmoid schedule of a paced run; positive.

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
        self.strength = not_negative("strength", strength)

    def soft(self, latent: Any, nearest: Any, listed: Projection, softness: Any) -> Any:
        share = self.strength * softness
        # Nothing of an infinite latent would be NaN.
        return ops.where(share > 0, nearest + share * latent, nearest)

    def get_config(self) -> dict[str, Any]:
        return {"strength": self.strength, **super().get_config()}


@keras.saving.register_keras_serializable(package="quantal")
class Settling(Annealed):
    """`Annealed` at a faster pace, with latents that settle on their nearest values.

    Use it for one vector that is the whole model; it is what `"auto"` takes there.
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
        pull: Strength of the pull, from 0. Above about 1 nothing moves any more.
        steepness: Of the sigmoid schedule of a paced run; positive.

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
        self.pull = not_negative("pull", pull)

    def forward(
        self, latent: Any, listed: Projection, training: bool, state: Any, seed: Any = None
    ) -> Any:
        nearest = listed.nearest(latent)
        value = nearest
        if training:
            value = self.soft(latent, nearest, listed, ops.stop_gradient(self.softness(state)))
        strength = self.pull * (1.0 - schedules.hyperbolic(state[0], 20 * self.half_life))
        settling = pulled(latent, strength * aside(latent, nearest, listed))
        return as_if(value, inward(settling, listed.low, listed.high))

    def get_config(self) -> dict[str, Any]:
        return {"half_life": self.half_life, "pull": self.pull, "steepness": self.steepness}
