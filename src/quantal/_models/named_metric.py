"""A compiled metric by its name is a number by which polishing can decide."""

from typing import Any, NamedTuple

import keras
from keras import ops

from quantal._core.keras_internals.compiled import compiled_metrics, metric_direction
from quantal._core.types import Tensor


class _Result(NamedTuple):
    """A result is a number of a metric."""

    metric: keras.metrics.Metric
    number: Tensor


class NamedMetric:
    """A named metric computes a compiled metric of a model for one batch, without its state.

    It is lower where the model is better: a metric of which more is better, such as an accuracy,
    counts negative.

    Args:
        model: A compiled model.
        name: The name that `evaluate(..., return_dict=True)` gives to the metric.
    """

    def __init__(self, model: keras.Model, name: str) -> None:
        self._model, self._name, self._sign = model, name, 1.0

    def build(self, y: Any, outputs: Any, sample_weight: Any, batches: int) -> None:
        """Create the metric's variables, as the first batch of `evaluate` does, and check it.

        Args:
            y: The targets of some samples.
            outputs: The outputs of the model for them.
            sample_weight: Their weights, or None.
            batches: The number of batches of all data.

        Raises:
            ValueError: The model has no such metric, it does not say which way is better, or
                its number on all data does not follow from those of batches.
        """
        metrics = compiled_metrics(self._model)
        if metrics is not None and not metrics.built:
            metrics.build(y, outputs)
        known = {} if metrics is None else self._results(y, outputs, sample_weight)
        if self._name not in known:
            raise ValueError(
                f"monitor is {self._name!r}. Expected None for the loss, the name of a compiled "
                f"metric, or a function of targets and outputs. The model has "
                f"{', '.join(sorted(known)) or 'no metrics'}. Give metrics to compile, or a "
                "function, such as lambda y, outputs: keras.ops.mean(keras.ops.abs(y - outputs))."
            )
        metric = known[self._name].metric
        direction = metric_direction(metric)
        if direction is None:
            raise ValueError(
                f"monitor is {self._name!r}, a metric that does not say whether more or less of it "
                "is better. Expected one that does. Give a function of targets and outputs, lower "
                "for a better model."
            )
        is_mean = isinstance(metric, keras.metrics.MeanMetricWrapper) and sample_weight is None
        if batches > 1 and not is_mean:
            raise ValueError(
                f"monitor is {self._name!r}, and its number on all data is not the mean of those "
                f"on {batches} batches. Expected a metric that is a mean over samples without "
                "weights. Raise batch_size to the number of samples, or give a function."
            )
        self._sign = -1.0 if direction == "up" else 1.0

    def __call__(self, y: Any, outputs: Any, sample_weight: Any) -> Tensor:
        """Return the metric of a batch, lower where the model is better."""
        number = self._results(y, outputs, sample_weight)[self._name].number
        return self._sign * ops.cast(number, "float32")

    def _results(self, y: Any, outputs: Any, sample_weight: Any) -> dict[str, _Result]:
        """Return the results of all compiled metrics by name."""
        metrics = compiled_metrics(self._model)
        state = metrics.stateless_reset_state()
        state = metrics.stateless_update_state(state, y, outputs, sample_weight)
        results: dict[str, _Result] = {}
        of_metrics = metrics.stateless_result(state).items()
        for (name, result), metric in zip(of_metrics, metrics.metrics, strict=True):
            # A metric may give several numbers, which have names of their own.
            numbers = result if isinstance(result, dict) else {name: result}
            results.update((key, _Result(metric, number)) for key, number in numbers.items())
        return results
