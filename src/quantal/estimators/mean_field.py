"""Mean field: weights as independent random variables, by their means and variances."""

import math
from typing import Any

import keras
from keras import ops

from quantal._core.numbers.checks import checked_positive
from quantal._core.tensors.gradients import as_if
from quantal._core.tensors.projection import Projection
from quantal._core.types import Tensor
from quantal.estimators._softmax import (
    SoftmaxEstimator,
    logits_of,
    normalized_in,
    offsets_from,
)

MODERATION = math.pi / 8
"""The factor by which a logit's variance moderates its mean: `E sigmoid(z)` for normal z is about
`sigmoid(mean / sqrt(1 + pi / 8 variance))` (MacKay, Neural Computation 1992)."""


@keras.saving.register_keras_serializable(package="quantal")
class MeanField(SoftmaxEstimator):
    """Mean field learns a distribution over the list for each weight, independent of others.

    Use it for hard yes-or-no problems in one layer: a neuron of ±1 weights that must
    classify many patterns. There it finds assignments that every gradient through single
    values misses. With correlated inputs, and in networks, take another: weights are far
    from independent there (see benchmarks/learning).

    Each element takes the value `v_k` with the probability
    `p = softmax(-((u - v_k) / g)^2 / T)`, with `g` the mean gap; for `[-1, 1]` its mean
    is `tanh(u / (2 T))`.

    In training, a Dense, EinsumDense or convolution without activation passes mean and
    variance of its output on, as one number: with the weights' means `m` and variances
    `s`, it gives `z / sqrt(1 + pi / 8 V)` with `z = layer(x; m)` and `V = layer(x^2; s)`
    without bias. So the logistic loss sees the expected probability. A learned scale gets
    the true gradient there, too, with the factor of `quantal.Scale`'s. A scale that training
    steps compute stays at its start in these layers: latents say how sure a value is, and not
    how large, so that a fit to them has no limit. Elsewhere the
    forward pass in training sees the means. In inference it is the nearest value,
    which for even gaps is the most probable one.

    Gradient: the true one, through means and variances, by the softmax's Jacobian; in
    inference that of the mean. Latents are not limited to the list: the further
    outside, the surer the value.

    **Memory and time grow with the list's length**: K numbers per element, in training;
    and a linear layer computes twice. A weight of more than 2^28 elements times values, for
    which one tensor would be more than 1 GiB, is refused.

    Args:
        temperature: `T`, positive. The smaller, the surer each step makes a value.

    Raises:
        ValueError: The temperature is not positive.

    Sources: Baldassi et al., "Role of synaptic stochasticity in training low-precision
    neural networks", PRL 120, 268103, 2018 (±1); Shayer et al., "Learning discrete
    weights using the local reparameterization trick", ICLR 2018 (means and variances of
    lists).

    >>> MeanField()
    MeanField(temperature=0.2)
    """

    always_soft = True

    def __init__(self, temperature: float = 0.2) -> None:
        self.temperature = checked_positive("temperature", temperature)

    def moments(self, latent: Tensor, listed: Projection) -> tuple[Tensor, Tensor]:
        """Return the mean and the variance of each element, with their gradients; float32."""
        nearest = listed.nearest(latent)
        if len(listed) == 1:
            return nearest, ops.zeros_like(nearest)
        self.check_size(latent, listed)
        logits = logits_of(normalized_in(latent, listed), listed)
        shares = ops.softmax(logits / self.temperature, axis=-1)
        offsets = offsets_from(nearest, listed)
        offset = ops.sum(shares * offsets, axis=-1)
        variance = ops.sum(shares * ops.square(offsets), axis=-1) - ops.square(offset)
        gap = listed.mean_gap
        return nearest + gap * offset, gap * gap * ops.maximum(variance, 0.0)

    def forward_softmax(
        self,
        latent: Tensor,
        nearest: Tensor,
        listed: Projection,
        training: bool,
        state: Tensor,
        seed: Any,
    ) -> Tensor:
        mean, _ = self.moments(latent, listed)
        return mean if training else as_if(nearest, mean)

    def get_config(self) -> dict[str, Any]:
        return {"temperature": self.temperature}


def moderated(mean: Tensor, variance: Tensor) -> Tensor:
    """Return the logit of the expected probability of a normally distributed logit.

    The approximation is explained at `MODERATION`.

    Args:
        mean: The logit's mean, a tensor.
        variance: Its variance, a tensor of the same shape. What rounding made negative
            counts as 0.

    >>> from keras import ops
    >>> float(moderated(ops.ones(()), ops.zeros(())))
    1.0
    """
    return mean / ops.sqrt(1.0 + MODERATION * ops.maximum(variance, 0.0))
