"""Annealed parameters follow the run's length."""

from typing import Any

import keras

from quantal._core.parameter import parameters_of


class PaceToRun(keras.callbacks.Callback):
    """Paces annealed parameters to the length of the run: soft at first, hard in time.

    Use it with `estimators.Annealed` or `estimators.BinaryRelax` when the number of
    epochs is known. The parameters follow the estimator's sigmoid schedule and are
    hard for the rest of the run. Without it they pace themselves.

    The schedule counts from the first step of the first epoch, so a run that goes on
    (`initial_epoch`, `BackupAndRestore`) goes on in it. Where Keras does not know the
    steps per epoch beforehand (generators), the schedule begins with the second epoch.

    Args:
        share: The share of the run after which the values are hard, above 0, at most 1.

    Raises:
        ValueError: The share is not above 0 and at most 1; or at the start of training,
            the model has no annealed parameter.

    Source: PARQ's CIFAR-10 experiments anneal over 150 of 200 epochs.

    >>> PaceToRun(share=0.5).share
    0.5
    """

    def __init__(self, share: float = 0.75) -> None:
        super().__init__()
        if not 0 < share <= 1:
            raise ValueError(
                f"share is {share!r}. Expected a number above 0 and at most 1, the share of "
                "the run after which values are hard. Give, say, 0.75."
            )
        self.share = float(share)
        self._batches = 0

    def on_train_begin(self, logs: Any = None) -> None:
        if not any(parameter.state is not None for parameter in parameters_of(self.model)):
            raise ValueError(
                "The model has no annealed parameter, so there is nothing to pace. Expected "
                "one whose estimator is 'annealed' or 'binary_relax'. Leave the callback "
                "out, or give a layer such an estimator."
            )
        self._batches = 0
        if self.params.get("steps"):
            self._end_after(self.params["steps"])

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self._batches = batch + 1

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        if not self.params.get("steps"):
            self._end_after(self._batches)

    def _end_after(self, steps_per_epoch: int) -> None:
        end = self.share * self.params["epochs"] * steps_per_epoch
        for parameter in parameters_of(self.model):
            if parameter.state is not None:
                parameter.state.assign([float(keras.ops.convert_to_numpy(parameter.state)[0]), end])
