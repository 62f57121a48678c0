"""A quadratic model of the loss predicts what changes of values cost."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from quantal._optimize.polish.ranked_loss import RankedLoss
from quantal.objectives.problem import Floats, Integers

_PROBES = 3
"""The curvature is estimated anew from so many random changes: each costs a gradient."""
_PROBED = 0.02
"""The fraction of elements that a probe changes: few, as a step of polishing does."""
_PARTS, _LARGEST_PART, _FEWEST_PARTS = 256, 128, 16
"""The variance of the gradient is measured between 256 parts of the data, of at most 128 samples
each; fewer than 16 parts give no useful variance."""
_FLATTEST = 0.05
"""This multiple of the mean is added to each element's curvature: no element is taken for
flat because its gradient happened to vary little."""
_SMALLEST_MEAN = 1e-300
"""This number replaces a mean of 0 in a divisor."""
_MEMORY, _UPDATE = 0.9, 0.1
"""The weights of what was known and of the new secant, so that one odd step does not decide."""


class RankedMoves(NamedTuple):
    """Ranked moves take single elements to a neighbouring value, the most promising first.

    Attributes:
        order: The elements (n,), by ascending cost.
        ranks: The rank (n,) that each element would have.
        costs: The predicted rise (n,) of the loss by each move; below 0 for a gain, infinity where
            there is no move.
    """

    order: Integers
    ranks: Integers
    costs: Floats

    def applied(self, ranks: Integers, elements: Integers) -> Integers:
        """Return an assignment in which some elements have moved."""
        result = ranks.copy()
        result[elements] = self.ranks[elements]
        return result

    def gains(self, most: int) -> int:
        """Return how many moves promise a gain, counted up to `most`."""
        return min(most, int((self.costs < 0).sum()))


class Curvature:
    """A curvature predicts the cost of a step: `gradient * step + curvature * step**2 / 2`.

    The curvature of an element is a factor of its parameter times a Fisher diagonal, which says
    how elements differ from each other. The factor comes from curvature probes and secant updates.

    Args:
        objective: The loss.
    """

    def __init__(self, objective: RankedLoss) -> None:
        self._objective, self._lists = objective, objective.lists
        self._factors = np.zeros(len(self._lists.sizes))
        self.fisher_diagonal: Floats = np.ones(len(objective))

    def costs(self, before: Integers, after: Integers, gradient: Floats) -> Floats:
        """Return the predicted rise of the loss by each element's change alone."""
        step = self._lists.steps(before, after)
        curvature = self.fisher_diagonal * np.repeat(self._factors, self._lists.sizes)
        return gradient * step + curvature * step * step / 2

    def ranked_moves(
        self, ranks: Integers, gradient: Floats, tabu: NDArray[np.bool_] | bool = False
    ) -> RankedMoves:
        """Return each element's move against its gradient, ordered by predicted cost.

        Args:
            ranks: The assignment, (n,).
            gradient: The gradient of its loss.
            tabu: Elements that must stay.
        """
        direction = -np.sign(gradient).astype(ranks.dtype)
        moved = np.clip(ranks + direction, 0, self._lists.lengths - 1)
        costs = self.costs(ranks, moved, gradient)
        costs = np.where((moved == ranks) | tabu, np.inf, costs)
        return RankedMoves(np.argsort(costs), moved, costs)

    def measure_fisher_diagonal(
        self, ranks: Integers, random: np.random.Generator, has_budget: Callable[[], bool]
    ) -> None:
        """Measure how the curvature differs from element to element.

        It is in proportion to the variance of the gradient between small parts of the data: for a
        log-likelihood both are the Fisher information. `probe` measures the factor. With too few
        parts, or no budget for them, nothing changes.

        Args:
            ranks: The assignment at which to measure.
            random: Draws the parts.
            has_budget: Whether another gradient may be taken.
        """
        samples = self._objective.model_loss.batches.samples
        size = int(np.clip(samples // _PARTS, 1, _LARGEST_PART))
        count = min(_PARTS, samples // size)
        if count < _FEWEST_PARTS:
            return
        order = random.permutation(samples)
        total, squares, measured = np.zeros(len(ranks)), np.zeros(len(ranks)), 0
        for begin in range(0, count * size, size):
            if not has_budget():
                break
            _, _, gradient = self._objective.loss_and_gradient(ranks, order[begin : begin + size])
            total += gradient
            squares += gradient * gradient
            measured += 1
        if measured < _FEWEST_PARTS:
            return
        variance = np.maximum(squares / measured - (total / measured) ** 2, 0)
        for of_parameter in self._lists.split(variance):  # Views: this changes `variance`.
            of_parameter /= max(float(of_parameter.mean()), _SMALLEST_MEAN)
            of_parameter += _FLATTEST
        self.fisher_diagonal = variance

    def probe(
        self,
        ranks: Integers,
        gradient: Floats,
        random: np.random.Generator,
        samples: NDArray[np.int64] | None = None,
    ) -> None:
        """Measure each parameter's factor anew, by the gradient after a few random changes.

        Args:
            ranks: The assignment, (n,).
            gradient: The gradient of its loss, on the same samples.
            random: Draws the changes.
            samples: The samples that count; None for all.
        """
        self._factors[:] = 0
        for _ in range(_PROBES):
            changes = random.random(len(ranks)) < max(_PROBED, 1 / len(ranks))
            after = np.where(changes, self._lists.neighbours(ranks, random), ranks)
            if (after != ranks).any():
                _, _, gradient_after = self._objective.loss_and_gradient(after, samples)
                self.secant_update(ranks, after, gradient, gradient_after)

    def secant_update(
        self, before: Integers, after: Integers, gradient: Floats, gradient_after: Floats
    ) -> None:
        """Update each parameter's factor by the change of the gradient along a step."""
        split = self._lists.split
        parts = zip(
            split(self._lists.steps(before, after)), split(gradient_after - gradient),
            split(self.fisher_diagonal), strict=True,
        )  # fmt: skip
        for index, (step, change, diagonal) in enumerate(parts):
            squares = float(step @ (diagonal * step))
            if squares > 0:
                secant = max(0.0, float(step @ change) / squares)
                known = self._factors[index]
                mean = _MEMORY * known + _UPDATE * secant
                self._factors[index] = secant if known == 0 else mean
