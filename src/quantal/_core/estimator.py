"""What every estimator is made of: `as_if`, the ends of the list, the class."""

import abc
from collections.abc import Sequence
from typing import Any, Self

import numpy as np
from keras import ops

from quantal._core.numbers.values import Values, ValuesLike
from quantal._core.tensors.projection import Projection, projection_of


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


@ops.custom_gradient
def pulled(x: Any, direction: Any) -> Any:
    """`x`; to its gradient is added `direction` times the gradient's root mean square.

    So the pull keeps its strength next to the loss's gradient, whatever the loss's
    scale. Descent goes against `direction`, which gets no gradient.

    Args:
        x: A tensor.
        direction: A tensor of the same shape and dtype.

    >>> from keras import ops
    >>> ops.convert_to_numpy(pulled(ops.ones(2), ops.zeros(2)))
    array([1., 1.], dtype=float32)
    """

    def gradient(*arguments: Any, upstream: Any = None) -> Any:
        # Adding zeros makes TensorFlow's sparse gradients (of an Embedding) dense.
        upstream = ops.add(arguments[0] if upstream is None else upstream, ops.zeros_like(x))
        # Relative to the largest, so that squares neither overflow nor vanish. Not ops.max:
        # PyTorch's compiler cannot read it.
        largest = ops.maximum(ops.amax(ops.abs(upstream)), _SMALLEST_WIDTH)
        strength = largest * ops.sqrt(ops.mean(ops.square(upstream / largest)))
        return upstream + strength * direction, ops.zeros_like(direction)

    return ops.add(x, ops.zeros_like(x)), gradient


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

    random: bool = False
    """Whether the forward pass draws random numbers in training, and so needs a seed."""

    def __call__(
        self,
        latent: Any,
        values: ValuesLike,
        training: bool = False,
        state: Any = None,
        seed: Any = None,
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
            seed: For an estimator that draws random numbers: an integer, which draws
                the same ones every time, or a `keras.random.SeedGenerator`. None takes
                Keras's own generator, which JAX cannot compile.

        Returns:
            A float32 tensor of the latent's shape.
        """
        values = values if isinstance(values, Values) else Values(values)
        latent = ops.cast(ops.convert_to_tensor(latent), "float32")
        listed = projection_of(values, len(latent.shape))
        if state is None and self.initial_state is not None:
            state = ops.convert_to_tensor(self.initial_state, "float32")
        return self.forward(latent, listed, bool(training), state, seed)

    @abc.abstractmethod
    def forward(
        self, latent: Any, listed: Projection, training: bool, state: Any, seed: Any = None
    ) -> Any:
        """As `__call__`, on arguments already in form and the list as a projection."""

    def next_state(self, state: Any) -> Any:
        """The state after one more training step."""
        return state

    def suited_to(self, shape: Sequence[int], learnable: bool = False) -> "Estimator":
        """The estimator of a parameter of this shape: itself, but for `Automatic`.

        Args:
            shape: Of the latent.
            learnable: Whether its list is learned, too.
        """
        return self

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


def clamp(x: Any, low: Any, high: Any) -> Any:
    """ops.clip, for ends that may be tensors."""
    return ops.minimum(ops.maximum(x, low), high)


def aside(latent: Any, nearest: Any, listed: Projection) -> Any:
    """How far latents lie from their nearest values, in half gaps: -1 to 1, no gradient."""
    half = ops.maximum((listed.upper(latent) - listed.lower(latent)) * 0.5, _SMALLEST_WIDTH)
    return (clamp(ops.stop_gradient(latent), listed.low, listed.high) - nearest) / half


def not_negative(name: str, number: float) -> float:
    """The number as a float, if it is 0 or above and finite."""
    if isinstance(number, bool) or not isinstance(number, (int, float, np.number)):
        raise TypeError(f"{name} is {number!r}. Expected a number from 0. Give, say, 0.1.")
    if not (number >= 0 and np.isfinite(number)):
        raise ValueError(f"{name} is {number!r}. Expected a number from 0. Give, say, 0.1.")
    return float(number)


def positive(name: str, number: float) -> float:
    """The number as a float, if it is one above 0 and finite."""
    if isinstance(number, bool) or not isinstance(number, (int, float, np.number)):
        raise TypeError(f"{name} is {number!r}. Expected a positive number. Give, say, 1.0.")
    if not (number > 0 and np.isfinite(number)):
        raise ValueError(f"{name} is {number!r}. Expected a positive number. Give, say, 1.0.")
    return float(number)
