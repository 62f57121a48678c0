"""The known failures of training on lists, in words and with what to do."""

import math
import warnings
from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Any

import keras

from quantal._core.effective_latent import function_of
from quantal._core.keras_internals.compiled import decays
from quantal._core.keras_internals.running_fit import Fit, batches_of_fit
from quantal._core.parameter import Parameter
from quantal.callbacks._records import Record
from quantal.callbacks.finishing import Finish
from quantal.callbacks.statistics import (
    ReestimateStatistics,
    loss_with_statistics,
    normalizations_of,
)

_MOST_NAMED = 3
"""So many weights are named in a warning; of more their number is said."""

_STILL = 0.2
"""A weight without flips for this share of the run, and for two epochs, flips no more."""

_LATE = 0.7
"""From this share of the run on, a weight may come to rest."""

_LITTLE = 0.5
"""A loss has become little lower if it lost less than this share of the first epoch's."""

_BEGUN = 0.25
"""How far latents move is judged after this share of the run, since rates may warm up."""

_FEW = 0.02
"""A weight hardly trains if so few of its elements have changed their value since the start."""

_ELEMENTS_A_VALUE = 8
"""A list has to have so many elements for each value before an idle value says anything."""

_LONGEST = 16
"""Lists that are longer are likely to have idle values, and nothing is wrong with that."""

_BATCHES = 4
"""Statistics are compared on so many batches of the training data."""

_WORSE, _MATTERS = 1.25, 0.1
"""Statistics do not fit if the loss with them is higher by this factor, and by this share of the
first epoch's loss."""


class Failures:
    """The failures of a run are checked at its start, at each epoch's end and at its end.

    Each is said once, as a warning that names the weights and what to do.

    Attributes:
        texts: What has been said.
    """

    def __init__(self) -> None:
        self.texts: list[str] = []
        self._said: set[str] = set()
        self._first_loss: float | None = None

    def check_weight_decay(self, optimizer: Any, parameters: Sequence[Parameter]) -> None:
        """Warn of weight decay, or of a penalty that is the same, that acts on latents."""
        trained = [parameter for parameter in parameters if not parameter.is_frozen]
        inner = getattr(optimizer, "inner_optimizer", optimizer)
        if getattr(inner, "weight_decay", None):
            paths = [p.path for p in trained if decays(inner, p.latent)]
            self._say(
                "decay",
                paths,
                f"Weight decay of {inner.weight_decay:g} acts on the latents of {{}}, and pulls "
                "them to the middle of their list, so that weights flip for no gain in the loss. "
                "Expected none on latents. Call quantal.exclude_from_weight_decay(optimizer, "
                "model) before fit, with a new optimizer.",
            )
        penalties = (keras.regularizers.L1, keras.regularizers.L2, keras.regularizers.L1L2)
        paths = [
            p.path for p in trained if isinstance(function_of(p.latent.regularizer), penalties)
        ]
        self._say(
            "penalty",
            paths,
            "A penalty on the size of weights (L1 or L2) acts on the latents of {}, and pulls them "
            "to the middle of their list, so that weights flip for no gain in the loss. Expected "
            "none on latents. Leave the regularizer out; quantal.regularizers has penalties for "
            "latents.",
        )

    def check_epoch(
        self, epochs: int, epochs_of_run: int | None, loss: float | None, records: list[Record]
    ) -> None:
        """Warn of latents that are not finite, move too little, or flip no more.

        Args:
            epochs: The number of epochs that ended.
            epochs_of_run: How many the run has; None where that is not known.
            loss: The training loss of the epoch; None where there is none.
            records: The parameters.
        """
        if self._first_loss is None:
            self._first_loss = loss
        records = [record for record in records if not record.parameter.is_frozen]
        self._say(
            "finite",
            [record.path for record in records if not record.is_finite],
            f"Latents of {{}} are not finite after epoch {epochs}: training has diverged. Expected "
            "finite numbers. Train again with a lower learning rate, or with clipnorm=1.0 in the "
            "optimizer; keras.callbacks.TerminateOnNaN() ends such a run.",
        )
        if epochs_of_run is None:
            return
        if epochs >= max(1, _BEGUN * epochs_of_run):
            self._check_reach([r for r in records if _is_stuck(r, epochs_of_run)], epochs_of_run)
        if loss is None or self._first_loss is None or epochs > _LATE * epochs_of_run:
            return
        if loss < self._first_loss - _LITTLE * abs(self._first_loss):
            return
        still = max(2, math.ceil(_STILL * epochs_of_run))
        self._say(
            "still",
            [record.path for record in records if record.epochs_without_flips() >= still],
            f"No element of {{}} has flipped in the last {still} epochs; this is epoch {epochs} of "
            f"{epochs_of_run}, and the loss is {loss:.4g} after {self._first_loss:.4g} in the "
            "first. If that is not as low as it should be, more epochs will not help: "
            "quantal.assess(model, x, y) says whether other values would, quantal.polish takes "
            "them, and a larger learning rate lets latents reach them.",
        )

    def _check_reach(self, records: list[Record], epochs_of_run: int) -> None:
        """Warn of latents whose steps are too small for a gap of their list."""
        if not records:
            return
        self._said.update(f"still {record.path}" for record in records)
        step, needed = records[0].largest_step, float(records[0].half_gaps().min())
        factor = f"{needed / step / epochs_of_run:.2g}" if step else "a thousand"
        self._say(
            "reach",
            [record.path for record in records],
            f"So far {records[0].changed():.2g} of the elements of {{}} have changed their value. "
            f"No latent moved further than {step:.2g} in an epoch, but half a gap of the list is "
            f"{needed:.2g}: in the {epochs_of_run} epochs of this run most values stay what they "
            f"are. Expected steps that cross a gap. Raise the learning rate ({factor} times as "
            'large, or more), train longer, or take estimator="settling", whose steps do not '
            "depend on the rate. It is right as it is where trained weights shall hardly change.",
            alike=True,
        )

    def check_usage(self, records: Iterable[Record]) -> None:
        """Warn of values that no element has had in the run."""
        idle = [record for record in records if _has_idle_values(record)]
        if not idle:
            return
        values = ", ".join(f"{number:g}" for number in idle[0].never_used())
        elements = math.prod(idle[0].parameter.shape)
        self._say(
            "idle",
            [record.path for record in idle],
            f"None of the {elements:,} elements of {{}} had the value {values} of its list at "
            "any epoch's end. A list without it says the same in fewer bits. If it is meant to be "
            'used, begin where it is near: with scale="learned" or another kernel_initializer, '
            "or by quantal.discretize from trained weights.",
            alike=True,
        )

    def check_statistics(self, model: keras.Model, fit: Fit) -> None:
        """Warn of batch normalization whose statistics do not fit the weights at the end."""
        mending = (Finish, ReestimateStatistics)
        if not normalizations_of(model) or any(
            isinstance(callback, mending) for callback in fit.callbacks.callbacks
        ):
            return
        try:
            batches = list(islice(batches_of_fit(fit.data), _BATCHES))
            if not batches:  # A generator at its end.
                return
            now, measured = loss_with_statistics(model, batches)
        except Exception:  # A model that fit does not simply call has no such loss.
            return
        least = _MATTERS * abs(self._first_loss or 0.0)
        if not now > max(_WORSE * measured, measured + least):
            return
        self._say(
            "statistics",
            [layer.name for layer in normalizations_of(model)],
            f"The moving statistics of {{}} do not fit the weights that the run ended with: on "
            f"training data, evaluated as in inference, the loss is {now:.4g}, and {measured:.4g} "
            "once they are measured again. Train with quantal.callbacks.Finish() or with "
            "ReestimateStatistics(x) behind the other callbacks, or with a smaller momentum of "
            "BatchNormalization.",
        )

    def _say(self, kind: str, paths: Sequence[str], text: str, alike: bool = False) -> None:
        """Warn of a failure of some weights, unless it was said before.

        Args:
            kind: The failure.
            paths: The weights.
            text: What to say; `{}` stands for the names of the weights.
            alike: Whether the numbers in the text are those of the first weight alone.
        """
        paths = [path for path in paths if f"{kind} {path}" not in self._said]
        if not paths or kind in self._said:
            return
        self._said.add(kind)
        text = text.format(paths[0] if alike else _names(paths))
        if alike and len(paths) > 1:
            text += f" It is alike with {_names(paths[1:])}."
        self.texts.append(text)
        warnings.warn(self.texts[-1], stacklevel=2)


def _names(paths: Sequence[str]) -> str:
    """Return the first of some names, and how many more there are."""
    names = ", ".join(paths[:_MOST_NAMED])
    return names + (f" and {len(paths) - _MOST_NAMED} more" if len(paths) > _MOST_NAMED else "")


def _is_stuck(record: Record, epochs_of_run: int) -> bool:
    """Return whether the latents of a parameter move too little to cross a gap in a run."""
    gaps = record.half_gaps()
    if record.parameter.estimator.has_steps or not len(gaps) or not record.is_finite:
        return False
    # Latents that start near midpoints flip with small steps, too.
    few = record.changed() < _FEW
    return few and record.largest_step * epochs_of_run < float(gaps.min())


def _has_idle_values(record: Record) -> bool:
    """Return whether a value was never used though there are elements enough for all."""
    count = len(record.values)
    enough = math.prod(record.parameter.shape) >= _ELEMENTS_A_VALUE * count
    is_short = count <= _LONGEST and bool(record.epochs)
    return enough and is_short and not record.parameter.is_frozen and bool(record.never_used())
