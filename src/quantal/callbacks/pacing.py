"""Paced parameters follow the length of the run."""

from typing import Any

import keras
import numpy as np

from quantal._core.parameter import Parameter
from quantal._core.tensors.distributed import whole_array
from quantal.callbacks._parameters import required_parameters


class PaceToRun(keras.callbacks.Callback):
    """The callback paces estimators to the length of the run: soft at first, hard before its end.

    Use it when the number of epochs is known, with an estimator that has a pace:
    `Settling` (which `"auto"` takes for vectors), `Annealed`, `BinaryRelax`, `Residual`
    or `GumbelSoftmax`. Its parameters follow the estimator's sigmoid schedule and are
    hard for the rest of the run. Without the callback they pace themselves by the
    estimator's half-life. Parameters of other estimators are left alone.

    The schedule counts from the first step of the first epoch, so a run that goes on
    (`initial_epoch`, `BackupAndRestore`) goes on in it. Where Keras does not know the
    steps per epoch beforehand (generators), the schedule begins with the second epoch.

    Args:
        share: The share of the run after which the values are hard, above 0, at most 1.

    Raises:
        ValueError: The share is not above 0 and at most 1; or at the start of training,
            the model has no paced parameter.

    Source: PARQ's CIFAR-10 experiments anneal over 150 of 200 epochs.

    >>> PaceToRun(share=0.5).share
    0.5
    """

    def __init__(self, share: float = 0.75) -> None:
        super().__init__()
        if not 0 < share <= 1:
            raise ValueError(
                f"share is {share!r}. Expected a number above 0 and at most 1, the share of "
                "the run after which values are hard."
            )
        self.share = float(share)
        self._batches = 0
        self._paced: list[Parameter] = []

    def on_train_begin(self, logs: Any = None) -> None:
        """Set the end of the schedule, where the steps per epoch are known."""
        self._paced = required_parameters(
            self.model,
            lambda parameter: parameter.state is not None,
            missing="paced parameter",
            expected="one whose estimator is 'settling', 'annealed', 'binary_relax', 'residual' "
            "or 'gumbel_softmax'",
        )
        self._batches = 0
        if self.params.get("steps"):
            self._end_after(self.params["steps"])

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Count the batches."""
        self._batches = batch + 1

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Set the end of the schedule from the batches that the epoch had."""
        if not self.params.get("steps"):
            self._end_after(self._batches)

    def _end_after(self, steps_per_epoch: int) -> None:
        end = self.share * self.params["epochs"] * steps_per_epoch
        for parameter in self._paced:
            state = parameter.state
            if state is not None:
                numbers = np.array(whole_array(state))
                numbers[1] = end
                state.assign(numbers)
