"""A compiled model has a loss, metrics and an optimizer."""

from typing import Any

import keras


def compile_arguments(model: keras.Model) -> dict[str, Any]:
    """Return the arguments of `model.compile`, not serialized."""
    return dict(model._compile_config.config)


def compute_loss(model: keras.Model, x: Any, y: Any, predictions: Any, sample_weight: Any) -> Any:
    """Compute a compiled model's loss in inference, with the losses that layers add."""
    return model._compute_loss(x, y, predictions, sample_weight, training=False)


def clear_losses(model: keras.Model) -> None:
    """Make layers drop the losses of their last call, which may be traced tensors."""
    model._clear_losses()


def compiled_metrics(model: keras.Model) -> Any:
    """Return the metrics of a compiled model as one metric; None if it has none."""
    return model._compile_metrics


def metric_direction(metric: keras.metrics.Metric) -> str | None:
    """Return "up" if more of a metric is better, "down" if less is; None if it does not say."""
    return getattr(metric, "_direction", None)


def decays(optimizer: keras.optimizers.Optimizer, variable: keras.Variable) -> bool:
    """Return whether an optimizer with weight decay lets a variable decay."""
    return bool(optimizer._use_weight_decay(variable))
