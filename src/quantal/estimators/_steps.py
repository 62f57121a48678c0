"""The steps of latents from the moves of any optimizer: the same for all, whatever their rates.

An optimizer's moves differ in three ways that the loss does not know of: in size, by the rate and
the gradient's scale; in how each element is normalised; and in how much momentum they carry. So
only the signs of moves count, once the momentum is taken out of them. Where signs alternate they
are averaged: there is one average in all, the optimizer's own or this one, since two of them
together oscillate.
"""

import math
from typing import NamedTuple

from keras import ops

from quantal._core.tensors.blocks import elementwise
from quantal._core.tensors.gradients import SMALLEST_WIDTH
from quantal._core.tensors.scalars import Scalar, largest, mixed, select, smallest, totals
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
    """Statistics are what a parameter remembers of its moves, all scalars.

    Attributes:
        moves: How many there were.
        momentum: The moving mean of the correlation of a move with the one before.
        agreement: The moving mean of the correlation of signs with their mean.
        largest: The largest root mean square of a move without its momentum.
    """

    moves: Scalar
    momentum: Scalar
    agreement: Scalar
    largest: Scalar


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
    moves, momentum, agreement, most = statistics
    product, *squares = totals((move, last), (move, move), (last, last))
    momentum = _mean(momentum, _correlation(product, *squares))
    taken_out = smallest(largest(momentum, 0.0), _MOST_MOMENTUM)

    def whitened(move: Tensor, last: Tensor) -> tuple[Tensor, Tensor]:
        white = move - taken_out * last
        return white, ops.sign(white)

    white, sign = elementwise(whitened, move, last)
    both, one, mean, power = totals((sign, signs), (sign, sign), (signs, signs), (white, white))
    # The first sign has no mean that it could agree with.
    agreement = select(moves > 0.0, _mean(agreement, _correlation(both, one, mean)), 1.0)
    share = _MOST_MOMENTUM * smallest(largest(1.0 - agreement / _ALTERNATING, 0.0), 1.0)
    # The sum of squares of the next mean of signs before it is computed: so nothing waits for it.
    power_of_signs = share**2 * mean + 2.0 * share * (1.0 - share) * both + (1.0 - share) ** 2 * one
    elements = math.prod(move.shape)
    now = (power / elements) ** 0.5
    most = largest(most, now)
    cap = largest(hyperbolic(moves, _CAP_HALF_LIFE), _LEAST_CAP)
    cap = smallest(cap, (now / largest(most, SMALLEST_WIDTH)) ** 0.5)
    root = (largest(power_of_signs, 0.0) / elements) ** 0.5
    limit = smallest(cap / largest(root, SMALLEST_WIDTH), 1.0)
    length = size * hyperbolic(moves, _STEP_HALF_LIFE) * limit

    def followed(signs: Tensor, sign: Tensor) -> tuple[Tensor, Tensor]:
        mean = mixed(share, signs, sign)
        return length * mean, mean

    latent, signs = elementwise(followed, signs, sign)
    return Step(latent, signs, Statistics(moves + 1.0, momentum, agreement, most))


def _mean(mean: Scalar, number: Scalar) -> Scalar:
    """Return the moving mean with one more number."""
    return _MEMORY * mean + (1.0 - _MEMORY) * number


def _correlation(product: Scalar, one: Scalar, other: Scalar) -> Scalar:
    """Return the correlation of two tensors, without their means taken out; 0 where one is 0.

    Args:
        product: The sum of their products.
        one: The sum of the squares of one.
        other: The sum of the squares of the other.
    """
    return product / largest(one**0.5 * other**0.5, SMALLEST_WIDTH)
