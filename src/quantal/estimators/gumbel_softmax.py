"""Gumbel-softmax: values drawn at random in training, the near ones more often."""

from typing import Any

import keras
from keras import ops

from quantal._core.numbers.checks import checked_positive
from quantal._core.tensors.gradients import as_if, clamp
from quantal._core.tensors.projection import Projection
from quantal._core.types import Tensor
from quantal.estimators._pace import INITIAL_STATE, Pace
from quantal.estimators._softmax import SoftmaxEstimator, expectation

# The ends of the uniform numbers: neither 0 nor 1, whose logarithms are infinite.
_LEAST_UNIFORM, _MOST_UNIFORM = 1e-30, 1 - 2.0**-24


@keras.saving.register_keras_serializable(package="quantal")
class GumbelSoftmax(SoftmaxEstimator):
    """Gumbel-softmax draws values at random, near ones more often, until the noise stops.

    Use it to explore: for short lists where neighbouring values act very differently,
    as in devices with measured responses. Elsewhere the noise costs more than it gains,
    the more so the more weights one output sums.

    Forward in training, with the listed values `v_k`, the mean gap `g` between them and
    logits `l_k = -((u - v_k) / g)^2` of the latent `u`: Gumbel noise
    `n_k = -log(-log(uniform))` is drawn anew for each element and value. Hard: the value
    with the largest `l_k + n_k`, which is drawn with probability `softmax(l)_k`. Soft:
    `sum_k p_k v_k` with `p = softmax((l + n) / T)`. In inference, and once the noise has
    stopped: the nearest listed value.

    Gradient in training: that of `sum_k p_k v_k` with the same noise, hard and soft
    alike; once the noise has stopped, and in inference, with `n = 0`. It fades beyond
    the ends of the list.

    Pace: `T = max(floor, temperature r)`, with the `r` of `Annealed` that falls from 1:
    without a callback by half in `half_life` steps, with `quantal.callbacks.PaceToRun`
    along a sigmoid. Once `temperature r` is at the floor, the noise stops and the rest
    of the run is `ArgmaxStraightThrough(floor)`: with the defaults after `half_life`
    steps, or in the middle of a paced run.

    Random numbers: those of the layer's seed generator. With the same `seed` of the layer
    a run repeats, on the same backend and compiled alike. The generator's state is not
    saved, as Keras saves that of no layer: training that is taken up again draws other
    noise.

    **Memory and time grow with the list's length**: some K numbers per element, in
    training. A weight of more than 2^28 elements times values, for which one tensor would be
    more than 1 GiB, is refused. State: two numbers per parameter, and one seed state per layer.

    Args:
        hard: Whether values in training are listed ones, or mixtures of them.
        temperature: `T` at first, positive.
        floor: The lowest `T`, positive. At or above `temperature` there is no noise.
        half_life: Training steps until `r` is 1/2 without a callback; positive.
        steepness: The steepness of the sigmoid schedule of a paced run; positive.

    Raises:
        ValueError: A number is not positive.
        TypeError: hard is not a boolean.

    Sources: Jang, Gu, Poole, "Categorical Reparameterization with Gumbel-Softmax", and
    Maddison, Mnih, Teh, "The Concrete Distribution", both ICLR 2017, with distances to
    the values for logits.

    >>> GumbelSoftmax(hard=False)
    GumbelSoftmax(hard=False, temperature=1.0, floor=0.5, half_life=500.0, steepness=10.0)
    """

    initial_state = INITIAL_STATE
    random = True

    def __init__(
        self,
        hard: bool = True,
        temperature: float = 1.0,
        floor: float = 0.5,
        half_life: float = 500.0,
        steepness: float = 10.0,
    ) -> None:
        self.pace = Pace(half_life, steepness)
        if not isinstance(hard, bool):
            raise TypeError(f"hard is {hard!r}. Expected True or False.")
        self.hard = hard
        self.temperature = checked_positive("temperature", temperature)
        self.floor = checked_positive("floor", floor)

    def forward_softmax(
        self,
        latent: Tensor,
        nearest: Tensor,
        listed: Projection,
        training: bool,
        state: Tensor,
        seed: Any,
    ) -> Tensor:
        softness = ops.convert_to_tensor(self.pace.softness(state), "float32")
        warmth = ops.stop_gradient(self.temperature * softness)
        temperature = ops.maximum(warmth, self.floor)
        if not training:
            return as_if(nearest, expectation(latent, nearest, listed, temperature)[1])
        is_noisy = warmth > self.floor
        noise = _gumbel((*latent.shape, len(listed)), seed)
        noise = ops.where(is_noisy, noise, ops.zeros_like(noise))
        logits, expected = expectation(latent, nearest, listed, temperature, noise)
        if self.hard:
            value = _most_likely(logits, listed)
        else:
            # Rounding must not lead beyond the ends.
            value = clamp(nearest + expected * listed.mean_gap, listed.low, listed.high)
        return as_if(ops.where(is_noisy, value, nearest), expected)

    def next_state(self, state: Tensor) -> Tensor:
        return self.pace.next_state(state)

    def get_config(self) -> dict[str, Any]:
        return {
            "hard": self.hard,
            "temperature": self.temperature,
            "floor": self.floor,
            **self.pace.get_config(),
        }


def _most_likely(logits: Tensor, listed: Projection) -> Tensor:
    """Return the listed value with the largest logit of each element, exactly."""
    drawn = ops.one_hot(ops.argmax(logits, axis=-1), len(listed), dtype="float32")
    normalized = ops.sum(drawn * ops.convert_to_tensor(listed.normalized, "float32"), axis=-1)
    # Back on the list to the bit.
    return listed.nearest(listed.middle + normalized * listed.mean_gap)


def _gumbel(shape: tuple[int, ...], seed: Any) -> Tensor:
    uniform = keras.random.uniform(shape, dtype="float32", seed=seed)
    return -ops.log(-ops.log(ops.clip(uniform, _LEAST_UNIFORM, _MOST_UNIFORM)))
