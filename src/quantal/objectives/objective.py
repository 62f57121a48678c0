"""`Objective` is the abstract class of what `quantal.search` minimizes."""

import abc
from collections.abc import Callable
from typing import ClassVar

from numpy.typing import ArrayLike

from quantal.objectives._algorithms.compiled_loop import CompiledLoop
from quantal.objectives._algorithms.deltas import DeltaEvaluator
from quantal.objectives._algorithms.solution import Solution
from quantal.objectives.groups import Groups
from quantal.objectives.problem import Floats, Integers, Problem


class Objective(abc.ABC):
    """An objective gives the loss of vectors, and says what is known of its structure.

    Only `__call__` and `__len__` have to be written. Each other method returns "nothing known"
    by default, and each that is overridden makes `quantal.search` faster or lets it prove more.

    Attributes:
        black_box: Whether only values and gradients are known. `quantal.search` then tests
            whether the loss is quadratic on the lists, and starts from descents along
            the gradient. Set it to False where deltas or an exact method are given.
        exact_is_fast: Whether `exact` takes no longer than a few steps of a search, so that it
            is called first and also with a budget of evaluations alone.

    >>> import numpy as np, quantal
    >>> class Distance(Objective):
    ...     def __len__(self):
    ...         return 3
    ...     def __call__(self, vectors):
    ...         return np.abs(vectors - np.array([0.9, -1.2, 0.1])).max(axis=1)
    >>> quantal.search(Distance(), [1, -1, 0], verbose=0).vector
    array([ 1., -1.,  0.])
    """

    black_box: ClassVar[bool] = True
    exact_is_fast: ClassVar[bool] = False

    @abc.abstractmethod
    def __call__(self, vectors: ArrayLike) -> Floats:
        """Return the losses (batch,) of vectors (batch, n); NaN is worse than any number."""

    @abc.abstractmethod
    def __len__(self) -> int:
        """Return the length n of the vectors."""

    def gradients(self, vectors: Floats) -> Floats | None:
        """Return the gradient (batch, n) of each vector's loss; None where there is none."""
        return None

    def deltas(self, problem: Problem) -> DeltaEvaluator | None:
        """Return an evaluator of small changes; None to evaluate whole vectors."""
        return None

    def compiled_loop(self, problem: Problem, seed: int) -> CompiledLoop | None:
        """Return a compiled loop of steps, for problems without constraints; None for none.

        Args:
            problem: The lists, and which elements are fixed.
            seed: The seed of the random numbers that the loop keeps.
        """
        return None

    def symmetry(self, problem: Problem) -> Integers | None:
        """Return the code of each value's negative, (n, K), if `v` and `-v` have the same loss.

        None means that they may differ, or that a negative is not in its list.
        """
        return None

    def bound(self, problem: Problem) -> float | None:
        """Return a number below which no loss of the lists' vectors lies; None if none is known."""
        return None

    def exact(
        self,
        problem: Problem,
        seconds: float,
        start: Integers,
        on_improvement: Callable[[Integers], None],
    ) -> Solution | None:
        """Return the best vector, or the best after some seconds and a bound.

        Args:
            problem: The lists, and which elements are fixed.
            seconds: When the method has to end; may be infinity.
            start: A good assignment (n,) to begin with.
            on_improvement: Is called with assignments (n,) that are better for the method.

        Returns:
            A `Solution`, or None if the method does not apply.
        """
        return None

    def rounding(self, problem: Problem) -> float:
        """Return the difference of two losses below which they may be the same."""
        return 0.0

    def reduced(self, groups: Groups) -> "Objective | None":
        """Return this objective as one of the groups' values.

        `groups.expansion()` takes these values to vectors. None means that the structure is
        lost: whole vectors are evaluated then.
        """
        return None
