"""How gradients pass: what the forward pass sees and what derivative goes back.

Every estimator is `as_if(value, surrogate)`: exactly the value going forward, the
surrogate's derivative going back. So one function of the latent documents an
estimator, draws its picture and is its finite-difference test.

Latents come in the units of the list. An estimator is used by a layer, or by hand:

>>> from keras import ops
>>> latent = ops.convert_to_tensor([0.2, -0.9])
>>> ops.convert_to_numpy(StraightThrough()(latent, [1, -1, 0.5, -0.5]))
array([ 0.5, -1. ], dtype=float32)
"""

import abc
from collections.abc import Callable
from typing import Any, Self

import keras
import numpy as np
from keras import ops

from quantal import schedules
from quantal.projection import Projection, projection_of
from quantal.values import Values, ValuesLike


def as_if(value: Any, surrogate: Any) -> Any:
    """Exactly `value` going forward, the derivative of `surrogate` going back.

    Not `latent + stop_gradient(value - latent)`: that sum rounds, and gives numbers
    that are not in the list (20 % of the float32 results for the list [±0.1, ±0.3]).

    Args:
        value: A tensor.
        surrogate: A tensor of the same shape and dtype, finite where `value` matters.

    >>> from keras import ops
    >>> float(as_if(ops.ones(()), ops.zeros(())))
    1.0
    """
    return ops.stop_gradient(value) + (surrogate - ops.stop_gradient(surrogate))


def inward(x: Any, low: Any, high: Any) -> Any:
    """`x` held within the ends; gradients pass as they are, but none that leads out.

    Within `low <= x <= high` the derivative is 1. Beyond an end it is 1 for a gradient
    whose descent leads back, and 0 for one whose descent leads further out: a latent
    can neither drift away nor be stuck outside. Ends that are tensors get no gradient.

    >>> from keras import ops
    >>> ops.convert_to_numpy(inward(ops.convert_to_tensor([-3.0, 0.5]), -1.0, 1.0))
    array([-1. ,  0.5], dtype=float32)
    """
    if not isinstance(low, float):
        # A custom gradient may not look at other tensors than its arguments.
        width = ops.stop_gradient(ops.maximum(high - low, _SMALLEST_WIDTH))
        low = ops.stop_gradient(low)
        return low + width * inward((x - low) / width, 0.0, 1.0)

    @ops.custom_gradient
    def held(x: Any) -> Any:
        def gradient(*arguments: Any, upstream: Any = None) -> Any:
            # Adding zeros makes TensorFlow's sparse gradients (of an Embedding) dense.
            upstream = ops.add(arguments[0] if upstream is None else upstream, ops.zeros_like(x))
            # Descent moves against the gradient: from above the list down if it is > 0.
            leads_out = ops.logical_or(
                ops.logical_and(x > high, upstream < 0),
                ops.logical_and(x < low, upstream > 0),
            )
            return ops.where(leads_out, ops.zeros_like(upstream), upstream)

        return ops.clip(x, low, high), gradient

    return held(x)


_SMALLEST_WIDTH = 1e-30


class Estimator(abc.ABC):
    """What the forward pass sees of a latent, and what gradient goes back to it.

    Estimators have no state of their own, so one may serve many parameters. One that
    changes during training keeps its numbers in a non-trainable variable of each
    parameter: `initial_state` says how it starts, `next_state` how a training step
    moves it.

    Subclasses define `forward`; those with arguments extend `get_config`.
    """

    initial_state: tuple[float, ...] | None = None
    """The parameter's state before the first training step, or None for no state."""

    def __call__(
        self, latent: Any, values: ValuesLike, training: bool = False, state: Any = None
    ) -> Any:
        """What the forward pass sees: the latent's shape, float32.

        Args:
            latent: Tensor of any shape, in the units of the list; read as float32.
            values: The list.
            training: In training a soft estimator shows its soft value; otherwise
                every estimator shows the nearest listed value. The gradient is the
                same in both.
            state: The parameter's state, float32, for an estimator that has one; None
                stands for `initial_state`.

        Returns:
            A float32 tensor of the latent's shape.
        """
        values = values if isinstance(values, Values) else Values(values)
        latent = ops.cast(ops.convert_to_tensor(latent), "float32")
        listed = projection_of(values, len(latent.shape))
        if state is None and self.initial_state is not None:
            state = ops.convert_to_tensor(self.initial_state, "float32")
        return self.forward(latent, listed, bool(training), state)

    @abc.abstractmethod
    def forward(self, latent: Any, listed: Projection, training: bool, state: Any) -> Any:
        """As `__call__`, on arguments already in form and the list as a projection."""

    def next_state(self, state: Any) -> Any:
        """The state after one more training step."""
        return state

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments, for saving."""
        return {}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        """The estimator that `get_config` described."""
        return cls(**config)

    def __repr__(self) -> str:
        arguments = ", ".join(f"{name}={value!r}" for name, value in self.get_config().items())
        return f"{type(self).__name__}({arguments})"


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


def _clamp(x: Any, low: Any, high: Any) -> Any:
    """ops.clip, for ends that may be tensors."""
    return ops.minimum(ops.maximum(x, low), high)


def _held(x: Any, low: Any, high: Any) -> Any:
    """`x` within the ends, derivative 1 from end to end and 0 beyond.

    Not ops.clip: at the ends themselves its derivative differs between backends.
    """
    inside = ops.logical_and(x >= low, x <= high)
    return ops.where(inside, x, ops.stop_gradient(_clamp(x, low, high)))


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

    def forward(self, latent: Any, listed: Projection, training: bool, state: Any) -> Any:
        surrogate = self._function(latent, listed, self.sharpness or 1.0)
        return as_if(listed.nearest(latent), surrogate)

    def get_config(self) -> dict[str, Any]:
        return {"surrogate": self.surrogate, "sharpness": self.sharpness}


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
        self.temperature = _positive("temperature", temperature)

    def forward(self, latent: Any, listed: Projection, training: bool, state: Any) -> Any:
        nearest = listed.nearest(latent)
        if len(listed) == 1:
            return as_if(nearest, inward(latent, listed.low, listed.high))

        def place_of(numbers: Any) -> Any:
            # In mean gaps from the middle, so that squares neither overflow nor vanish.
            place = (numbers - listed.middle) / listed.mean_gap
            return ops.expand_dims(ops.clip(place, -1e6, 1e6), -1)

        places = ops.convert_to_tensor(listed.places, "float32")
        shares = ops.softmax(-ops.square(place_of(latent) - places) / self.temperature, axis=-1)
        # Seen from the nearest value, where most of the share is: nothing cancels.
        expected = ops.sum(shares * (places - place_of(nearest)), axis=-1) * listed.mean_gap
        return as_if(nearest, expected)

    def get_config(self) -> dict[str, Any]:
        return {"temperature": self.temperature}


class _Hardening(Estimator):
    """Soft at first, hard in the end: a soft value between the latent and the list.

    The state is (training steps so far, step at which the value is hard). The second
    is 0 where no callback has set it: then the pace needs no end.
    """

    initial_state = (0.0, 0.0)

    def __init__(self, half_life: float = 500.0, steepness: float = 10.0) -> None:
        self.half_life = _positive("half_life", half_life)
        self.steepness = _positive("steepness", steepness)

    def softness(self, state: Any) -> Any:
        """1 where the latent passes as it is, 0 where only listed values do."""
        step, end = state[0], state[1]
        fraction = ops.minimum(step / ops.maximum(end, 1.0), 1.0)
        paced = schedules.sigmoid(fraction, self.steepness)
        # At fraction 1 rounding must not leave a rest of softness.
        paced = ops.where(fraction < 1.0, ops.maximum(paced, 0.0), ops.zeros_like(paced))
        return ops.where(end > 0.0, paced, schedules.hyperbolic(step, self.half_life))

    def forward(self, latent: Any, listed: Projection, training: bool, state: Any) -> Any:
        value = listed.nearest(latent)
        if training:
            value = self.soft(latent, value, listed, ops.stop_gradient(self.softness(state)))
        return as_if(value, inward(latent, listed.low, listed.high))

    @abc.abstractmethod
    def soft(self, latent: Any, nearest: Any, listed: Projection, softness: Any) -> Any:
        """The value of the forward pass in training; `nearest` where softness is 0."""

    def next_state(self, state: Any) -> Any:
        return ops.stack([state[0] + 1.0, state[1]])

    def get_config(self) -> dict[str, Any]:
        return {"half_life": self.half_life, "steepness": self.steepness}


@keras.saving.register_keras_serializable(package="quantal")
class Annealed(_Hardening):
    """PARQ's proximal map: pulled to the nearest value, softly at first, then fully.

    Use it for one vector that is the whole model, for correlated inputs and for lists
    with uneven gaps, where straight-through gets stuck. In deep networks with batch
    normalisation, statistics are learned on soft weights: give it the callback below
    or take `StraightThrough`.

    Forward in training, with the listed neighbours `a <= u <= b` of the latent `u` and
    the inverse slope `r` between 1 and 0:
    `min(max((a + b) / 2 + (u - (a + b) / 2) / r, a), b)`. At `r = 1` that is `u`, held
    within the list; at `r = 0` the nearest listed value. In inference: always the
    nearest listed value.

    Gradient: the identity, as in `StraightThrough`, taken at the soft value; no factor
    `1 / r`.

    Pace: without a callback `r = 1 / (1 + t / half_life)` at training step `t`, which
    needs no end, hardens most in the beginning and never quite finishes; what is
    read, saved and predicted is on the list all the same. With
    `quantal.callbacks.PaceToRun`, `r` follows PARQ's sigmoid schedule and is 0 from
    the step that the callback sets. A step is one call of the layer in training: a
    layer called twice in a step hardens twice as fast.

    State: two numbers per parameter.

    Args:
        half_life: Training steps until `r` is 1/2 without a callback; positive.
        steepness: Of the sigmoid schedule, positive; 1 to 20 are usual, up to 75 for
            large networks.

    Raises:
        ValueError: An argument is not positive.

    Source: Jin et al., "PARQ: Piecewise-Affine Regularized Quantization", ICML 2025,
    for any list.

    >>> Annealed(half_life=200)
    Annealed(half_life=200.0, steepness=10.0)
    """

    def soft(self, latent: Any, nearest: Any, listed: Projection, softness: Any) -> Any:
        lower, upper = listed.lower(latent), listed.upper(latent)
        middle = lower + (upper - lower) * 0.5
        slope = ops.maximum(softness, 1e-30)
        mapped = ops.minimum(ops.maximum(middle + (latent - middle) / slope, lower), upper)
        return ops.where(softness > 0.0, mapped, nearest)


@keras.saving.register_keras_serializable(package="quantal")
class BinaryRelax(_Hardening):
    """A mixture of the latent and its nearest value that ends at the nearest value.

    Use it where `Annealed` hardens too abruptly near the midpoints: every latent is
    pulled by the same share.

    Forward in training: `r u + (1 - r) P(u)`, with the latent `u` held within the list
    and `P(u)` its nearest value. In inference: `P(u)`.

    Gradient, pace, state and arguments are those of `Annealed`; without a callback
    `r = 1 / (1 + lambda)` with `lambda = t / half_life`.

    Raises:
        ValueError: An argument is not positive.

    Source: Yin et al., "BinaryRelax: A Relaxation Approach for Training Deep Neural
    Networks with Quantized Weights", SIAM J. Imaging Sciences 2018, for any list.

    >>> BinaryRelax()
    BinaryRelax(half_life=500.0, steepness=10.0)
    """

    def soft(self, latent: Any, nearest: Any, listed: Projection, softness: Any) -> Any:
        held = _clamp(latent, listed.low, listed.high)
        return _clamp(softness * held + (1 - softness) * nearest, listed.low, listed.high)


def _positive(name: str, number: float) -> float:
    if isinstance(number, bool) or not isinstance(number, (int, float, np.number)):
        raise TypeError(f"{name} is {number!r}. Expected a positive number. Give, say, 1.0.")
    if not (number > 0 and np.isfinite(number)):
        raise ValueError(f"{name} is {number!r}. Expected a positive number. Give, say, 1.0.")
    return float(number)


_BY_NAME: dict[str, type[Estimator]] = {
    "straight_through": StraightThrough,
    "annealed": Annealed,
    "binary_relax": BinaryRelax,
    "argmax_straight_through": ArgmaxStraightThrough,
}


def get(identifier: "str | dict[str, Any] | Estimator") -> Estimator:
    """An estimator from its name, its saved form or itself.

    Args:
        identifier: `"straight_through"`, `"annealed"`, `"binary_relax"`,
            `"argmax_straight_through"`, what `keras.saving.serialize_keras_object`
            gave, or an estimator.

    Raises:
        ValueError: The name is not known.
        TypeError: It is none of these.

    >>> get("annealed")
    Annealed(half_life=500.0, steepness=10.0)
    """
    if isinstance(identifier, Estimator):
        return identifier
    if isinstance(identifier, dict):
        identifier = keras.saving.deserialize_keras_object(identifier)
        if isinstance(identifier, Estimator):
            return identifier
    if isinstance(identifier, str):
        if identifier in _BY_NAME:
            return _BY_NAME[identifier]()
        raise ValueError(
            f"estimator is {identifier!r}. Expected one of {', '.join(_BY_NAME)}, or an "
            "estimator. For other settings give the estimator itself, for example "
            "quantal.estimators.Annealed(half_life=200)."
        )
    raise TypeError(
        f"estimator is {identifier!r} of type {type(identifier).__name__}. Expected a "
        f"name ({', '.join(_BY_NAME)}) or an instance of quantal.estimators.Estimator. "
        "Give an instance, not a class."
    )
