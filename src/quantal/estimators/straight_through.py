"""Hard in the forward pass: the nearest value, with the gradient of a smooth function."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import ops

from quantal._core.estimator import Estimator, as_if, clamp, inward, positive
from quantal._core.tensors.projection import Projection


def _within_gap(latent: Any, listed: Projection) -> tuple[Any, Any, Any]:
    """(middle, half width, position in -1..1) of the gap around each latent.

    Beyond an end of the list the last gap goes on, and the position with it.
    """
    lower, upper = listed.lower(latent), listed.upper(latent)
    half = (upper - lower) * 0.5
    middle = lower + half
    safe = ops.where(half > 0, half, 1.0)
    # Held where every surrogate is long flat: infinity times zero would be NaN.
    return middle, half, ops.clip((latent - middle) / safe, -1e6, 1e6)


def _identity(latent: Any, listed: Projection, sharpness: float) -> Any:
    return inward(latent, listed.low, listed.high)


def _held(x: Any, low: Any, high: Any) -> Any:
    """`x` within the ends, derivative 1 from end to end and 0 beyond.

    Not ops.clip: at the ends themselves its derivative differs between backends.
    """
    inside = ops.logical_and(x >= low, x <= high)
    return ops.where(inside, x, ops.stop_gradient(clamp(x, low, high)))


def _clip(latent: Any, listed: Projection, sharpness: float) -> Any:
    return _held(latent, listed.low, listed.high)


def _tanh(latent: Any, listed: Projection, sharpness: float) -> Any:
    middle, half, position = _within_gap(latent, listed)
    return middle + half * ops.tanh(sharpness * position)


def _approx_sign(latent: Any, listed: Projection, sharpness: float) -> Any:
    middle, half, position = _within_gap(latent, listed)
    position = _held(position, -1.0, 1.0)
    return middle + half * (2 * position - position * ops.abs(position))


def _swish_sign(latent: Any, listed: Projection, sharpness: float) -> Any:
    middle, half, position = _within_gap(latent, listed)
    scaled = sharpness * position
    gate = ops.sigmoid(scaled)
    return middle + half * (2 * gate * (1 + scaled * (1 - gate)) - 1)


_SURROGATES: dict[str, tuple[Callable[[Any, Projection, float], Any], float | None]] = {
    "identity": (_identity, None),
    "clip": (_clip, None),
    "tanh": (_tanh, 1.0),
    "approx_sign": (_approx_sign, None),
    "swish_sign": (_swish_sign, 5.0),
}


@keras.saving.register_keras_serializable(package="quantal")
class StraightThrough(Estimator):
    """The nearest listed value, with the gradient of a simple function of the latent.

    Use it first: the default, right for deep networks and for vectors whose elements
    can be told apart by the gradient. It needs no state and no schedule.

    Forward, in training and in inference: the nearest listed value `P(u)`.

    Gradient, with `m` the middle and `h` the half width of the gap of the list that
    holds the latent `u`, and `z = (u - m) / h` (for `[-1, 1]`, `z` is `u`):

    | surrogate | function | derivative |
    |---|---|---|
    | `"identity"` | `u` | 1 within the list's ends; beyond them 1 for gradients that lead back, 0 for those that lead out |
    | `"clip"` | `min(max(u, low), high)` | 1 within the ends, 0 beyond |
    | `"tanh"` | `m + h tanh(b z)` | `b (1 - tanh(b z)^2)` |
    | `"approx_sign"` | `m + h (2 z - z abs(z))`, held at `z = ±1` | `2 - 2 abs(z)` for `abs(z) <= 1`, else 0 |
    | `"swish_sign"` | `m + h (2 s (1 + b z (1 - s)) - 1)`, `s = sigmoid(b z)` | `b (2 - b z tanh(b z / 2)) / (1 + cosh(b z))` |

    All but the first let a latent beyond the ends be stuck or nearly so, and
    `approx_sign` passes nothing at a listed value: they are for comparison with the
    literature. Memory: none beyond the latent's.

    Args:
        surrogate: A name of the table.
        sharpness: `b` of the table, positive; None for 1 with `"tanh"`, 5 with
            `"swish_sign"`. The others have none.

    Raises:
        ValueError: The surrogate is not known, or sharpness is not positive or is
            given to a surrogate without one.

    Sources: Hinton's lecture 15b (2012) and Bengio, Léonard, Courville 2013
    (straight-through); Courbariaux et al. 2016 (clip); Gong et al., "DSQ", ICCV 2019
    (tanh in each gap); Liu et al., "Bi-Real Net", ECCV 2018 (approx_sign); Darabi et
    al., "BNN+", 2018 (swish_sign).

    >>> StraightThrough("tanh", sharpness=2.0)
    StraightThrough(surrogate='tanh', sharpness=2.0)
    """  # noqa: E501 (a table)

    def __init__(self, surrogate: str = "identity", sharpness: float | None = None) -> None:
        if surrogate not in _SURROGATES:
            raise ValueError(
                f"surrogate is {surrogate!r}. Expected one of {', '.join(_SURROGATES)}. "
                "Take 'identity' if unsure."
            )
        self._function, default = _SURROGATES[surrogate]
        if sharpness is not None and (default is None or not sharpness > 0):
            raise ValueError(
                f"sharpness is {sharpness!r} for the surrogate {surrogate!r}. Expected a "
                "positive number for 'tanh' and 'swish_sign', None for the others. "
                "Leave it out for the default."
            )
        self.surrogate = surrogate
        self.sharpness = default if sharpness is None else float(sharpness)

    def forward(
        self, latent: Any, listed: Projection, training: bool, state: Any, seed: Any = None
    ) -> Any:
        surrogate = self._function(latent, listed, self.sharpness or 1.0)
        return as_if(listed.nearest(latent), surrogate)

    def get_config(self) -> dict[str, Any]:
        return {"surrogate": self.surrogate, "sharpness": self.sharpness}


def shares_of(
    latent: Any, nearest: Any, listed: Projection, temperature: Any, noise: Any = 0.0
) -> tuple[Any, Any]:
    """(logits, expectation) of a softmax over the squared distances in mean gaps.

    The logits, one for each value in ascending order along a last axis, are before the
    temperature, with the noise added. The expectation is of the value under
    `softmax(logits / temperature)`, seen from the nearest value, in mean gaps; its
    derivative is the one in the list's own units.
    """

    def place_of(numbers: Any) -> Any:
        # In mean gaps from the middle, so that squares neither overflow nor vanish.
        return ops.clip((numbers - listed.middle) / listed.mean_gap, -1e6, 1e6)

    # The mean gap cancels in the derivative; of a huge list it would overflow first.
    place = as_if(place_of(latent), ops.clip(latent, -_LARGEST, _LARGEST))
    places = ops.convert_to_tensor(listed.places, "float32")
    logits = noise - ops.square(ops.expand_dims(place, -1) - places)
    shares = ops.softmax(logits / temperature, axis=-1)
    # Seen from the nearest value, where most of the share is: nothing cancels.
    aside = places - ops.expand_dims(place_of(nearest), -1)
    return logits, ops.sum(shares * aside, axis=-1)


_LARGEST = float(np.finfo(np.float32).max)


@keras.saving.register_keras_serializable(package="quantal")
class ArgmaxStraightThrough(Estimator):
    """The nearest listed value, with the gradient of a softmax over the distances.

    Use it for short lists with uneven gaps: the gradient is large where several
    values compete and small where one is clearly nearest.

    Forward, in training and in inference: the nearest listed value.

    Gradient: that of `E(u) = sum_k p_k v_k` with `p = softmax(-((u - v_k) / g)^2 / T)`
    and `g` the mean gap, which is the true Jacobian of the softmax:
    `2 / (T g^2) * Var_p(v)`. For `[-1, 1]` this is `E(u) = tanh(u / (2 T))`.

    **Memory and time grow with the list's length**: K numbers per element, in training.
    For lists of more than some tens of values take `StraightThrough`.

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
        self.temperature = positive("temperature", temperature)

    def forward(
        self, latent: Any, listed: Projection, training: bool, state: Any, seed: Any = None
    ) -> Any:
        nearest = listed.nearest(latent)
        if len(listed) == 1:
            return as_if(nearest, inward(latent, listed.low, listed.high))

        _, expected = shares_of(latent, nearest, listed, self.temperature)
        return as_if(nearest, expected)

    def get_config(self) -> dict[str, Any]:
        return {"temperature": self.temperature}
