"""A trial of a sweep trains one model and measures it."""

import contextlib
import copy
import gc
import logging
import math
import os
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np

from quantal._core.by_identity import ByIdentity
from quantal._core.keras_internals.compiled import (
    compile_arguments,
    compiled_metrics,
    metric_direction,
)
from quantal._core.keras_internals.layers import flatten_layers
from quantal._core.keras_internals.scopes import names_from_the_start
from quantal._core.parameter import parameters_of
from quantal._models.clone import clone_replacing
from quantal._models.compile_like import compile_like
from quantal._models.discretize import discretize
from quantal._models.files import save
from quantal._models.on_lists import put_on_lists
from quantal._models.walk import check_model, is_container
from quantal._optimize.budget import Budget
from quantal._sweep.data import Data, digest
from quantal._sweep.plan import Trial
from quantal.callbacks.finishing import Finish
from quantal.callbacks.pacing import PaceToRun

_POLISH = Budget(evaluations=2_000)
"""A vector that is the whole model ends with a polish of so many evaluations: seconds would make
a trial depend on what else the machine does, and on whether the sweep was cut off."""

_LONG = 2.0
"""Seconds of training from which a trial's memory is worth a search for circles, half a second."""

LOSS = "loss"
"""The name of the loss in what `evaluate` returns."""


class Unbuildable(Exception):
    """A trial's model cannot be made: the list or the estimator does not fit the model."""


class Outcome(NamedTuple):
    """An outcome is what a trial has measured.

    Attributes:
        metrics: What `evaluate` returned on the validation data; empty after a failure.
        bytes: The size of the file that `save` writes; 0 after a failure.
        seconds: The time that training took.
        note: Why there is no number; empty where there is one.
    """

    metrics: dict[str, float]
    bytes: int
    seconds: float
    note: str


class Goal(NamedTuple):
    """A goal is the metric that trials are compared by, and whether more of it is better."""

    metric: str
    maximize: bool


class Models:
    """The source of a sweep's models: a compiled model, or a function that returns one.

    Args:
        source: The model; or a function of a list and an estimator.
        start: `"model"` or `"fresh"`: with which weights the copies of a model begin.

    Raises:
        TypeError: The source is neither.
        ValueError: The model is not built or not compiled, or start is something else.
    """

    def __init__(self, source: Any, start: str) -> None:
        self._source, self._start = source, start
        self.is_function = callable(source) and not isinstance(source, keras.Layer)
        if start not in ("model", "fresh"):
            raise ValueError(
                f"start is {start!r}. Expected 'model', to go on from the weights that the model "
                "has, or 'fresh', to draw new ones by each seed."
            )
        if not self.is_function:
            check_model(source)
            _check_compiled(source)
            # Before hours of training: this model could not be written at their end.
            size_of(source)

    def check(self, trial: Trial) -> None:
        """Refuse a learning rate that the model's optimizer cannot take."""
        if trial.learning_rate is not None and not self.is_function:
            _check_rate(self._source)

    def build(self, trial: Trial) -> keras.Model:
        """Return the compiled model of a trial.

        Raises:
            Unbuildable: The list or the estimator does not fit the model.
        """
        keras.utils.set_random_seed(trial.seed)
        try:
            model = self._built(trial)
        except (TypeError, ValueError) as error:
            raise Unbuildable(" ".join(str(error).split())) from error
        if trial.learning_rate is not None:
            _check_rate(model)
            model.optimizer.learning_rate = trial.learning_rate
        return model

    def _built(self, trial: Trial) -> keras.Model:
        if self.is_function:
            with names_from_the_start():
                model = self._source(trial.rule, trial.identifier)
            check_model(model, "what the function returns")
            _check_compiled(model)
            return model
        model = self._source if self._start == "model" else _with_new_weights(self._source)
        if trial.rule is None:
            return put_on_lists(model, ByIdentity()).model
        return discretize(model, trial.rule, estimator=trial.identifier, verbose=0)

    def digests(self, has_rates: bool) -> dict[str, str]:
        """Return texts that are the same for the same models in another process.

        Args:
            has_rates: Whether the sweep sets the learning rate, so that the model's is no part.
        """
        if self.is_function:
            return {"model": _name_of(self._source)}
        layers = [_described(layer) for layer in flatten_layers(self._source)]
        arguments = compile_arguments(self._source)
        optimizer = self._source.optimizer.get_config()
        if has_rates:
            del optimizer["learning_rate"]
        compiled = [type(self._source.optimizer).__name__, _without_names(optimizer)]
        compiled += [_name_of(arguments.get("loss")), arguments.get("loss_weights")]
        is_fresh = self._start == "fresh"
        return {
            "model": digest(repr(layers)),
            "initial weights": "new ones" if is_fresh else digest(self._source.get_weights()),
            "optimizer or loss": digest(repr(compiled)),
        }


class Starts:
    """Starts remember the first weights of a sweep's models, which shall differ by seed."""

    def __init__(self) -> None:
        self._seeds: dict[tuple[Any, ...], int] = {}
        self._has_warned = False

    def check(self, trial: Trial, model: keras.Model) -> None:
        """Warn, once, if a model begins as one with another seed did."""
        start = (*trial.cell, digest(model.get_weights()))
        seed = self._seeds.setdefault(start, trial.seed)
        if seed != trial.seed and not self._has_warned:
            self._has_warned = True
            warnings.warn(
                f"The function builds the same weights with seed {seed} as with seed {trial.seed}. "
                "Expected others, since sweep sets the seed before each call: the spread is now "
                "that of the order of batches alone. Leave set_random_seed and fixed seeds of "
                "initializers out of the function.",
                stacklevel=4,
            )


def train(
    model: keras.Model, trial: Trial, data: Data, fit: Mapping[str, Any], metric: str | None
) -> Outcome:
    """Train the model of a trial, and measure it on the validation data.

    Args:
        model: The compiled model.
        trial: The trial; its seed orders the batches.
        data: The data.
        fit: Other arguments of `fit`.
        metric: The metric's name, if it is given; a model without it is refused after a batch.

    Returns:
        The `Outcome`.
    """
    keras.utils.set_random_seed(trial.seed)
    begin = time.perf_counter()
    model.fit(
        data.x,
        data.y,
        validation_data=data.validation,
        **{**fit, "callbacks": [*_callbacks(model, trial, fit), _CheckMetric(metric)]},
    )
    seconds = time.perf_counter() - begin
    x, y, weights = keras.utils.unpack_x_y_sample_weight(data.validation)
    logs = model.evaluate(
        x, y, fit.get("batch_size"), sample_weight=weights, verbose=0, return_dict=True
    )
    metrics = {name: float(number) for name, number in logs.items()}
    is_finite = all(np.isfinite(weight).all() for weight in model.get_weights())
    if not is_finite or not math.isfinite(metrics[LOSS]):
        return Outcome({}, 0, seconds, "diverged: NaN or infinity after training")
    return Outcome(metrics, size_of(model), seconds, "")


def goal_of(model: keras.Model, metric: str | None, metrics: Mapping[str, float]) -> Goal:
    """Return what trials are compared by: a named metric, or the first that says which way.

    Args:
        model: A model after `evaluate`.
        metric: Its name; None for the first metric, or the loss where there is none.
        metrics: What `evaluate` returned.

    Raises:
        ValueError: There is no such metric, or it does not say which way is better.
    """
    directions = {**_directions(model), LOSS: "down"}
    if metric is None:
        # In the order in which the model is compiled with them; Keras sorts its results.
        known = [name for name in directions if name in metrics and directions[name]]
        metric = next((name for name in known if name != LOSS), LOSS)
    if directions.get(metric) is None:
        raise ValueError(
            f"metric is {metric!r}, which does not say whether more or less of it is better. "
            f"Expected one that does: {_names(name for name in metrics if directions.get(name))}."
        )
    return Goal(metric, directions[metric] == "up")


def size_of(model: keras.Model) -> int:
    """Return the size in bytes of the file that `save` writes."""
    with tempfile.TemporaryDirectory() as folder:
        return save(model, os.path.join(folder, "model.quantal"))


@contextlib.contextmanager
def without_retracing_warnings() -> Iterator[None]:
    """Keep TensorFlow within a scope from warning that it traces each new model anew."""

    def is_other(record: logging.LogRecord) -> bool:
        return "triggered tf.function retracing" not in record.getMessage()

    logger = logging.getLogger("tensorflow")
    logger.addFilter(is_other)
    try:
        yield
    finally:
        logger.removeFilter(is_other)


def release_memory(seconds: float) -> None:
    """Free what a trained model has left, since its graph holds circles, if it trained for long."""
    if seconds > _LONG:
        gc.collect()


class _CheckMetric(keras.callbacks.Callback):
    """The callback refuses a model that has not the metric, after a batch and not after hours."""

    def __init__(self, metric: str | None) -> None:
        super().__init__()
        self._metric = metric

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        if self._metric is not None and logs and self._metric not in logs:
            raise ValueError(
                f"metric is {self._metric!r}. Expected one that the model is compiled with: "
                f"{_names(logs)}."
            )


def _names(names: Any) -> str:
    return ", ".join(repr(name) for name in sorted(names))


def _callbacks(
    model: keras.Model, trial: Trial, fit: Mapping[str, Any]
) -> Sequence[keras.callbacks.Callback]:
    """Return copies of the user's callbacks; without any, those that end a run well."""
    callbacks = fit.get("callbacks")
    if callbacks is not None:
        several = callbacks if isinstance(callbacks, (list, tuple)) else [callbacks]
        return [copy.deepcopy(callback) for callback in several]
    has_pace = any(parameter.state is not None for parameter in parameters_of(model))
    # A rate that the sweep compares is one that somebody chose.
    finish = Finish(polish=_POLISH, falling_rate=trial.learning_rate is None)
    return [*([PaceToRun()] if has_pace else []), finish]


def _with_new_weights(model: keras.Model) -> keras.Model:
    new = clone_replacing(model, lambda layer, fresh: None).model
    compile_like(model, new)
    return new


def _directions(model: keras.Model) -> dict[str, str | None]:
    """Return "up", "down" or None for the name of each metric of an evaluated model."""
    directions = {metric.name: metric_direction(metric) for metric in model.metrics}
    compiled = compiled_metrics(model)
    if compiled is not None and compiled.built:
        results = compiled.result().items()
        for (name, result), metric in zip(results, compiled.metrics, strict=True):
            keys = result if isinstance(result, dict) else [name]
            directions.update({key: metric_direction(metric) for key in keys})
    return directions


def _check_compiled(model: keras.Model) -> None:
    if not model.compiled:
        raise ValueError(
            f"The model {model.name!r} is not compiled. Expected a compiled one, since trials "
            "train it. Call model.compile('adam', loss, metrics=['accuracy']) first."
        )


def _check_rate(model: keras.Model) -> None:
    if isinstance(model.optimizer.get_config()["learning_rate"], dict):
        raise ValueError(
            "learning_rates came, and the model is compiled with a schedule of rates. Expected "
            "one of both. Compile it with a number, or leave learning_rates out."
        )


def _described(layer: keras.Layer) -> list[Any]:
    """Return what a layer is."""
    shapes = [tuple(variable.shape) for variable in layer.weights]
    config = {} if is_container(layer) else layer.get_config()
    return [type(layer).__name__, shapes, _without_names(config)]


def _without_names(config: Any) -> Any:
    """Return a config without names, in which Keras counts what a process has made before."""
    if isinstance(config, Mapping):
        return {k: _without_names(part) for k, part in config.items() if k != "name"}
    if isinstance(config, (list, tuple)):
        return [_without_names(part) for part in config]
    return config


def _name_of(function: Callable[..., Any] | Any) -> str:
    """Return the name of a function or class and of its module; else what `repr` gives."""
    name = getattr(function, "__qualname__", None)
    if name is not None:
        return f"{getattr(function, '__module__', '')}.{name}"
    return type(function).__name__ if hasattr(function, "get_config") else repr(function)
