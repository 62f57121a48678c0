"""Surrogates of straight-through estimators, kept for comparison with the literature.

`StraightThrough(name)` accepts each by its name. They let a latent beyond the list's ends
be stuck, or nearly so; the identity with gradients that lead inward does not.
"""

from collections.abc import Callable
from typing import NamedTuple

from keras import ops

from quantal._core.tensors.gradients import clipped
from quantal._core.tensors.projection import Projection
from quantal._core.types import Tensor

_FARTHEST = 1e6
"""Positions are limited to so many half gaps: every surrogate is long flat there, and
infinity times zero would be NaN."""


class Surrogate(NamedTuple):
    """A surrogate is a function of the latent whose derivative replaces the step's.

    Attributes:
        function: A function of (latent, list, sharpness), in the units of the list.
        sharpness: The default sharpness; None for a surrogate without one.
    """

    function: Callable[[Tensor, Projection, float], Tensor]
    sharpness: float | None = None


def _within_gap(latent: Tensor, listed: Projection) -> tuple[Tensor, Tensor, Tensor]:
    """Return the middle and half width of the gap around each latent, and its position there.

    The position goes from -1 to 1 within the gap. Beyond an end of the list the last gap
    continues, and the position with it.
    """
    lower, upper = listed.lower(latent), listed.upper(latent)
    half = (upper - lower) * 0.5
    middle = lower + half
    safe = ops.where(half > 0, half, 1.0)
    return middle, half, ops.clip((latent - middle) / safe, -_FARTHEST, _FARTHEST)


def _clip(latent: Tensor, listed: Projection, sharpness: float) -> Tensor:
    return clipped(latent, listed.low, listed.high)


def _tanh(latent: Tensor, listed: Projection, sharpness: float) -> Tensor:
    middle, half, position = _within_gap(latent, listed)
    return middle + half * ops.tanh(sharpness * position)


def _approx_sign(latent: Tensor, listed: Projection, sharpness: float) -> Tensor:
    middle, half, position = _within_gap(latent, listed)
    position = clipped(position, -1.0, 1.0)
    return middle + half * (2 * position - position * ops.abs(position))


def _swish_sign(latent: Tensor, listed: Projection, sharpness: float) -> Tensor:
    middle, half, position = _within_gap(latent, listed)
    scaled = sharpness * position
    gate = ops.sigmoid(scaled)
    return middle + half * (2 * gate * (1 + scaled * (1 - gate)) - 1)


SURROGATES = {
    "clip": Surrogate(_clip),
    "tanh": Surrogate(_tanh, sharpness=1.0),
    "approx_sign": Surrogate(_approx_sign),
    "swish_sign": Surrogate(_swish_sign, sharpness=5.0),
}
