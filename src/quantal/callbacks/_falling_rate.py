"""A rate that nobody chose falls along the run, where the run trains kernels on lists."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import keras

from quantal._core.by_identity import ByIdentity
from quantal._core.keras_internals.layers import flatten_layers
from quantal._core.keras_internals.running_fit import Fit
from quantal._core.parameter import parameters_of

DEFAULT = 0.001
"""Keras's rate for Adam, AdamW and Nadam: that of a user who sets none."""

START = 0.01
"""Such a run starts at this rate: an Adam step of it is a hundredth of half a list's range, so that
codes move within some hundred steps. The best of 0.001, 0.003, 0.01 and 0.03 for lists."""

LISTED_SHARE = 0.9
"""At least this share of the numbers in matrices that train are on lists. Free kernels have other
best rates; the first kernel of a convnet, which `discretize` leaves free, is a small share."""

_ADAMS = (keras.optimizers.Adam, keras.optimizers.Nadam)
"""Their steps are as long as the rate, whatever the loss's scale. (AdamW is an Adam.)"""

_ROW_NORMALIZATIONS = (
    keras.layers.LayerNormalization,
    keras.layers.RMSNormalization,
    keras.layers.GroupNormalization,
)
"""Behind these 0.001 is the better rate: a dense network of three values lost a point at 0.01."""

_OTHER_SCHEDULES = (
    keras.callbacks.LearningRateScheduler,
    keras.callbacks.ReduceLROnPlateau,
)

_TOLERANCE = 1e-5
"""Rates are float32, so one that is read differs from what was set."""


class Run(NamedTuple):
    """The length of a run, and how far it is.

    Attributes:
        epochs: All epochs of the run, those before an interruption, too.
        steps_per_epoch: The steps of each; 0 if they are not known.
        epoch: The epoch that begins, from 0.
    """

    epochs: int
    steps_per_epoch: int
    epoch: int

    @property
    def steps(self) -> int:
        """All steps; 0 if they are not known."""
        return self.epochs * self.steps_per_epoch

    @property
    def begun(self) -> int:
        """The steps before the epoch that begins."""
        return self.epoch * self.steps_per_epoch


class FallingRate:
    """The rate of an optimizer that has Keras's default falls from 0.01 to 0 along a cosine.

    It does so only where nobody chose a rate: the optimizer is an Adam with a rate of 0.001 that
    is no schedule, and no callback moves it; where `fit` knows the run's length; and where
    kernels on lists are what trains, without layer normalization. Between epochs, and after the
    run, the rate is what it was before, so that files have that one.

    Args:
        is_wanted: Whether it ever does.
    """

    def __init__(self, is_wanted: bool = True) -> None:
        self._is_wanted = is_wanted
        self._optimizer: keras.optimizers.Optimizer | None = None
        self._steps, self._last = 0, math.nan

    @property
    def is_active(self) -> bool:
        """Whether the rate of this run falls."""
        return self._optimizer is not None

    def begin(self, model: keras.Model, fit: Fit | None, run: Run) -> None:
        """Decide whether the rate falls in a run, or in the rest of one that was interrupted.

        Args:
            model: The model that trains.
            fit: The fit that is running; None if there is none.
            run: The run.
        """
        self.rest()  # Where the run before was interrupted.
        self._optimizer, self._steps = None, run.steps
        optimizer = getattr(model, "optimizer", None)
        optimizer = getattr(optimizer, "inner_optimizer", optimizer)  # Of mixed precision.
        callbacks = [] if fit is None else fit.callbacks.callbacks
        if not self._is_wanted or not run.steps or not isinstance(optimizer, _ADAMS):
            return
        if any(isinstance(callback, _OTHER_SCHEDULES) for callback in callbacks):
            return
        if not _is_default(optimizer) and not self._is_of_interrupted(optimizer, callbacks, run):
            return
        if any(isinstance(layer, _ROW_NORMALIZATIONS) for layer in flatten_layers(model)):
            return
        if _listed_share(model) >= LISTED_SHARE:
            self._optimizer, self._last = optimizer, _rate_of(optimizer)
            self.rest()

    def _is_of_interrupted(
        self, optimizer: keras.optimizers.Optimizer, callbacks: Sequence[Any], run: Run
    ) -> bool:
        """Return whether the rate is one that this schedule had amid the epoch that begins again.

        `BackupAndRestore(save_freq=...)` keeps it there, and puts it back into the optimizer.
        """
        if not any(isinstance(c, keras.callbacks.BackupAndRestore) for c in callbacks):
            return False
        latest, earliest = self._at(run.begun), self._at(run.begun + run.steps_per_epoch)
        return earliest <= _rate_of(optimizer) < latest * (1 - _TOLERANCE)

    def _at(self, step: int) -> float:
        """Return the rate of the step after this one, counted from the start of the run."""
        return START * (1 + math.cos(math.pi * min(step / self._steps, 1.0))) / 2

    def move(self, step: int) -> None:
        """Set the rate of the steps after this one, counted from the start of the run."""
        if self._optimizer is not None:
            self._set(self._at(step))

    def rest(self) -> None:
        """Give the optimizer its rate back, until the next `move`."""
        self._set(DEFAULT)

    def _set(self, rate: float) -> None:
        """Set the rate; leave it alone from now on if somebody else has set it meanwhile."""
        if self._optimizer is None:
            return
        if not math.isclose(_rate_of(self._optimizer), self._last, rel_tol=_TOLERANCE):
            self._optimizer = None
            return
        self._optimizer.learning_rate = self._last = rate


def _is_default(optimizer: keras.optimizers.Optimizer) -> bool:
    """Return whether the rate is Keras's default, and no schedule."""
    return math.isclose(_rate_of(optimizer), DEFAULT, rel_tol=_TOLERANCE)


def _rate_of(optimizer: keras.optimizers.Optimizer) -> float:
    """Return the rate of an optimizer; NaN where it is a schedule or a function."""
    rate = optimizer.learning_rate
    if not isinstance(rate, keras.Variable):
        return math.nan
    return float(keras.ops.convert_to_numpy(rate))


def _listed_share(model: keras.Model) -> float:
    """Return the share of listed weights among all numbers in the matrices that train.

    Biases, normalization and scales are no matrices. A vector whose latents have steps of their
    own counts as free: its rate says nothing.
    """
    parameters = [p for p in parameters_of(model) if not p.is_frozen]
    listed = sum(math.prod(p.shape) for p in parameters if p.effective is None)
    theirs = ByIdentity.of_keys(variable for p in parameters for variable in p.variables)
    free = sum(
        math.prod(variable.shape)
        for variable in model.trainable_variables
        if len(variable.shape) > 1 and variable not in theirs
    )
    free += sum(math.prod(p.shape) for p in parameters if p.effective is not None)
    return listed / (listed + free) if listed else 0.0
