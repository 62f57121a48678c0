"""Latents that move by steps of the parameter's own size, whatever the optimizer's rate.

The optimizer moves its variable `z` as it does any other. The effective latent is another number:
what everything that reads latents reads. `z` says which way, and how far in comparison with the
steps before; the estimator says how far the effective latent goes for it
(`Estimator.effective_move`). The gradient at the effective latent is passed to `z` as it is.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray

from quantal._core.estimator import Estimator
from quantal._core.keras_internals.scopes import without_autocast
from quantal._core.tensors.backend import is_finite
from quantal._core.tensors.blocks import elementwise
from quantal._core.tensors.distributed import whole_array
from quantal._core.tensors.gradients import as_if, with_gradient_to
from quantal._core.tensors.scalars import Scalar, scalar_of, scalars_of, select, tensor_of, total
from quantal._core.types import Tensor


class Followed(NamedTuple):
    """The effective latent and the estimator's state, with all moves of the optimizer followed.

    Attributes:
        latent: float32 tensor in the parameter's shape, with the gradient to the variable that
            the optimizer moves.
        optimized: What that variable is now, without gradient.
        traces: What the estimator remembers of each element's moves, after the last one.
        state: The estimator's state after the last move: a tensor, or its scalars.
    """

    latent: Tensor
    optimized: Tensor
    traces: list[Tensor]
    state: Tensor | list[Scalar]

    def parts(self) -> list[Tensor]:
        """Return what was computed, in one list."""
        return [self.latent, tensor_of(self.state), *self.traces]

    @classmethod
    def of(cls, parts: Sequence[Tensor], optimized: Tensor) -> "Followed":
        """Return what `parts` took apart.

        Args:
            parts: What `parts` returned.
            optimized: What the optimizer's variable is now.
        """
        latent, state, *traces = parts
        return cls(latent, optimized, traces, state)


class EffectiveLatent:
    """An effective latent follows the moves of an optimizer's variable in steps of its own.

    It goes on by one move in each training step, when `advance` is called. In between it is a
    pure function of the optimizer's variable and of its own: exactly what it was at the last
    call as long as the optimizer moves nothing, and one step of the estimator's further once it
    has. So a second call of a layer, the steps of accumulated gradients and an evaluation
    count for nothing.

    Moves below 1e-19, whose squares float32 does not hold, count for none.

    Where it does not follow yet, in the beginning and after `restart`, it is the optimizer's
    variable itself.

    A penalty on the latent is computed of the effective one, and a constraint limits it.

    Args:
        optimized: The variable that the optimizer moves.
        estimator: The estimator, whose `has_steps` is true.
        state: Its state, which goes on with the latent.
        value: float32 variable of the same shape, not trainable: the effective latent at the
            last call of `advance`.
        last: Another one: the optimizer's variable then.
        follows: float32 variable of shape (), not trainable: 1 once the two are set, else 0.
        traces: float32 variables of the optimized one's shape, not trainable, as many as the
            estimator asks for.
    """

    def __init__(
        self,
        optimized: keras.Variable,
        estimator: Estimator,
        state: keras.Variable,
        value: keras.Variable,
        last: keras.Variable,
        follows: keras.Variable,
        traces: Sequence[keras.Variable] = (),
    ) -> None:
        self._optimized, self._estimator, self._state = optimized, estimator, state
        self._value, self._last, self._follows, self._traces = value, last, follows, list(traces)
        self._constraint = function_of(optimized.constraint)
        penalty = function_of(optimized.regularizer)
        optimized.regularizer = None if penalty is None else Penalty(penalty, self)
        # An optimizer would limit its own variable, of which moves alone count.
        optimized.constraint = None if self._constraint is None else Constraint(self._constraint)

    @property
    def variables(self) -> list[keras.Variable]:
        """The variables that belong to the effective latent, in the order of files."""
        return [self._value, self._last, self._follows, *self._traces]

    @property
    def of_each_element(self) -> list[keras.Variable]:
        """The variables with a number for each element, which lie where the latent lies."""
        return [self._value, self._last, *self._traces]

    def followed(self, optimized: Tensor = None) -> Followed:
        """Return the effective latent with what the optimizer has moved since the last `advance`.

        Args:
            optimized: A tensor in place of the optimizer's variable; None for the variable.
        """
        # Latents are read in float32, also where a layer of another dtype asks for the weight.
        with without_autocast():
            variable = ops.convert_to_tensor(self._optimized if optimized is None else optimized)
            state, value, last, follows, *traces = (
                ops.convert_to_tensor(v) for v in (self._state, *self.variables)
            )
        variable = ops.cast(variable, "float32")
        now = ops.stop_gradient(variable)
        is_following = scalar_of(follows) > 0.0
        # A latent that is not finite stays so, and is no move for the others.

        def moved(now: Tensor, last: Tensor) -> tuple[Tensor]:
            return (select(is_following, now - last, ops.zeros_like(last)),)

        move, are_finite = _finite(*elementwise(moved, now, last))
        has_moved = total(move, move) > 0.0
        if has_moved is False:
            latent = select(are_finite, select(is_following, value, now), math.nan)
            return Followed(as_if(latent, variable), now, traces, state)
        effective = self._estimator.effective_move(move, traces, state)
        (limited,) = elementwise(lambda *terms: (ops.add(*terms),), value, effective.latent)
        if self._constraint is not None:
            limited = ops.stop_gradient(self._constraint(limited))
        latent = select(has_moved, limited, value)
        latent = select(are_finite, select(is_following, latent, now), math.nan)
        traces = [select(has_moved, *pair) for pair in zip(effective.traces, traces, strict=True)]
        state = [
            select(has_moved, *pair)
            for pair in zip(scalars_of(effective.state), scalars_of(state), strict=True)
        ]
        # It shares no memory with a variable, which is to change before the gradient comes.
        return Followed(with_gradient_to(variable, latent), now, traces, state)

    def advance(self, followed: Followed) -> None:
        """Go on: the latent that follows the moves so far is what the next move starts from.

        Args:
            followed: What `followed` returned.
        """
        self._value.assign(ops.stop_gradient(followed.latent))
        # A copy: JAX's compiled steps take no array that two variables share.
        self._last.assign(ops.copy(followed.optimized))
        self._follows.assign(ops.ones((), "float32"))
        for variable, trace in zip(self._traces, followed.traces, strict=True):
            variable.assign(trace)
        self._state.assign(self._estimator.next_state(followed.state))

    def restart(self) -> None:
        """Let the optimizer's variable, which has been set, be the effective latent."""
        self._follows.assign(0.0)

    def restarted(self) -> list[tuple[keras.Variable, NDArray[Any]]]:
        """Return variables with what they would hold after the latents were set to what they are.

        They are the optimizer's variable, the estimator's state and the mark to begin anew.
        """
        followed = self.followed()
        tensors = (followed.latent, tensor_of(followed.state), ops.zeros(()))
        variables = (self._optimized, self._state, self._follows)
        arrays = (np.array(whole_array(tensor)) for tensor in tensors)
        return list(zip(variables, arrays, strict=True))


def _finite(move: Tensor) -> tuple[Tensor, Scalar]:
    """Return a move with 0 for what is not finite, and where it is finite."""
    squares = total(move, move)
    if isinstance(squares, float) and math.isfinite(squares):
        return move, True
    are_finite = is_finite(move)
    return ops.where(are_finite, move, 0.0), are_finite


class Penalty(keras.regularizers.Regularizer):
    """A penalty on the optimizer's variable is computed of the effective latent.

    Args:
        function: The regularizer.
        latent: The effective latent.
    """

    def __init__(self, function: Callable[[Tensor], Tensor], latent: EffectiveLatent) -> None:
        self.function, self._latent = function, latent

    def __call__(self, x: Tensor) -> Tensor:
        """Return the penalty on the effective latent that belongs to a tensor `x`."""
        return self.function(self._latent.followed(x).latent)


class Constraint(keras.constraints.Constraint):
    """A constraint of the effective latent leaves the optimizer's variable as it is.

    Args:
        function: The constraint that the effective latent obeys.
    """

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        self.function = function

    def __call__(self, w: Tensor) -> Tensor:
        """Return `w` itself."""
        return w


def function_of(regularizer_or_constraint: Any) -> Any:
    """Return the user's regularizer or constraint, which another parameter may have wrapped."""
    if isinstance(regularizer_or_constraint, (Penalty, Constraint)):
        return regularizer_or_constraint.function
    return regularizer_or_constraint
