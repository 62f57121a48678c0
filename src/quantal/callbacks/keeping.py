"""The best assignment of a run is kept and restored."""

import math
from typing import Any

import keras
from numpy.typing import NDArray

from quantal._core.processes import agreed
from quantal._core.tensors.distributed import whole_array


class KeepBest(keras.callbacks.EarlyStopping):
    """The callback keeps the best assignment of all epochs' ends, and restores it.

    Use it where the last values need not be the best: discrete ones go on changing, and
    the training loss of a soft estimator is not that of the listed values. It judges
    listed values: `"val_loss"` is theirs, since validation runs in inference. With
    `data`, the model is evaluated on them at each epoch's end, for runs without
    validation data.

    All weights of the model are kept and restored, not the codes alone: statistics and
    biases belong to the codes that they were learned with. Memory: the model's weights
    once more. Unlike its base class `EarlyStopping(restore_best_weights=True)`, it
    never stops a run, and can judge the training data.

    Args:
        monitor: The metric; with `data`, its name in `evaluate`, such as `"loss"`.
        data: `(x, y)` as in `model.evaluate`, or a data set; None to take the metric
            from the run's logs.
        batch_size: The batch size of the evaluation of arrays.
        mode: `"min"`, `"max"` or `"auto"`: which metric is better, as in Keras.

    Attributes:
        best: The best value of the metric.
        best_epoch: The epoch that it belongs to, from 0.

    Raises:
        ValueError: The run has no such metric; raised at the end of the first epoch.

    >>> KeepBest("val_accuracy").monitor
    'val_accuracy'
    """

    def __init__(
        self,
        monitor: str = "val_loss",
        data: Any = None,
        batch_size: int | None = None,
        mode: str = "auto",
    ) -> None:
        super().__init__(monitor, patience=math.inf, mode=mode, restore_best_weights=True)
        self.data = data
        self.batch_size = batch_size
        self.best_weights: list[NDArray[Any]] | None = None

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Judge the epoch's weights."""
        metrics = dict(logs or {})
        if self.data is not None:
            arrays = self.data if isinstance(self.data, tuple) else (self.data,)
            metrics = self.model.evaluate(
                *arrays, batch_size=self.batch_size, verbose=0, return_dict=True
            )
        if self.monitor not in metrics:
            raise ValueError(
                f"monitor is {self.monitor!r}. Expected one of {', '.join(sorted(metrics))}: the "
                "run has no other metric. Give one of these, or validation data to fit, or "
                "data=(x, y) with monitor='loss'."
            )
        # Processes with data of their own have metrics of their own, and decide as one.
        metrics[self.monitor] = agreed(f"{self.monitor} of KeepBest", metrics[self.monitor])
        # Keras cannot copy variables that are spread over processes, so they are copied here.
        self.restore_best_weights, last_best = False, self.best
        try:
            super().on_epoch_end(epoch, metrics)
        finally:
            self.restore_best_weights = True
        if self.best_weights is None or self.best != last_best:
            self.best_weights, self.best_epoch = self._weights(), epoch

    def _weights(self) -> list[NDArray[Any]]:
        return [whole_array(variable) for variable in self.model.weights]
