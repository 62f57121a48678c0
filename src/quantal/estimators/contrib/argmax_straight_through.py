"""Argmax straight-through: the nearest value, with the gradient of a softmax."""

from typing import Any

import keras

from quantal._core.numbers.checks import checked_positive
from quantal._core.tensors.gradients import as_if
from quantal._core.tensors.projection import Projection
from quantal._core.types import Tensor
from quantal.estimators._softmax import SoftmaxEstimator, expectation


@keras.saving.register_keras_serializable(package="quantal")
class ArgmaxStraightThrough(SoftmaxEstimator):
    """Argmax straight-through shows the nearest value and passes a softmax's gradient.

    Use it for short lists with uneven gaps: the gradient is large where several
    values compete and small where one is clearly nearest.

    Forward, in training and in inference: the nearest listed value.

    Gradient: that of `E(u) = sum_k p_k v_k` with `p = softmax(-((u - v_k) / g)^2 / T)`
    and `g` the mean gap, which is the true Jacobian of the softmax:
    `2 / (T g^2) * Var_p(v)`. For `[-1, 1]` this is `E(u) = tanh(u / (2 T))`.

    **Memory and time grow with the list's length**: K numbers per element, in training. A weight
    of more than 2^28 elements times values is refused: one tensor would be more than 1 GiB.
    For longer lists than some tens of values use `StraightThrough`.

    Args:
        temperature: `T`, positive. Large: many values share the gradient. Small: only
            latents near a midpoint get one.

    Raises:
        ValueError: The temperature is not positive.

    Source: the softmax parametrisation of Ajanthan et al., "Proximal Mean-field", ICCV
    2019, with distances to the values for logits and a hard forward pass.

    >>> ArgmaxStraightThrough(temperature=0.5)
    ArgmaxStraightThrough(temperature=0.5)
    """

    def __init__(self, temperature: float = 1.0) -> None:
        self.temperature = checked_positive("temperature", temperature)

    def forward_softmax(
        self,
        latent: Tensor,
        nearest: Tensor,
        listed: Projection,
        training: bool,
        state: Tensor,
        seed: Any,
    ) -> Tensor:
        _, expected = expectation(latent, nearest, listed, self.temperature)
        return as_if(nearest, expected)

    def get_config(self) -> dict[str, Any]:
        return {"temperature": self.temperature}
