"""The numbers of listed weights go into the logs of a run, and its known failures into words."""

from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from quantal._core.keras_internals.running_fit import Fit, fit_around
from quantal._core.numbers.values import Values
from quantal.callbacks._failures import Failures
from quantal.callbacks._parameters import all_parameters
from quantal.callbacks._records import Record, total_of

MOST_NAMED = 16
"""The longest list of which each value's share is logged: more keys nobody reads."""


class Watch(keras.callbacks.Callback):
    """The callback writes how listed weights train into the logs, and warns of what goes wrong.

    Use it to see whether values still flip. Its numbers are in `History`, in the progress bar,
    and in whatever else reads the logs: `CSVLogger`, `TensorBoard`, `EarlyStopping`, MLflow,
    Weights and Biases, Optuna. It puts itself in front of the other callbacks, so that all of
    them see its numbers, wherever it stands in the list.

        watch = quantal.callbacks.Watch()
        history = model.fit(x, y, epochs=20, callbacks=[watch])
        history.history["flips"]

    Each epoch has four numbers, over all listed elements of the model:

    - `flips`: the share of elements whose value is another than at the epoch's start.
    - `distance`: how far latents are from their nearest value, in half gaps of the list (the
      root mean square): 0 on a value, 1 halfway between two, where the next step flips.
    - `latent_steps`: how far latents moved in the epoch, in half gaps.
    - `entropy`: the bits per element that an entropy coder needs: how evenly values are used.

    It warns, once each, with what to do: where weight decay acts on latents; where hardly a
    value changes, since latents move too little to cross a gap in the run; where a weight flips
    no more long before the end although the loss is not much lower than at first; where a latent
    is not finite; where a value was never used; and where batch normalization's statistics do
    not fit the weights in the end. Frozen layers are left out of that.

    Memory: the codes of each epoch, a byte or two for each element that is kept.

    Args:
        per_parameter: Whether the logs have the numbers of each parameter, too:
            `"flips/dense/kernel"`; and for a list of up to 16 values the share of each,
            `"share/dense/kernel/-1"`.
        most_elements: The largest number of elements of a parameter whose codes are kept in
            `codes`; of more, so many evenly spaced ones.

    Attributes:
        codes: The codes of each parameter, by its path, at the start and after each epoch:
            unsigned integers (epochs + 1, elements).
        elements: The positions of these elements in the flattened parameter, by its path.
        shares: The share of elements that have each value of the list, by the parameter's path:
            (epochs + 1, K), in the order of the user's list.
        flips: The share of elements that flipped in each epoch, by the parameter's path: (epochs,).
        values: The list of each parameter, by its path.
        warnings: What it has warned of in this run.

    Raises:
        ValueError: most_elements is below 1; or at the start of training, the model has no
            parameter.

    >>> import keras, numpy as np, quantal
    >>> model = keras.Sequential([keras.Input((3,)), quantal.LearnableMultiplier([1, -1])])
    >>> model.compile("adam", "mse")
    >>> watch, x = Watch(), np.ones((64, 3), "float32")
    >>> history = model.fit(x, -x, epochs=2, verbose=0, callbacks=[watch])
    >>> sorted(history.history)
    ['distance', 'entropy', 'flips', 'latent_steps', 'loss']
    >>> [codes.shape for codes in watch.codes.values()]
    [(3, 3)]
    """

    def __init__(self, per_parameter: bool = False, most_elements: int = 4096) -> None:
        super().__init__()
        if isinstance(most_elements, bool) or not most_elements >= 1:
            raise ValueError(f"most_elements is {most_elements!r}. Expected a whole number from 1.")
        self.per_parameter, self.most_elements = bool(per_parameter), int(most_elements)
        self._records: list[Record] = []
        self._failures = Failures()
        self._fit: Fit | None = None

    @property
    def codes(self) -> dict[str, NDArray[Any]]:
        """The codes of each parameter at the start and after each epoch."""
        return {record.path: np.stack(record.rows) for record in self._records}

    @property
    def elements(self) -> dict[str, NDArray[np.int64]]:
        """The positions of the elements whose codes are kept, in the flattened parameter."""
        return {record.path: record.elements for record in self._records}

    @property
    def shares(self) -> dict[str, NDArray[np.float64]]:
        """The share of elements with each value, at the start and after each epoch."""
        return {record.path: np.stack(record.shares) for record in self._records}

    @property
    def flips(self) -> dict[str, NDArray[np.float64]]:
        """The share of elements that flipped in each epoch."""
        return {
            record.path: np.array([numbers.flips for numbers in record.epochs])
            for record in self._records
        }

    @property
    def values(self) -> dict[str, Values]:
        """The list of each parameter; of a learnable one, its numbers after the last epoch."""
        return {record.path: record.values for record in self._records}

    @property
    def warnings(self) -> list[str]:
        """The warnings of this run, in their order."""
        return self._failures.texts

    def on_train_begin(self, logs: Any = None) -> None:
        """Record the codes at the start, and go in front of the other callbacks."""
        parameters = all_parameters(self.model)
        self._records = [Record(parameter, self.most_elements) for parameter in parameters]
        self._failures = Failures()
        self._fit = fit_around()
        if self._fit is not None:
            self._go_to_the_front(self._fit.callbacks)
        self._failures.check_weight_decay(self.model.optimizer, parameters)

    def _go_to_the_front(self, callbacks: keras.callbacks.CallbackList) -> None:
        """Let all other callbacks be called after this one: they share its logs."""
        others = [callback for callback in callbacks.callbacks if callback is not self]
        if len(others) < len(callbacks.callbacks):
            # Another list: Keras is going through this one.
            callbacks.callbacks = [self, *others]

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Write the epoch's numbers into its logs, and warn of what goes wrong."""
        logs = {} if logs is None else logs
        numbers = [record.update() for record in self._records]
        loss = logs.get("loss")
        logs.update(total_of(numbers).named())
        if self.per_parameter:
            for record, one in zip(self._records, numbers, strict=True):
                logs.update(one.named(f"/{record.path}"))
                logs.update(_shares_of(record))
        self._failures.check_epoch(epoch + 1, self.params.get("epochs"), loss, self._records)

    def on_train_end(self, logs: Any = None) -> None:
        """Warn of values that were never used, and of statistics that do not fit."""
        self._failures.check_usage(self._records)
        if self._fit is not None:
            self._failures.check_statistics(self.model, self._fit)
        self._fit = None  # The data of fit are not this callback's to keep.


def _shares_of(record: Record) -> dict[str, float]:
    """Return the share of each value of a list by its name in the logs; none for long lists."""
    values = record.values
    if len(values) > MOST_NAMED:
        return {}
    names = range(len(values)) if values.channels is not None else values.tolist()
    shares = record.shares[-1].tolist()
    return {
        f"share/{record.path}/{name:g}": share for name, share in zip(names, shares, strict=True)
    }
