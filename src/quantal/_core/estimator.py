"""The abstract estimator: what the forward pass sees of a latent, and what comes back."""

import abc
from collections.abc import Sequence
from typing import Any, NamedTuple, Self

from keras import ops

from quantal._core.numbers.values import Values, ValuesLike
from quantal._core.tensors.projection import Projection, projection_of
from quantal._core.types import Tensor


class Move(NamedTuple):
    """A move says how far each latent goes in a training step, and what is remembered of it.

    Attributes:
        latent: float32 tensor in the parameter's shape, in latent units.
        traces: What each element remembers: float32 tensors in the parameter's shape.
        state: The parameter's state: a tensor, or its numbers one by one.
    """

    latent: Tensor
    traces: Sequence[Tensor]
    state: Tensor | Sequence[Tensor]


class Estimator(abc.ABC):
    """An estimator says what the forward pass sees of a latent, and which gradient it gets.

    The nearest listed value is a step function of the latent: its derivative is zero, so
    it cannot be learned as it is. An estimator gives it the gradient of another function.
    Every one is `as_if(value, surrogate)`: exactly the value in the forward pass, the
    surrogate's derivative in the backward pass.

    Estimators have no state of their own, so one may serve many parameters. One that
    changes during training keeps its numbers in a non-trainable variable of each
    parameter: `initial_state` says how it starts, `next_state` how a training step
    moves it.

    Subclasses define `forward`; those with arguments extend `get_config`. An estimator
    of your own, with the gradient of `sin`:

    >>> from keras import ops
    >>> from quantal.estimators import Estimator, as_if
    >>> class Sine(Estimator):
    ...     def forward(self, latent, listed, training, state, seed=None):
    ...         return as_if(listed.nearest(latent), ops.sin(latent))
    >>> ops.convert_to_numpy(Sine()([0.2, -0.9], [1, -1, 0.5, -0.5]))
    array([ 0.5, -1. ], dtype=float32)
    """

    initial_state: tuple[float, ...] | None = None
    """The parameter's state before the first training step, or None for no state."""

    always_soft: bool = False
    """Whether values in training stay soft for ever; others are listed in the end."""

    has_steps: bool = False
    """Whether latents go by steps of the estimator's own size, and the optimizer's moves say only
    which way and how far in comparison; see `effective_move`. The estimator has a state then."""

    traces: int = 0
    """How many numbers each element remembers of its moves; they are 0 at first."""

    random: bool = False
    """Whether the forward pass draws random numbers in training, and so needs a seed."""

    def __call__(
        self,
        latent: Tensor,
        values: ValuesLike,
        training: bool = False,
        state: Tensor = None,
        seed: Any = None,
    ) -> Tensor:
        """Return what the forward pass sees: float32, in the latent's shape.

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
        """
        values = values if isinstance(values, Values) else Values(values)
        latent = ops.cast(ops.convert_to_tensor(latent), "float32")
        listed = projection_of(values, len(latent.shape))
        if state is None and self.initial_state is not None:
            state = ops.convert_to_tensor(self.initial_state, "float32")
        return self.forward(latent, listed, bool(training), state, seed)

    @abc.abstractmethod
    def forward(
        self, latent: Tensor, listed: Projection, training: bool, state: Tensor, seed: Any = None
    ) -> Tensor:
        """Return what the forward pass sees, with its gradient.

        Args:
            latent: float32 tensor, in the units of the list.
            listed: The list as a projection.
            training: As in `__call__`.
            state: The parameter's state, or None for an estimator without one.
            seed: As in `__call__`.
        """

    def next_state(self, state: Tensor) -> Tensor:
        """Return the state after one more call in training."""
        return state

    def effective_move(self, move: Tensor, traces: Sequence[Tensor], state: Tensor) -> Move:
        """Return how far latents go for a move of the optimizer's, where `has_steps` is true.

        The result may not depend on the size of all the optimizer's moves together, so that a
        rate ten times as large changes nothing.

        Args:
            move: What the optimizer has added to its variable: float32 tensor in the
                parameter's shape, all finite.
            traces: What each element remembers, as many tensors of that shape as `traces` says.
            state: The parameter's state before the move. `next_state` moves it on for the
                training call, with or without a move of the optimizer's.
        """
        return Move(move, traces, state)

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments, for saving."""
        return {}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        """Return the estimator that `get_config` described."""
        return cls(**config)

    def __repr__(self) -> str:
        arguments = ", ".join(f"{name}={value!r}" for name, value in self.get_config().items())
        return f"{type(self).__name__}({arguments})"
