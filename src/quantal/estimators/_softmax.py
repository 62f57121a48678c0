"""Estimators by a softmax over the distances from a latent to all listed values."""

import abc
import math
from typing import Any

import numpy as np
from keras import ops

from quantal._core.estimator import Estimator
from quantal._core.tensors.gradients import as_if, inward
from quantal._core.tensors.projection import Projection
from quantal._core.types import Tensor

_FARTHEST = 1e6
"""Latents are limited to so many mean gaps from the list's middle: their squares do not
overflow, and every softmax is long saturated."""

_LARGEST = float(np.finfo(np.float32).max)

MOST_SHARES = 2**28
"""The most elements times values of a softmax estimator: one tensor of so many float32 numbers is
1 GiB, and a training step has some six of them at a time."""


class SoftmaxEstimator(Estimator):
    """A softmax estimator sees every listed value of a latent, the near ones more.

    Memory and time grow with the list's length: some K numbers per element, in training. More
    than `MOST_SHARES` elements times values are refused.
    A list of one value has no softmax: there the gradient is the identity's.
    """

    def forward(
        self, latent: Tensor, listed: Projection, training: bool, state: Tensor, seed: Any = None
    ) -> Tensor:
        nearest = listed.nearest(latent)
        if len(listed) == 1:
            return as_if(nearest, inward(latent, listed.low, listed.high))
        self.check_size(latent, listed)
        return self.forward_softmax(latent, nearest, listed, training, state, seed)

    def check_size(self, latent: Tensor, listed: Projection) -> None:
        """Refuse a weight that a number for each element and value would be too large for.

        Raises:
            ValueError: It has more than `MOST_SHARES` elements times values.
        """
        elements, length = math.prod(latent.shape), len(listed)
        if elements * length > MOST_SHARES:
            raise ValueError(
                f"{type(self).__name__} computes with a number for each element and value: "
                f"{elements:,} elements times {length:,} values are {elements * length:,}. "
                f"Expected at most {MOST_SHARES:,}, of which one tensor is 1 GiB. Take "
                "StraightThrough or Annealed, whose memory does not depend on the list, or a "
                "shorter list."
            )

    @abc.abstractmethod
    def forward_softmax(
        self,
        latent: Tensor,
        nearest: Tensor,
        listed: Projection,
        training: bool,
        state: Tensor,
        seed: Any,
    ) -> Tensor:
        """Return what the forward pass sees, for a list of at least two values.

        The arguments are those of `forward`, and the latents' nearest values.
        """


def logits_of(normalized: Tensor, listed: Projection, noise: Tensor = 0.0) -> Tensor:
    """Return `noise - ((u - v_k) / g)^2` for each listed value `v_k`, along a last axis.

    Args:
        normalized: The latents `u`, in mean gaps `g` from the list's middle.
        listed: The list.
        noise: What is added, with the list along a last axis.
    """
    return noise - ops.square(ops.expand_dims(normalized, -1) - _entries(listed))


def normalized_in(numbers: Tensor, listed: Projection) -> Tensor:
    """Return numbers in mean gaps from the list's middle, so that squares do not overflow."""
    return ops.clip((numbers - listed.middle) / listed.mean_gap, -_FARTHEST, _FARTHEST)


def offsets_from(nearest: Tensor, listed: Projection) -> Tensor:
    """Return `(v_k - P(u)) / g` for each listed value `v_k`, along a last axis.

    Measured from the nearest value `P(u)`, which has most of the probability, sums over
    the list lose nothing to cancellation.
    """
    return _entries(listed) - ops.expand_dims(normalized_in(nearest, listed), -1)


def expectation(
    latent: Tensor, nearest: Tensor, listed: Projection, temperature: Tensor, noise: Tensor = 0.0
) -> tuple[Tensor, Tensor]:
    """Return the logits of all listed values, and the expected value under their softmax.

    Args:
        latent: float32 tensor, in the units of the list.
        nearest: The latents' nearest values.
        listed: The list.
        temperature: What the logits are divided by.
        noise: What is added to the logits, with the list along a last axis.

    Returns:
        The logits before the temperature, one for each value in ascending order along a
        last axis; and the expectation of the value, measured from the nearest value, in
        mean gaps. Its derivative is the one in the list's own units.
    """
    # The mean gap cancels in the derivative; of a huge list it would overflow first.
    normalized = as_if(normalized_in(latent, listed), ops.clip(latent, -_LARGEST, _LARGEST))
    logits = logits_of(normalized, listed, noise)
    shares = ops.softmax(logits / temperature, axis=-1)
    return logits, ops.sum(shares * offsets_from(nearest, listed), axis=-1)


def _entries(listed: Projection) -> Tensor:
    return ops.convert_to_tensor(listed.normalized, "float32")
