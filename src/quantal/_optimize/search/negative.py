"""The negative of an objective is small where the objective is large."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from quantal.objectives.magnitude import Magnitude
from quantal.objectives.objective import Objective
from quantal.objectives.problem import Floats
from quantal.objectives.quadratic import Quadratic
from quantal.objectives.sums import Sums


def negative_of(objective: Objective) -> Objective:
    """Return the negative of an objective, with what is known of its structure.

    Raises:
        ValueError: The objective's structure, such as that of a largest error, is not that of its
            negative.
    """
    if type(objective) is Quadratic:
        return Quadratic(-objective.matrix, -objective.vector, -objective.constant)
    if type(objective) is Sums:
        return Sums(objective.matrix, _negative(objective.function), objective.constant)
    if objective.black_box:
        return _Negative(objective)
    if isinstance(objective, Magnitude):
        raise ValueError(
            "maximize is True, and the objective is a Magnitude, whose loss is minus the "
            "magnitude. Expected maximize=False for the largest magnitude. Leave maximize out; for "
            "the smallest magnitude give the function lambda vectors: -objective(vectors)."
        )
    raise ValueError(
        f"maximize is True, and the objective is a {type(objective).__name__}, whose method finds "
        "the smallest loss alone. Expected a function, Quadratic or Sums. Give the function "
        "lambda vectors: objective(vectors)."
    )


class _Negative(Objective):
    """A negative of an objective of which values and gradients are known."""

    def __init__(self, objective: Objective) -> None:
        self._objective = objective

    def __call__(self, vectors: ArrayLike) -> Floats:
        return -np.asarray(self._objective(vectors), np.float64)

    def __len__(self) -> int:
        return len(self._objective)

    def gradients(self, vectors: Floats) -> Floats | None:
        gradients = self._objective.gradients(vectors)
        return None if gradients is None else -gradients


def _negative(function: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda sums: -np.asarray(function(sums), np.float64)
