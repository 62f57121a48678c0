"""The steps of latents from the moves of any optimizer: the same for all, whatever their rates.

An optimizer's moves differ in three ways that the loss does not know of: in size, by the rate and
the gradient's scale; in how each element is normalised; and in how much momentum they carry. So
only the signs of moves count, once the momentum is taken out of them. Where signs alternate they
are averaged: there is one average in all, the optimizer's own or this one, since two of them
together oscillate.
"""

from typing import NamedTuple

from keras import ops

from quantal._core.tensors.gradients import SMALLEST_WIDTH
from quantal._core.types import Tensor
from quantal.schedules import hyperbolic

INITIAL_STATISTICS = (0.0, 0.0, 1.0, 0.0)
"""The numbers that a parameter remembers of its moves, before the first: see `Statistics`."""

_STEP_HALF_LIFE = 600.0
"""The step has half of its first size after so many steps."""

_MEMORY = 0.98
"""The share of a correlation's moving mean that the next step keeps."""

_MOST_MOMENTUM = 0.9
"""At most so much of the last move is taken out of a move, and kept of the mean of signs."""

_ALTERNATING = 0.3
"""Signs are averaged where they correlate with their mean by less than this."""

_LEAST_CAP, _CAP_HALF_LIFE = 0.05, 15.0
"""The root mean square of the signs' mean is limited to 1 at first, which falls to the least cap,
by half in so many steps: signs that alternate have a mean as small as that."""


class Statistics(NamedTuple):
    """Statistics are what a parameter remembers of its moves, all float32 of shape ().

    Attributes:
        moves: How many there were.
        momentum: The moving mean of the correlation of a move with the one before.
        agreement: The moving mean of the correlation of signs with their mean.
        largest: The largest root mean square of a move without its momentum.
    """

    moves: Tensor
    momentum: Tensor
    agreement: Tensor
    largest: Tensor


class Step(NamedTuple):
    """A step is how far each latent goes, and what is remembered of it.

    Attributes:
        latent: float32 tensor of the move's shape.
        signs: The mean of signs, of that shape.
        statistics: The statistics after the step.
    """

    latent: Tensor
    signs: Tensor
    statistics: Statistics


def step_of(move: Tensor, last: Tensor, signs: Tensor, statistics: Statistics, size: float) -> Step:
    """Return the step of latents for an optimizer's move.

    With the move `d`, the one before it `d'` and the mean of signs `D`:
    `w = d - min(max(momentum, 0), .9) d'`, `D = b D + (1 - b) sign(w)` with
    `b = .9 (1 - agreement / .3)` limited to 0 and .9, and the step is
    `size / (1 + t / 600) D`, its root mean square limited to `size / (1 + t / 600)` times the
    smaller of `max(.05, 1 / (1 + t / 15))` and `sqrt(rms(w) / largest rms(w) so far)`.
    The last is the only place where the optimizer's rate counts: in comparison with itself.

    Args:
        move: The optimizer's move: float32 tensor, finite.
        last: The one before it, of the same shape.
        signs: The mean of signs, of the same shape.
        statistics: What is remembered.
        size: The root mean square of the first step.
    """
    moves, momentum, agreement, largest = statistics
    momentum = _MEMORY * momentum + (1.0 - _MEMORY) * _correlation(move, last)
    white = move - ops.clip(momentum, 0.0, _MOST_MOMENTUM) * last
    sign = ops.sign(white)
    agreement = _MEMORY * agreement + (1.0 - _MEMORY) * _correlation(sign, signs)
    # The first sign has no mean that it could agree with.
    agreement = ops.where(moves > 0.0, agreement, ops.ones_like(agreement))
    share = _MOST_MOMENTUM * ops.clip(1.0 - agreement / _ALTERNATING, 0.0, 1.0)
    signs = share * signs + (1.0 - share) * sign
    now = _root_mean_square(white)
    largest = ops.maximum(largest, now)
    cap = ops.maximum(hyperbolic(moves, _CAP_HALF_LIFE), _LEAST_CAP)
    cap = ops.minimum(cap, (now / ops.maximum(largest, SMALLEST_WIDTH)) ** 0.5)
    limit = ops.minimum(cap / ops.maximum(_root_mean_square(signs), SMALLEST_WIDTH), 1.0)
    latent = size * hyperbolic(moves, _STEP_HALF_LIFE) * limit * signs
    return Step(latent, signs, Statistics(moves + 1.0, momentum, agreement, largest))


def _root_mean_square(tensor: Tensor) -> Tensor:
    # By operators, where Keras's functions cost more than such a vector on PyTorch.
    return ops.mean(tensor * tensor) ** 0.5


def _correlation(one: Tensor, other: Tensor) -> Tensor:
    """Return the correlation of two tensors, without their means taken out; 0 where one is 0."""
    norms = ops.sum(one * one) ** 0.5 * ops.sum(other * other) ** 0.5
    return ops.sum(one * other) / ops.maximum(norms, SMALLEST_WIDTH)
