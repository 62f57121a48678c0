"""A vector that is the whole model is polished on the data of `fit` once training ends."""

import contextlib
import dataclasses
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from quantal._core.keras_internals.running_fit import Fit, batches_of_fit
from quantal._core.parameter import Parameter, parameters_of
from quantal._core.tensors.distributed import all_samples, whole_array
from quantal._optimize.budget import Budget
from quantal._optimize.polish.polish import polish
from quantal._optimize.polish.report import PolishReport
from quantal.estimators.policy import is_vector

_MOST_NUMBERS = 4096
"""A model trains so many numbers at most, its vectors included: in larger ones the gradient
leaves less to find, and seconds are not enough to find it."""

_MOST_BYTES = 2**28
"""The data may take so many bytes at most: they are copied."""

_MOST_SECONDS, _SECONDS_MORE = 8.0, 2.0
"""Polishing takes no longer than the first, nor than the run and the second. From 300 of Adam's
steps this reaches the planted vectors of benchmarks/learning/cases.py; most take under one."""

_FIRST_SHARE = 0.25
"""So much of the seconds decides whether polishing changes anything; else the rest is not used."""

_EVALUATIONS_EACH = 20
"""The first share decides if it had so many evaluations an element: a busy machine is slow."""

_NOTHING_LEFT = 1e-12
"""Below this loss there is nothing to gain: what is left are roundings of float32."""


class VectorPolish:
    """A vector polish is a short `quantal.polish` at the end of a run, where it has its place.

    It has where all listed parameters that train are vectors with steps of their own (as the
    default estimator gives them), the model trains few numbers in all, `fit` trains it by its
    compiled loss, and the data of `fit` can be read again.

    Args:
        setting: True for a budget by the seconds of the run, or a budget or seconds.
    """

    def __init__(self, setting: "bool | float | Budget") -> None:
        is_switch = isinstance(setting, bool | np.bool_)
        self._budget = None if is_switch else Budget.of(setting)
        self._is_on = bool(setting) if is_switch else True

    def run(self, model: keras.Model, fit: Fit, seconds_of_run: float) -> PolishReport | None:
        """Polish a model; return the report, or None where polishing has no place.

        Args:
            model: The model that was trained.
            fit: Its fit.
            seconds_of_run: The seconds that training took.
        """
        if not self._is_on or not is_small_vector_model(model):
            return None
        data = data_in_memory(fit.data)
        if data is None:
            return None
        data = all_samples(data)
        if self._budget is not None:
            return _polish(model, data, fit, self._budget)
        seconds = min(_MOST_SECONDS, _SECONDS_MORE + seconds_of_run)
        codes = _codes(model)
        first = _polish(model, data, fit, Budget(seconds=_FIRST_SHARE * seconds))
        has_looked = first.evaluations >= _EVALUATIONS_EACH * first.elements
        if first.proved or abs(first.loss) <= _NOTHING_LEFT:
            return first
        if has_looked and not has_changed(first):
            return first
        rest = _polish(model, data, fit, Budget(seconds=(1 - _FIRST_SHARE) * seconds))
        return dataclasses.replace(
            rest,
            loss_before=first.loss_before,
            validation_before=first.validation_before,
            changed=int(np.sum(codes != _codes(model))),
            evaluations=first.evaluations + rest.evaluations,
            history=first.history + rest.history,
            continuous_steps=first.continuous_steps + rest.continuous_steps,
        )


def has_changed(report: PolishReport) -> bool:
    """Return whether polishing changed anything."""
    return report.changed > 0 or report.continuous_steps > 0


def is_small_vector_model(model: keras.Model) -> bool:
    """Return whether vectors by the default estimator are all that a small model has on lists."""
    trained = [parameter for parameter in parameters_of(model) if not parameter.is_frozen]
    numbers = sum(int(np.prod(variable.shape)) for variable in model.trainable_variables)
    is_trained_by_its_loss = type(model).train_step is keras.Model.train_step
    return (
        bool(trained)
        and all(_is_default_vector(parameter) for parameter in trained)
        and numbers <= _MOST_NUMBERS
        and is_trained_by_its_loss
    )


def _is_default_vector(parameter: Parameter) -> bool:
    return parameter.estimator.has_steps and is_vector(parameter.shape)


def data_in_memory(data: Any) -> tuple[Any, Any, Any] | None:
    """Return inputs, targets and weights of all samples; None where they cannot be had.

    That is so for a generator and for data without a known end, for more than 256 MiB, and for
    batches whose samples differ in shape. Class weights are among the weights.

    Args:
        data: The attribute of a `Fit`.
    """
    if data.num_batches is None:
        return None
    batches, left = [], _MOST_BYTES
    with contextlib.closing(batches_of_fit(data)) as iterator:
        for _, batch in zip(range(data.num_batches), iterator, strict=False):
            batch = tuple(batch) if isinstance(batch, (tuple, list)) else (batch,)
            batches.append((*batch, None, None)[:3])
            left -= sum(array.nbytes for array in _arrays(batch))
            if left < 0:
                return None
    shapes = [[array.shape[1:] for array in _arrays(batch)] for batch in batches]
    if not batches or any(shape != shapes[0] for shape in shapes):
        return None
    x, y, weights = keras.tree.map_structure(
        lambda *arrays: np.concatenate(arrays), *batches, none_is_leaf=False
    )
    return x, y, weights


def _codes(model: keras.Model) -> NDArray[np.int32]:
    """Return the codes of all parameters, (n,)."""
    codes = [whole_array(p.codes).reshape(-1) for p in parameters_of(model)]
    return np.concatenate(codes)


def _arrays(batch: Any) -> list[Any]:
    return [array for array in keras.tree.flatten(batch) if array is not None]


def _polish(
    model: keras.Model, data: tuple[Any, Any, Any], fit: Fit, budget: Budget
) -> PolishReport:
    x, y, weights = data
    return polish(
        model, x, y, budget, sample_weight=weights, continuous=True, verbose=0,
        validation_data=None if fit.validation is None else _in_memory(fit.validation),
    )  # fmt: skip


def _in_memory(validation: Mapping[str, Any]) -> tuple[Any, ...] | None:
    """Return validation data as polish takes them; None where they are no arrays."""
    data = (validation["x"], validation["y"], validation["sample_weight"])
    return all_samples(data) if all(_is_numeric(leaf) for leaf in _arrays(data)) else None


def _is_numeric(leaf: Any) -> bool:
    is_array = isinstance(leaf, np.ndarray) and leaf.dtype.kind in "biuf"
    return is_array or keras.ops.is_tensor(leaf)
