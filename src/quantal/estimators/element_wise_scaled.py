"""Element-wise gradient scaling: straight-through, corrected for where the latent lies."""

from typing import Any

import keras
from keras import ops

from quantal._core.estimator import Estimator
from quantal._core.numbers.checks import checked_not_negative
from quantal._core.tensors.blocks import elementwise
from quantal._core.tensors.gradients import as_if_inward, stretched
from quantal._core.tensors.projection import Projection
from quantal._core.types import Tensor


@keras.saving.register_keras_serializable(package="quantal")
class ElementWiseScaled(Estimator):
    """EWGS scales straight-through's gradient by where each latent lies in its gap.

    Use it in deep networks in place of `StraightThrough` where training at few bits
    stalls: it treats latents with the same value by where they lie around it. A latent that
    has passed its value in the direction in which the gradient drives it is slowed down,
    one that is yet to reach it is sped up.

    Forward, in training and in inference: the nearest listed value `P(u)`.

    Gradient, with `g` that of the value: `g (1 + strength sign(g) (u - P(u)) / gap)`,
    where `gap` is the width of the gap of the list that holds the latent `u`. So the
    distance is at most 1/2 and the factor between `1 - strength / 2` and
    `1 + strength / 2`. Beyond the ends of the list it is 1 for gradients that lead back
    and 0 for those that lead out. Not a function of `u` alone: no surrogate has this
    derivative.

    The published distance is in units of the whole range. For K evenly spaced values
    `strength` is the published delta divided by K - 1; for two values they are the same.
    In gaps the correction is as strong in a narrow gap as in a wide one.

    Memory: none beyond the latent's.

    Args:
        strength: From 0, which is `StraightThrough`. From 2 on gradients turn round.

    Raises:
        ValueError: The strength is negative.

    Source: Lee, Kim, Ham, "Network Quantization with Element-wise Gradient Scaling",
    CVPR 2021, for any list; the published delta is 0.001 to 0.2, or is estimated from
    the Hessian's trace.

    >>> ElementWiseScaled()
    ElementWiseScaled(strength=0.1)
    """

    def __init__(self, strength: float = 0.1) -> None:
        self.strength = checked_not_negative("strength", strength)

    def forward(
        self, latent: Tensor, listed: Projection, training: bool, state: Tensor, seed: Any = None
    ) -> Tensor:
        fixed, ends = ops.stop_gradient(latent), (listed.low, listed.high)

        def seen(latent: Tensor) -> tuple[Tensor, Tensor]:
            gap = listed.around(latent)
            return gap.nearest, (0.5 * self.strength) * gap.offsets(latent, *ends)

        # Elements of channels with lists of their own are no part of a block by themselves.
        nearest, share = elementwise(seen, fixed) if isinstance(ends[0], float) else seen(fixed)
        return as_if_inward(nearest, stretched(latent, share), *ends)

    def get_config(self) -> dict[str, Any]:
        return {"strength": self.strength}
