"""A run ends with the average of its last weights, and with statistics that belong to it."""

import math
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

import keras
import numpy as np
from keras import ops

from quantal._core.keras_internals.running_fit import Fit, batches_of_fit, fit_around
from quantal._core.processes import agreed, index
from quantal._core.types import Tensor
from quantal._optimize.budget import Budget
from quantal._optimize.polish.report import PolishReport
from quantal.callbacks._averages import Averages
from quantal.callbacks._falling_rate import START, FallingRate, Run
from quantal.callbacks._vector_polish import VectorPolish, has_changed
from quantal.callbacks.statistics import batches_of, measure_statistics, normalizations_of

_BATCHES = 50
"""Statistics are measured on so many batches, as Nagel et al. do."""


class Finish(keras.callbacks.Callback):
    """The callback ends a run with the average of its last weights, so it needs no schedule.

    Listed weights flip until the end of a run at a constant rate, and batch normalization's
    moving statistics lag behind. This callback averages the latents and all other trained
    weights over the last part of the run, puts the averages in once it ends, and measures the
    statistics of batch normalization with them. On Fashion-MNIST that is worth about two points
    at Adam's default rate, as much as a schedule, and it takes nothing from a run that has one.

        model.fit(x, y, epochs=5, callbacks=[quantal.callbacks.Finish()])

    Where nobody chose a rate, it falls along the run, from 0.01 to 0: with an Adam at Keras's
    default of 0.001, in a `fit` of known length, where nine tenths of the numbers in matrices
    that train are on lists and nothing is normalized by layers, groups or root mean squares. Any
    other rate, a schedule and a callback that moves the rate are the user's and stay. Between
    epochs and after the run the optimizer has its rate again.

    The window is a share of the run, also where its length is not known beforehand and where
    `EarlyStopping` ends it: a sample counts as the 16th power of its step. With validation data
    the best by their loss is kept: the averages; or the last weights (those that
    `EarlyStopping` restored, if it did), as they are or with statistics measured again.
    Without, the averages are.

    A vector that is the whole model, or nearly, ends with a short `quantal.polish` on the data
    of `fit`: it takes at most 8 seconds, and at most 2 more than the run took, compiling not
    counted; most vectors of some dozen elements take under one. It has its place where all
    listed weights that train are vectors by the default estimator, the model trains at most
    4,096 numbers by its compiled loss, and the data are arrays or a data set with an end. What it
    changes is kept unless validation data say otherwise, and said in one line where `fit` is not
    silent. Weights without a list go on in it, too. A result that is not proved depends
    on the machine's speed: `polish=quantal.Budget(evaluations=...)` does not.

    It needs no data of its own: statistics are measured on what `fit` trains on. It may
    stand anywhere among the callbacks: those that restore weights at the end come before it.
    With `BackupAndRestore` the averages are kept in its folder, and an interrupted run goes on
    with them. Memory: the trained weights once more, and twice at the end.

    Args:
        data: Inputs for the statistics, as for `ReestimateStatistics`; None for those of `fit`.
            Give them where `fit` gets a generator that ends: it cannot be read again; and where
            the model is not called on what `fit` gets, as an adversarial one.
        batch_size: The size of batches cut from `data`; at least 1.
        polish: Whether a vector is polished; or with which budget: seconds, or a
            `quantal.Budget`.
        falling_rate: Whether a rate that nobody chose falls; False for a constant 0.001.

    Attributes:
        kept: What the run ended with: "averages", "last", "last, measured again" or "polished";
            None before.
        losses: The validation loss of each, by its name; empty without validation data.
        report: The `PolishReport` of the polish; None where there was none.

    Raises:
        TypeError: falling_rate is not a bool.
        ValueError: batch_size is below 1, or the budget is not above 0; or at the start of
            training, no `fit` of Keras is running, and batch normalization needs data; or at the
            end, the model does not take the data of `fit`: its last weights stay.

    Source: Polyak and Juditsky 1992 for averages; Izmailov et al., "Averaging Weights Leads to
    Wider Optima and Better Generalization", UAI 2018, for statistics that are measured with them.

    >>> import keras, numpy, quantal
    >>> model = keras.Sequential([keras.Input((3,)), quantal.LearnableMultiplier([1, -1])])
    >>> model.compile("adam", "mse")
    >>> finish = Finish()
    >>> x = numpy.ones((64, 3), "float32")
    >>> history = model.fit(x, -x, validation_split=0.5, verbose=0, callbacks=[finish])
    >>> finish.kept in finish.losses
    True
    """

    def __init__(
        self,
        data: Any = None,
        batch_size: int = 128,
        polish: "bool | float | Budget" = True,
        falling_rate: bool = True,
    ) -> None:
        super().__init__()
        if isinstance(batch_size, bool) or not isinstance(batch_size, int) or batch_size < 1:
            raise ValueError(f"batch_size is {batch_size!r}. Expected a whole number from 1.")
        if not isinstance(falling_rate, bool):
            raise TypeError(
                f"falling_rate is {falling_rate!r}. Expected True or False. Set the rate itself in "
                "the optimizer: one that is not Keras's default stays as it is."
            )
        self.data, self.batch_size = data, batch_size
        self.kept: str | None = None
        self.losses: dict[str, float] = {}
        self.report: PolishReport | None = None
        self._polish = VectorPolish(polish)
        self._began = 0.0
        self._averages = Averages()
        self._rate = FallingRate(falling_rate)
        self._fit: Fit | None = None
        self._steps: int | None = None
        self._steps_before_epoch = self._longest_epoch = 0

    def on_train_begin(self, logs: Any = None) -> None:
        """Begin the averages, and see that the statistics can be measured at the end."""
        self._fit = fit_around()
        self._averages, self._steps, self._longest_epoch = Averages(), None, 0
        self.kept, self.losses, self.report = None, {}, None
        self._began = time.perf_counter()
        if self._fit is not None:
            self._go_behind_those_that_restore(self._fit.callbacks)
        elif self.data is None and normalizations_of(self.model):
            raise ValueError(
                "Finish is called outside of a fit of Keras, so it cannot see the training data. "
                "Expected a fit, or inputs for the statistics of batch normalization. Give "
                "Finish(data=x)."
            )

    def _go_behind_those_that_restore(self, callbacks: keras.callbacks.CallbackList) -> None:
        """Let callbacks that put weights of an earlier epoch back do so before the end."""
        order = list(callbacks.callbacks)
        restoring = [c for c in order if getattr(c, "restore_best_weights", False)]
        if self not in order or not restoring:
            return
        last = order.index(restoring[-1])
        here = order.index(self)
        if here < last:
            # Another list: Keras is going through this one.
            callbacks.callbacks = [*order[:here], *order[here + 1 : last + 1], self]
            callbacks.callbacks += order[last + 1 :]

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Count the epochs before the first one, too: a run may go on."""
        if self._steps is None:
            self._steps = epoch * (self.params.get("steps") or 0)
            for folder in self._backup_folders():
                self._averages.read(folder, epoch, self.model)
            self._begin_rate(epoch)
        self._steps_before_epoch = self._steps
        self._rate.move(self._steps)

    def _begin_rate(self, epoch: int) -> None:
        """Let a rate that nobody chose fall from here on, and say so."""
        epochs, steps = (self.params.get(name) or 0 for name in ("epochs", "steps"))
        self._rate.begin(self.model, self._fit, Run(epochs, steps, epoch))
        if self._rate.is_active and self._fit is not None and not self._fit.is_silent:
            print(f"Finish lets the rate fall from {START} to 0 along the run, as none was set.")

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Take the weights into the averages, where a sample is due."""
        self._steps = self._steps_before_epoch + batch + 1
        self._longest_epoch = max(self._longest_epoch, batch + 1)
        is_last = batch + 1 == self.params.get("steps")
        if self._averages.is_due(self._steps):
            self._averages.add(self._steps, self.model)
            self._rate.move(self._steps)
        if is_last and self._rate.is_active and self.model is not None:
            # What is saved between epochs has the optimizer's rate. On JAX, asking for the model
            # gives the optimizer its variables back.
            self._rate.rest()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Keep the averages where the run itself is kept."""
        self._rate.rest()
        for folder in self._backup_folders():
            self._averages.write(folder, epoch + 1)

    def _backup_folders(self) -> list[str]:
        """Return the folder of `BackupAndRestore`, if it is on this machine."""
        callbacks = [] if self._fit is None else self._fit.callbacks.callbacks
        folders = [
            str(callback.backup_dir)
            for callback in callbacks
            if isinstance(callback, keras.callbacks.BackupAndRestore)
        ]
        return [folder for folder in folders if "://" not in folder]

    def on_train_end(self, logs: Any = None) -> None:
        """Put the averages in, measure the statistics, and keep the best."""
        self._rate.rest()
        if not self._averages.variables and self._steps:
            # A run of a few steps: its last weights are the only sample.
            self._averages.add(self._steps, self.model)
        if not self._averages.variables:
            return
        state = _State([*self._averages.assigned, *_statistics(self.model)])
        last = state.copied()
        try:
            seconds = agreed("the seconds of a run", time.perf_counter() - self._began)
            self._finish(state, last)
            self._polish_vectors(state, seconds)
        except BaseException:
            state.put(last)
            raise
        finally:
            # The data of fit are not this callback's to keep.
            self._fit, self._averages = None, Averages()

    def _finish(self, state: "_State", last: Sequence[Tensor]) -> None:
        """Try the averages, and the last weights where validation data can tell."""
        validation = None if self._fit is None else self._fit.validation
        metrics = {} if validation is None else self._evaluated(validation)
        if validation is None or "loss" not in metrics:
            if validation is not None:
                _warn_of_no_loss(metrics)
            self._put_averages(state, last)
            self.kept = "averages"
            return
        candidates, self.losses["last"] = {"last": last}, metrics["loss"]
        if _statistics(self.model):
            self._measure()
            candidates["last, measured again"] = state.copied()
            self.losses["last, measured again"] = self._evaluated(validation)["loss"]
        self._put_averages(state, last)
        candidates["averages"] = state.copied()
        self.losses["averages"] = self._evaluated(validation)["loss"]
        # Of equal ones the averages are kept; a loss that is no number loses.
        names = reversed(candidates)
        self.kept = min(names, key=lambda name: _or_infinite(self.losses[name]))
        state.put(candidates[self.kept])

    def _polish_vectors(self, state: "_State", seconds: float) -> None:
        """Polish a model that is a vector, and keep that unless validation data say otherwise."""
        if self._fit is None:
            return
        before = state.copied()
        try:
            report = self._polish.run(self.model, self._fit, seconds)
        except Exception as error:
            state.put(before)
            # Traces of TensorFlow have many lines; the last one is the reason.
            reason = [type(error).__name__, *str(error).strip().splitlines()][-1].strip()
            warnings.warn(
                f"Finish cannot polish the vector of {self.model.name!r}: {reason} Its "
                f"{self.kept} stay. Finish(polish=False) does not try.",
                stacklevel=2,
            )
            return
        if report is None:
            return
        self.report = report
        if has_changed(report):
            self._keep_polished(state, before)
        if not self._fit.is_silent and index() == 0:
            verdict = "" if self.kept == "polished" or not has_changed(report) else "; not kept"
            print(f"Finish polished the vector: {report}{verdict}")

    def _keep_polished(self, state: "_State", before: Sequence[Tensor]) -> None:
        """Keep what was polished, unless the validation data are against it."""
        if self.kept in self.losses and self._fit is not None and self._fit.validation is not None:
            self.losses["polished"] = self._evaluated(self._fit.validation)["loss"]
            if not self.losses["polished"] <= self.losses[self.kept]:
                state.put(before)
                return
        self.kept = "polished"

    def _put_averages(self, state: "_State", last: Sequence[Tensor]) -> None:
        state.put(last)
        self._averages.put()
        self._measure()

    def _evaluated(self, validation: dict[str, Any]) -> dict[str, float]:
        metrics = self.model.evaluate(**validation, verbose=0, return_dict=True)
        numbers = {name: float(metrics[name]) for name in metrics if np.ndim(metrics[name]) == 0}
        # Processes with data of their own have losses of their own, and decide as one.
        return agreed("the losses of Finish", numbers)

    def _measure(self) -> None:
        """Measure the statistics of batch normalization, if the model has any."""
        if not normalizations_of(self.model):
            return
        try:
            count = measure_statistics(self.model, islice(self._batches(), _BATCHES))
        except Exception as error:
            if self.data is not None:
                raise
            raise ValueError(
                "Finish cannot call the model on what fit trains on, to measure the statistics of "
                f"batch normalization: {type(error).__name__}. Expected inputs of the model. Give "
                "Finish(data=x)."
            ) from error
        if not count:
            raise ValueError(
                "Finish has no data to measure the statistics of batch normalization on. "
                "Expected inputs in data, or training data that can be read again. Give "
                "Finish(data=x)."
            )
        if self.data is None and count < min(_BATCHES, self._longest_epoch):
            warnings.warn(
                f"Finish measured the statistics of batch normalization on {count} batches, as "
                f"the data of fit are at their end. Expected {_BATCHES}, or those of an epoch. "
                "Give Finish(data=x), or data that can be read again.",
                stacklevel=2,
            )

    def _batches(self) -> Iterator[Any]:
        if self.data is not None or self._fit is None:
            return batches_of(self.data, self.batch_size)
        return batches_of(batches_of_fit(self._fit.data), self.batch_size)


class _State:
    """The state of some variables can be copied and put back.

    Args:
        variables: The variables.
    """

    def __init__(self, variables: Sequence[keras.Variable]) -> None:
        self._variables = list(variables)

    def copied(self) -> list[Tensor]:
        """Return copies of the values; they stay on the device."""
        return [
            ops.copy(ops.stop_gradient(ops.convert_to_tensor(variable)))
            for variable in self._variables
        ]

    def put(self, values: Sequence[Tensor]) -> None:
        """Give the variables values that `copied` returned."""
        for variable, value in zip(self._variables, values, strict=True):
            # A copy: the trainers of JAX give the memory of what a variable holds away.
            variable.assign(ops.copy(value))


def _statistics(model: keras.Model) -> list[keras.Variable]:
    """Return the moving statistics of batch normalization that training moves."""
    return [
        variable
        for layer in normalizations_of(model)
        for variable in (layer.moving_mean, layer.moving_variance)
    ]


def _warn_of_no_loss(metrics: Mapping[str, float]) -> None:
    warnings.warn(
        f"The validation data give {', '.join(sorted(metrics)) or 'no metric'} and no 'loss', so "
        "Finish keeps the averages without a comparison. Expected data and a test_step that give "
        "one. Return it from test_step, or leave the validation data out.",
        stacklevel=2,
    )


def _or_infinite(loss: float) -> float:
    return math.inf if math.isnan(loss) else loss
