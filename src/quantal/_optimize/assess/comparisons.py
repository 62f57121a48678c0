"""What other assignments and free numbers come to is compared with a model's codes."""

from typing import NamedTuple

import numpy as np

from quantal._models.model_loss import ModelLoss
from quantal._optimize.assess.assessment import Spread
from quantal._optimize.polish.ascending_lists import AscendingLists
from quantal.objectives.problem import Floats

_DRAWS = 8
"""The number of random assignments whose losses are averaged."""
_MOST_FREE = 512
"""The most elements that are fitted as free numbers: a short fit of more comes to no end."""
_SAMPLES_EACH = 2
"""So many samples an element has to have, or free numbers fit the samples and nothing else."""
_STEPS = 60
"""The steps of the fit: a quadratic loss of some hundred elements is near its minimum then."""
_FIRST_STEP = 0.1
"""The first step is this share of the vector's length."""
_WORSE = 10.0
"""A step to a loss that is higher by this factor is taken back."""


class Compared(NamedTuple):
    """The losses with other codes are compared with the loss as it is.

    Attributes:
        loss: The loss of the codes as they are.
        random: The loss of random codes, each value of the list as likely.
        constant: The loss of the most used value in all elements.
    """

    loss: float
    random: Spread
    constant: float


class Comparisons:
    """Comparisons evaluate other assignments of all elements, or of one parameter's.

    Args:
        loss: The loss of values.
        lists: The lists of the elements.
        random: Draws assignments.

    Attributes:
        most_used: The assignment with the most used rank of each parameter in all its elements.
        evaluations: The number of losses so far.
    """

    def __init__(self, loss: ModelLoss, lists: AscendingLists, random: np.random.Generator) -> None:
        self._loss, self._lists, self._ranks = loss, lists, lists.ranks()
        self._random, self.evaluations = random, 0
        self.most_used = np.concatenate(
            [
                np.full(len(part), np.bincount(part, minlength=1).argmax())
                for part in lists.split(self._ranks)
            ]
        )

    def compared(self, part: slice = slice(None)) -> Compared:
        """Return the losses with other codes in some elements, and with the codes as they are."""
        rows = np.tile(self._ranks, (_DRAWS + 2, 1))
        drawn = (self._random.random((_DRAWS, len(self._ranks))) * self._lists.lengths).astype(int)
        rows[1:-1, part] = drawn[:, part]
        rows[-1, part] = self.most_used[part]
        self.evaluations += len(rows)
        now, *draws, constant = self._loss(self._lists.values(rows)).tolist()
        return Compared(now, Spread(float(np.mean(draws)), float(np.std(draws, ddof=1))), constant)

    def free_numbers(self) -> float | None:
        """Return the lowest loss of a short fit of free numbers; None where it says nothing.

        The fit takes gradient steps of the length of Barzilai and Borwein, "Two-Point Step Size
        Gradient Methods", IMA Journal of Numerical Analysis 1988.
        """
        elements, batches = len(self._lists), self._loss.batches
        if elements > _MOST_FREE or batches.samples < _SAMPLES_EACH * elements:
            return None
        vector = self._lists.values(self._ranks).astype(float)
        loss, gradient = self._loss_and_gradient(vector)
        best = loss
        norm = float(np.linalg.norm(gradient))
        if not norm:
            return best
        step = _FIRST_STEP * max(float(np.linalg.norm(vector)), 1.0) / norm
        for _ in range(_STEPS):
            after = vector - step * gradient
            loss_after, gradient_after = self._loss_and_gradient(after)
            if not loss_after <= loss + _WORSE * abs(loss):
                step /= _WORSE
                continue
            move, bend = after - vector, gradient_after - gradient
            vector, loss, gradient = after, loss_after, gradient_after
            best = min(best, loss)
            curvature = float(move @ bend)
            if not curvature > 0:
                continue
            step = float(move @ move) / curvature
        return best

    def _loss_and_gradient(self, vector: Floats) -> tuple[float, Floats]:
        self.evaluations += 1
        result = self._loss.loss_and_gradient(vector)
        return result.loss, result.gradient
