"""Penalties that pull latents to the listed values, as Keras regularizers.

A layer's weight regularizer sees the latents, in latent units
(`quantal._core.tensors.latent_units`), so a
penalty takes the layer's list, too, and is the same for [±0.01] and [±8]:

>>> import keras, quantal
>>> penalty = Dampening([1, -1, 0.5], strength=0.01)
>>> layer = quantal.Discrete(keras.layers.Dense(2, kernel_regularizer=penalty), [1, -1, 0.5])

Where the list is learned or has a scale, the penalty is that of the list as given here
and of the latents as they are before the learned part of the scale.
"""

import abc
from typing import Any

import keras
from keras import ops

from quantal._core.numbers.checks import checked_not_negative
from quantal._core.numbers.values import Values, ValuesLike
from quantal._core.tensors.gradients import clipped
from quantal._core.tensors.latent_units import LatentUnits
from quantal._core.tensors.projection import Projection, projection_of

_USUAL_RANKS = (1, 2, 3, 4, 5)


class LatentPenalty(keras.regularizers.Regularizer):
    """A latent penalty sums a function of where each latent lies in its gap of the list."""

    def __init__(self, values: ValuesLike, strength: float) -> None:
        self.values = Values.get(values)
        self.strength = checked_not_negative("strength", strength)
        # Created here, outside any compiler's trace.
        self._forms = {rank: self._form_for(rank) for rank in self._ranks()}

    def _ranks(self) -> list[int]:
        axis = self.values.axis
        least = 1 if self.values.channels is None else (axis + 1 if axis >= 0 else -axis)
        return [rank for rank in _USUAL_RANKS if rank >= least]

    def _form_for(self, rank: int) -> tuple[LatentUnits, Projection]:
        return LatentUnits(self.values, rank), projection_of(self.values, rank)

    def __call__(self, latents: Any) -> Any:
        """Return the penalty on a layer's latents: float32, shape ()."""
        latents = ops.cast(ops.convert_to_tensor(latents), "float32")
        rank = len(latents.shape)
        units, listed = self._forms.get(rank) or self._form_for(rank)
        numbers = units.values_of(latents)
        within = units.latents_of(clipped(numbers, listed.low, listed.high))
        return self.strength * ops.sum(self.penalties(within, numbers, units, listed))

    @abc.abstractmethod
    def penalties(self, within: Any, numbers: Any, units: LatentUnits, listed: Projection) -> Any:
        """Return each latent's share of the penalty, in latent units.

        Args:
            within: The latents, limited to the ends of the list, in latent units.
            numbers: The latents in the units of the list.
            units: The conversion between both.
            listed: The list.
        """

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments, for saving."""
        return {"values": self.values.get_config(), "strength": self.strength}


@keras.saving.register_keras_serializable(package="quantal")
class Dampening(LatentPenalty):
    """Dampening penalises squared distances to the nearest values, so that latents rest.

    Use it late in a run, or in fine-tuning, where latents swing across midpoints and
    batch statistics suffer. Too strong, or from the start, nothing flips any more. Not
    with `Settling`, which pulls already.

    Formula: `strength * sum (P(u) - clip(u))^2`, with latents `u` in latent units, `P(u)`
    the nearest value and `clip(u)` the latent limited to the ends of the list.

    Gradient: `2 strength (u - P(u))`, with none through `P`, and 0 beyond the ends. In
    plain SGD that is CAGE's pull towards the nearest value. In Adam it is not: CAGE moves
    the latent after the step, here the pull passes through Adam's normalisation, which
    makes it weaker next to large gradients and as strong as any other next to none.

    The published strength grows in the course of a run; a Keras regularizer's stays.

    Memory: nothing is kept; some numbers per element while it is computed.

    Args:
        values: The list of the layer.
        strength: The factor on the sum, from 0.

    Raises:
        ValueError: The strength is negative, or values is no valid list.

    Sources: Nagel et al., "Overcoming Oscillations in Quantization-Aware Training",
    ICML 2022; CAGE (2025) for the pull.

    >>> float(Dampening([-1, 1], strength=2.0)(keras.ops.convert_to_tensor([0.5, 3.0])))
    0.5
    """

    def penalties(self, within: Any, numbers: Any, units: LatentUnits, listed: Projection) -> Any:
        return ops.square(units.latents_of(listed.nearest(numbers)) - within)


@keras.saving.register_keras_serializable(package="quantal")
class RoundingVariance(LatentPenalty):
    """The penalty is the variance of rounding each latent at random to a listed neighbour.

    Use it for the smoothed loss of LOTION: the expected loss under random rounding is, to
    second order, the loss plus half the curvature times this variance. Here the
    curvature is taken as equal for all weights; strength is half of it.

    Formula: `strength * sum (u - a) (b - u)`, with latents `u` in latent units, limited
    to the ends of the list, and `a <= u <= b` the listed neighbours.

    Gradient: `strength (a + b - 2 u)`, 0 beyond the ends. It is greatest at the values and
    zero at the midpoints, where `Dampening`'s is greatest: a latent stays where it is
    listed, but comes there slowly.

    Memory: nothing is kept; some numbers per element while it is computed.

    Args:
        values: The list of the layer.
        strength: The factor on the sum, from 0.

    Raises:
        ValueError: The strength is negative, or values is no valid list.

    Source: the variance term of LOTION (2025), for any list, with unit curvature.

    >>> float(RoundingVariance([-1, 1], strength=2.0)(keras.ops.convert_to_tensor([0.5, 3.0])))
    1.5
    """

    def penalties(self, within: Any, numbers: Any, units: LatentUnits, listed: Projection) -> Any:
        lower, upper = (units.latents_of(end(numbers)) for end in (listed.lower, listed.upper))
        return (within - lower) * (upper - within)
