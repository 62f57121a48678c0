"""Hard in the forward pass: straight-through, corrected for where the latent lies."""

import math
from typing import Any

import keras
import numpy as np
from keras import ops

from quantal.estimators.base import Estimator, as_if, aside, inward, not_negative
from quantal.projection import Projection


@ops.custom_gradient
def _stretched(x: Any, share: Any) -> Any:
    """`x`; its gradient `g` becomes `g (1 + share sign(g))`. `share` gets none."""

    def gradient(*arguments: Any, upstream: Any = None) -> Any:
        # Adding zeros makes TensorFlow's sparse gradients (of an Embedding) dense.
        upstream = ops.add(arguments[0] if upstream is None else upstream, ops.zeros_like(x))
        # sign(g) g is the magnitude, without a question about the sign of zero.
        return upstream + share * ops.abs(upstream), ops.zeros_like(share)

    return ops.add(x, ops.zeros_like(x)), gradient


@keras.saving.register_keras_serializable(package="quantal")
class ElementWiseScaled(Estimator):
    """EWGS: straight-through, stretched for latents on the far side of their value.

    Use it in deep networks in place of `StraightThrough` where training at few bits
    stalls: it tells latents with the same value apart by where they lie. A latent that
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
        self.strength = not_negative("strength", strength)

    def forward(
        self, latent: Any, listed: Projection, training: bool, state: Any, seed: Any = None
    ) -> Any:
        nearest = listed.nearest(latent)
        # `aside` is in half gaps.
        share = (0.5 * self.strength) * aside(latent, nearest, listed)
        return as_if(nearest, inward(_stretched(latent, share), listed.low, listed.high))

    def get_config(self) -> dict[str, Any]:
        return {"strength": self.strength}


@ops.custom_gradient
def _drawn(x: Any, direction: Any) -> Any:
    """`x`, held within float32's range; to its gradient is added `direction`."""

    def gradient(*arguments: Any, upstream: Any = None) -> Any:
        # Adding it also makes TensorFlow's sparse gradients (of an Embedding) dense.
        upstream = arguments[0] if upstream is None else upstream
        return ops.add(upstream, direction), ops.zeros_like(direction)

    return ops.clip(x, -_LARGEST, _LARGEST), gradient


_LARGEST = float(np.finfo(np.float32).max)


def _latent_unit(listed: Projection) -> Any:
    """The unit in which optimizers move latents of a list: `quantal.latents.LatentUnits`."""
    half_range = listed.high / 2 - listed.low / 2
    if isinstance(half_range, float):
        unit = 2.0 ** math.ceil(math.log2(half_range)) if half_range > 0 else 1.0
        return unit if 2.0**-100 < unit < 2.0**100 else 1.0
    # A logarithm of a power of two may come out a little above the integer.
    exponent = ops.ceil(ops.log2(ops.maximum(half_range, 2.0**-120)) - 1e-5)
    # An ulp beside the power of two changes nothing: it is a share of the gradient.
    unit = ops.power(2.0, exponent)
    usual = ops.logical_and(unit > 2.0**-100, unit < 2.0**100)
    return ops.where(usual, unit, ops.ones_like(unit))


@keras.saving.register_keras_serializable(package="quantal")
class MovingAverage(Estimator):
    """The latent is an average of minus the gradient; its nearest value is the weight.

    Use it for signs in deep networks, where the reported gains of BayesBiNN and Bop come
    from this rule: old gradients are forgotten, so that no latent drifts so far that it
    never flips again. Take `keras.optimizers.SGD` without momentum and let its learning
    rate fall, by a cosine for example: it is the rate of the average.

    Forward, in training and in inference: the nearest listed value `P(u)`.

    Gradient, of the latent `z` in latent units (`quantal.latents.LatentUnits`), with
    `g` the loss's: `g + decay (z - middle)`, with `middle` that of the list's range. So
    for `SGD(a)` and decay 1, `z - middle` becomes `(1 - a) (z - middle) - a g`: exactly
    the exponential moving average of `-g`. Other optimizers take the sum for their
    gradient; then it is an average no more. Latents move freely beyond the list's ends,
    where the decay leads back.

    For two values around 0 only the average's sign matters and neither the loss's scale
    nor the first latents do, once these are forgotten. For more values the loss's scale
    decides how far latents move: they settle on `-g / decay`.

    Left out: Bop's threshold, below which nothing flips. It needs the present value of
    every element as a state beside the latent.

    The decay is not scaled with the loss: with a loss-scaling optimizer it all but
    vanishes. It acts once for each call of the layer in a step. Of a list that is
    learned or has a scale it takes the units that the list has now.

    Memory: none beyond the latent's.

    Args:
        decay: From 0, which is straight-through with latents that nothing holds back.

    Raises:
        ValueError: The decay is negative.

    Sources: Helwegen et al., "Latent Weights Do Not Exist", NeurIPS 2019 (Bop), without
    its threshold; Meng, Bachmann, Khan, "Training Binary Neural Networks using the
    Bayesian Learning Rule", ICML 2020 (BayesBiNN), in the limit of temperature 0, where
    its published settings lie. For any list.

    >>> MovingAverage()
    MovingAverage(decay=1.0)
    """

    def __init__(self, decay: float = 1.0) -> None:
        self.decay = not_negative("decay", decay)

    def forward(
        self, latent: Any, listed: Projection, training: bool, state: Any, seed: Any = None
    ) -> Any:
        unit = _latent_unit(listed)
        # Twice divided: once for the latent's unit, once for that of its gradient.
        direction = ops.stop_gradient((latent - listed.middle) / unit * self.decay / unit)
        return as_if(listed.nearest(latent), _drawn(latent, direction))

    def get_config(self) -> dict[str, Any]:
        return {"decay": self.decay}
