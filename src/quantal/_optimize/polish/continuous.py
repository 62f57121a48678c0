"""Continuous steps train what is not on a list, between blocks of changed codes.

Source of the alternation: Malinovskii and others, "PV-Tuning: Beyond Straight-Through Estimation
for Extreme LLM Compression", NeurIPS 2024. Here each block of steps is confirmed by the loss.
"""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray

from quantal._core.by_identity import ByIdentity
from quantal._core.parameter import Parameter, parameters_of
from quantal._core.tensors.distributed import whole_array
from quantal._optimize.budget import Spending
from quantal._optimize.interruption import interrupts_ignored
from quantal._optimize.polish.ranked_loss import RankedLoss
from quantal._optimize.polish.validation import Numbers, Selection
from quantal.objectives.problem import Floats, Integers

_STEPS = 16
"""So many steps of Adam make a block, which is then measured on all data: few enough that a block
which is taken back costs little, and enough that measuring does not cost more than the steps."""
_RATE = 1e-3
"""The first rate: Keras's default of Adam. Later ones follow what the loss says."""
_GROWTH, _SHRINKAGE = 1.5, 4.0
"""By which factor the rate grows when a block is kept, and shrinks when it is taken back."""
_MOST_BLOCKS, _MOST_REFUSED = 8, 3
"""A turn ends after so many blocks, or after so many that were taken back one after the other."""
_SHARE = 1 / 3
"""The most of what is used of the budget that goes into continuous steps: codes are many more."""
_MEMORY, _MEMORY_OF_SQUARES, _SMALLEST = 0.9, 0.99, 1e-8
"""Adam's constants; squares are remembered for a hundred steps, because there are few steps."""


def continuous_variables(
    model: keras.Model, parameters: Sequence[Parameter]
) -> list[keras.Variable]:
    """Return the trainable variables of a model that are no latents.

    Learned scales and lists are among them for the given parameters alone.

    Args:
        model: A built model.
        parameters: The parameters that may change.
    """
    everywhere = [variable for p in parameters_of(model) for variable in p.variables]
    of_parameters = ByIdentity.of_keys(everywhere)
    latents = ByIdentity.of_keys(p.latent for p in parameters)
    changing = ByIdentity.of_keys(
        variable for p in parameters for variable in p.variables if variable not in latents
    )
    return [v for v in model.trainable_variables if v not in of_parameters or v in changing]


class ContinuousSteps:
    """Continuous steps train variables with Adam, and are taken back where they do not help.

    A block of steps is kept where the kept assignment becomes better by it in what counts: the
    monitored number on all data, or that on the validation data. Outside `improve` the variables
    always have the numbers of what is kept.

    Args:
        objective: The loss, whose model trains these variables.
        spending: What is used of the budget.
        random: Draws batches.
        alone: Whether no codes change, so that the whole budget is for these steps.

    Attributes:
        numbers: The numbers that the variables have, an array for each.
        steps: The number of steps that were kept.
    """

    def __init__(
        self,
        objective: RankedLoss,
        spending: Spending,
        random: np.random.Generator,
        alone: bool = False,
    ) -> None:
        self._share = np.inf if alone else _SHARE
        self._objective, self._spending, self._random = objective, spending, random
        self._variables = objective.model_loss.compiled.trained
        self.numbers: Numbers = tuple(
            np.array(whole_array(variable)) for variable in self._variables
        )
        self.steps = 0
        self._rate, self._fraction_used = _RATE, 0.0
        self._moments = self._no_moments()

    def prepare(self, ranks: Integers) -> None:
        """Take one gradient, so that whatever is slow compiles before the clock runs."""
        batches = self._objective.model_loss.batches
        samples = None if batches.count == 1 else np.arange(batches.size)
        self._objective.variable_gradients(ranks, samples)

    def assign(self, numbers: Numbers) -> bool:
        """Give the variables numbers; return whether the order of the lists is as before."""
        for variable, array in zip(self._variables, numbers, strict=True):
            variable.assign(array)
        self.numbers = numbers
        return self._objective.lists.follow()

    def improve(self, selection: Selection) -> bool:
        """Train at the kept assignment for some blocks; return whether one of them was kept."""
        spending, improved, refused = self._spending, False, 0
        for _ in range(_MOST_BLOCKS):
            began = spending.fraction_used
            if (
                self._fraction_used > self._share * max(began, _SMALLEST)
                or not self._affords_a_block()
            ):
                break
            kept = self._block(selection)
            self._fraction_used += spending.fraction_used - began
            improved, refused = improved or kept, 0 if kept else refused + 1
            if refused == _MOST_REFUSED:
                break
        return improved

    def _affords_a_block(self) -> bool:
        """Return whether a block can be trained and measured."""
        return self._spending.has_budget() and self._spending.affords(_STEPS + 2)

    def _block(self, selection: Selection) -> bool:
        """Train for a block of steps; return whether it was kept."""
        ranks, kept = selection.kept.ranks, False
        try:
            kept = self._train(ranks) and selection.offer(ranks)
        finally:
            with interrupts_ignored():
                self.assign(selection.kept.variables)
        if kept:
            self._rate *= _GROWTH
            self.steps += _STEPS
        else:
            self._rate /= _SHRINKAGE
            self._moments = self._no_moments()
        return kept

    def _train(self, ranks: Integers) -> bool:
        """Take a block of steps; return False where the loss cannot be followed further."""
        batches = self._objective.model_loss.batches
        for _ in range(_STEPS):
            if not self._spending.has_budget():
                return False
            samples = None if batches.count == 1 else batches.draw(self._random)
            gradients = self._objective.variable_gradients(ranks, samples)
            if not all(np.isfinite(gradient).all() for gradient in gradients):
                return False
            # Ranks mean other codes in a list whose order has changed.
            if not self.assign(self._stepped(gradients)):
                return False
        return True

    def _stepped(self, gradients: list[Floats]) -> Numbers:
        """Return the numbers after a step of Adam, within the variables' constraints."""
        count, means, squares = self._moments
        count += 1
        rate = self._rate * np.sqrt(1 - _MEMORY_OF_SQUARES**count) / (1 - _MEMORY**count)
        stepped = []
        for index, gradient in enumerate(gradients):
            means[index] = _MEMORY * means[index] + (1 - _MEMORY) * gradient
            squares[index] = (
                _MEMORY_OF_SQUARES * squares[index] + (1 - _MEMORY_OF_SQUARES) * gradient**2
            )
            step = rate * means[index] / (np.sqrt(squares[index]) + _SMALLEST)
            stepped.append(self._constrained(index, self.numbers[index] - step))
        self._moments = count, means, squares
        return tuple(stepped)

    def _constrained(self, index: int, numbers: NDArray[Any]) -> NDArray[Any]:
        variable = self._variables[index]
        numbers = numbers.astype(self.numbers[index].dtype)
        if variable.constraint is None:
            return numbers
        tensor = ops.convert_to_tensor(numbers, variable.dtype)
        return np.array(whole_array(variable.constraint(tensor)))

    def _no_moments(self) -> tuple[int, list[Floats], list[Floats]]:
        means, squares = ([np.zeros(array.shape) for array in self.numbers] for _ in range(2))
        return 0, means, squares
