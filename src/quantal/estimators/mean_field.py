"""Weights as independent random choices: their means and variances."""

import math
from typing import Any

import keras
from keras import ops

from quantal._core.estimator import Estimator, as_if, inward, positive
from quantal._core.tensors.projection import Projection

MODERATION = math.pi / 8
"""How much variance of a logit takes off its mean: `E sigmoid(z)` for normal z is about
`sigmoid(mean / sqrt(1 + pi / 8 variance))` (MacKay, Neural Computation 1992)."""


@keras.saving.register_keras_serializable(package="quantal")
class MeanField(Estimator):
    """Weights as independent random choices from the list; their distribution is learned.

    Use it for hard yes-or-no problems in one layer: a neuron of ±1 weights that must
    classify many patterns. There it finds choices that every gradient through single
    values misses. With correlated inputs, and in networks, take another: independent
    choices are the wrong picture there (see benchmarks/learning).

    Each element takes the value `v_k` with the probability
    `p = softmax(-((u - v_k) / g)^2 / T)`, with `g` the mean gap; for `[-1, 1]` its mean
    is `tanh(u / (2 T))`.

    In training, a Dense, EinsumDense or convolution without activation passes mean and
    variance of its output on, as one number: with the weights' means `m` and variances
    `s`, it gives `z / sqrt(1 + pi / 8 V)` with `z = layer(x; m)` and `V = layer(x^2; s)`
    without bias. So the logistic loss sees the expected probability. Elsewhere the
    forward pass in training sees the means. In inference it is the nearest value,
    which for even gaps is the most probable one.

    Gradient: the true one, through means and variances, by the softmax's Jacobian; in
    inference that of the mean. Latents are not held within the list: the further
    outside, the surer the value.

    **Memory and time grow with the list's length**: K numbers per element, in training;
    and a linear layer computes twice.

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

    def __init__(self, temperature: float = 0.2) -> None:
        self.temperature = positive("temperature", temperature)

    def moments(self, latent: Any, listed: Projection) -> tuple[Any, Any]:
        """(mean, variance) of each element, with their gradients; float32 tensors."""
        if len(listed) == 1:
            nearest = listed.nearest(latent)
            return nearest, ops.zeros_like(nearest)
        shares, offsets = _distance_softmax(latent, listed, self.temperature)
        # Seen from the nearest value, where most of the share is: nothing cancels.
        beside = ops.sum(shares * offsets, axis=-1)
        variance = ops.sum(shares * ops.square(offsets), axis=-1) - ops.square(beside)
        gap = listed.mean_gap
        mean = listed.nearest(latent) + gap * beside
        return mean, gap * gap * ops.maximum(variance, 0.0)

    def forward(
        self, latent: Any, listed: Projection, training: bool, state: Any, seed: Any = None
    ) -> Any:
        if len(listed) == 1:
            return as_if(listed.nearest(latent), inward(latent, listed.low, listed.high))
        mean, _ = self.moments(latent, listed)
        return mean if training else as_if(listed.nearest(latent), mean)

    def get_config(self) -> dict[str, Any]:
        return {"temperature": self.temperature}


def moderated(mean: Any, variance: Any) -> Any:
    """A normal number's mean as the logit of its expected probability: `MODERATION`.

    Args:
        mean: Tensor.
        variance: Tensor of the same shape; what rounding took below 0 counts as 0.

    >>> from keras import ops
    >>> float(moderated(ops.ones(()), ops.zeros(())))
    1.0
    """
    return mean / ops.sqrt(1.0 + MODERATION * ops.maximum(variance, 0.0))


def _distance_softmax(latent: Any, listed: Projection, temperature: float) -> tuple[Any, Any]:
    """How near each value is to each latent, and where it lies.

    Returns:
        The shares `softmax(-((u - v_k) / g)^2 / T)`, with `g` the mean gap, and
        `(v_k - P(u)) / g`, without gradient; float32 tensors with the list as an axis
        behind those of the latent.
    """

    def place_of(numbers: Any) -> Any:
        # In mean gaps from the middle, so that squares neither overflow nor vanish.
        place = (numbers - listed.middle) / listed.mean_gap
        return ops.expand_dims(ops.clip(place, -1e6, 1e6), -1)

    places = ops.convert_to_tensor(listed.places, "float32")
    shares = ops.softmax(-ops.square(place_of(latent) - places) / temperature, axis=-1)
    return shares, places - place_of(listed.nearest(latent))
