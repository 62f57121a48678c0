"""Estimators that are soft at first and hard in the end."""

import abc
from typing import Any

from keras import ops

from quantal._core.estimator import Estimator
from quantal._core.tensors.blocks import elementwise
from quantal._core.tensors.gaps import Gap, limited
from quantal._core.tensors.gradients import as_if_inward
from quantal._core.tensors.projection import Projection
from quantal._core.tensors.scalars import Scalar, largest, select
from quantal._core.types import Tensor
from quantal.estimators._pace import INITIAL_STATE, Pace


class Hardening(Estimator):
    """A hardening estimator shows a soft value in training, and a listed one in the end.

    A subclass says which soft value; a pace says how soft it is at a step. In inference the
    value is always the nearest one. The gradient is the identity's, unless a subclass adds
    to it.

    Args:
        half_life: As in `Pace`.
        steepness: As in `Pace`.

    Attributes:
        pace: The pace from soft to hard.
    """

    initial_state: tuple[float, ...] = INITIAL_STATE

    def __init__(self, half_life: float = 500.0, steepness: float = 10.0) -> None:
        self.pace = Pace(half_life, steepness)

    def forward(
        self, latent: Tensor, listed: Projection, training: bool, state: Tensor, seed: Any = None
    ) -> Tensor:
        fixed, ends = ops.stop_gradient(latent), (listed.low, listed.high)
        if not training:
            return as_if_inward(listed.nearest(fixed), latent, *ends)
        softness = self.softness(state, len(listed))

        def seen(latent: Tensor) -> tuple[Tensor]:
            return (self.soft(latent, listed.nearest(latent), listed, softness),)

        # Elements of channels with lists of their own are no part of a block by themselves.
        (value,) = elementwise(seen, fixed) if isinstance(ends[0], float) else seen(fixed)
        return as_if_inward(value, latent, *ends)

    def softness(self, state: Tensor, length: int) -> Scalar:
        """Return the softness at a state, for a list of so many values."""
        return self.pace.softness(state)

    @abc.abstractmethod
    def soft(self, latent: Tensor, nearest: Tensor, listed: Projection, softness: Scalar) -> Tensor:
        """Return the value of the forward pass in training; `nearest` where softness is 0."""

    def next_state(self, state: Tensor) -> Tensor:
        return self.pace.next_state(state)

    def get_config(self) -> dict[str, Any]:
        return self.pace.get_config()


def proximal_map(latent: Tensor, gap: Gap, softness: Scalar) -> Tensor:
    """Return PARQ's map of latents towards their nearest values.

    With the listed neighbours `a <= u <= b` of the latent `u` and the softness `r` it is
    `min(max((a + b) / 2 + (u - (a + b) / 2) / r, a), b)`.

    Args:
        latent: float32 tensor, in the units of the list.
        gap: The gaps around them.
        softness: A scalar: 1 for the latent limited to the list, 0 for the nearest value.
    """
    if isinstance(softness, float) and softness <= 0.0:
        return gap.nearest
    middle = gap.lower + (gap.upper - gap.lower) * 0.5
    slope = largest(softness, _LEAST_SLOPE)
    mapped = limited(middle + (latent - middle) / slope, gap.lower, gap.upper)
    return select(softness > 0.0, mapped, gap.nearest)


_LEAST_SLOPE = 1e-30
"""Slopes count as at least this, or a softness of 0 would divide by zero; that quotient is
not used."""
