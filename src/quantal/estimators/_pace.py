"""The pace at which an estimator goes from soft to hard in the course of training."""

import dataclasses
from typing import Any

from keras import ops

from quantal._core.numbers.checks import checked_positive
from quantal._core.tensors.scalars import Scalar, largest, scalars_of, select, smallest
from quantal._core.types import Tensor
from quantal.schedules import hyperbolic, sigmoid

INITIAL_STATE = (0.0, 0.0)
"""A paced parameter's state at first: (training steps so far, step at which all is hard).
The second is 0 where no callback has set it: then the pace needs no end."""


@dataclasses.dataclass(frozen=True)
class Pace:
    """A pace says how soft a parameter's values are at each training step.

    Estimators have a pace as a component; the state of each parameter says at which step
    it is.

    Args:
        half_life: Training steps until the softness is 1/2 where no end is known; positive.
        steepness: The steepness of the sigmoid towards a known end; positive.

    Raises:
        ValueError: An argument is not positive.

    >>> float(Pace(half_life=100).softness([100.0, 0.0]))
    0.5
    """

    half_life: float = 500.0
    steepness: float = 10.0

    def __post_init__(self) -> None:
        for name in ("half_life", "steepness"):
            object.__setattr__(self, name, checked_positive(name, getattr(self, name)))

    def softness(self, state: Tensor) -> Scalar:
        """Return 1 where the latent passes as it is, and 0 where only listed values do.

        Args:
            state: float32, shape (2,) or longer: the step, and the step at which all is hard or 0.
        """
        step, end = scalars_of(state)[:2]
        return softness_at(step, end, self.half_life, self.steepness)

    def next_state(self, state: Tensor) -> Tensor:
        """Return the state after one more training step."""
        return ops.stack([state[0] + 1.0, state[1]])

    def get_config(self) -> dict[str, Any]:
        """Return the arguments, for an estimator's own config."""
        return {"half_life": self.half_life, "steepness": self.steepness}


def softness_at(step: Scalar, end: Scalar, half_life: float, steepness: float) -> Scalar:
    """Return the softness of a pace at a step; see `Pace.softness`."""
    fraction = smallest(step / largest(end, 1.0), 1.0)
    paced = sigmoid(fraction, steepness)
    # At fraction 1 rounding must not leave a rest of softness.
    paced = select(fraction < 1.0, largest(paced, 0.0), 0.0)
    return select(end > 0.0, paced, hyperbolic(step, half_life))
