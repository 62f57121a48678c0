"""A compiled loop makes cheap steps, and changes a state of arrays."""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from quantal.objectives.problem import Floats, Integers

LOSS, BEST_LOSS, STEP, STEP_OF_BEST = range(4)
"""The positions in `LoopState.progress`: compiled code knows no attributes that change."""


class LoopState(NamedTuple):
    """A loop state holds the arrays that a compiled loop changes in place.

    Attributes:
        codes: The current assignment, (n,).
        tabu_until: The step from which each element may change again, (n,).
        best_codes: The best assignment so far, (n,).
        progress: The current loss, the best loss, the number of steps so far and the step
            that reached the best loss, at `LOSS`, `BEST_LOSS`, `STEP` and `STEP_OF_BEST`.
    """

    codes: Integers
    tabu_until: Integers
    best_codes: Integers
    progress: Floats

    @classmethod
    def of(cls, codes: Integers, loss: float) -> "LoopState":
        """Return the state at the beginning."""
        return cls(
            codes.copy(), np.zeros(len(codes), np.int64), codes.copy(),
            np.array([loss, loss, 0.0, 0.0]),
        )  # fmt: skip

    @property
    def steps(self) -> int:
        """Return the number of steps so far."""
        return int(self.progress[STEP])

    @property
    def steps_without_improvement(self) -> int:
        """Return the number of steps since the best loss was reached."""
        return int(self.progress[STEP] - self.progress[STEP_OF_BEST])


@dataclasses.dataclass(frozen=True)
class CompiledLoop:
    """A compiled loop makes many cheap steps at once, each a change of one element.

    Attributes:
        loss: Returns the exact loss of one vector (n,).
        advance: Makes at most so many steps: (count, seed, state); it changes the state.
        operations: The approximate number of operations of one step.
        patience: The steps without a better loss after which the loop has stalled; infinity
            for never.
    """

    loss: Callable[[Floats], float]
    advance: Callable[[int, int, LoopState], None]
    operations: float
    patience: float
