"""Elements that keep flipping late in training are frozen."""

from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from quantal._core.parameter import Parameter
from quantal._core.tensors.distributed import whole_array
from quantal.callbacks._parameters import all_parameters


class FreezeOscillating(keras.callbacks.Callback):
    """The callback freezes elements that keep flipping late in training.

    Use it in long runs at a constant rate, where some elements never decide: each flip
    moves batch normalisation and the other weights, too.

    At each epoch's end the flip rate `f` of an element becomes
    `momentum * flipped + (1 - momentum) * f`, `flipped` being 1 if its value is not that
    of the epoch before, and 0 otherwise; the mean of its values moves the same way. From
    the share `begin` of the run on, elements with `f` above `threshold` are frozen: at
    this and every later epoch's end their latents are put onto the value nearest to that
    mean. Within an epoch the optimizer may still move them; at its end they are back.

    Memory: three numbers and a boolean for each element, on the host.

    Args:
        begin: The share of the run after which elements are frozen, from 0, below 1.
        threshold: The flip rate above which they are frozen, from 0, below 1.
        momentum: The weight of the newest epoch in flip rate and mean, above 0, at most 1.

    Attributes:
        frozen: How many elements of each parameter are frozen, by its path.

    Raises:
        ValueError: An argument is out of its range; or at the start of training, the
            model has no parameter.

    Source: Nagel et al., "Overcoming Oscillations in Quantization-Aware Training", ICML
    2022, with epochs in place of steps: no compiled step has to know what is frozen.

    >>> FreezeOscillating(begin=0.8).begin
    0.8
    """

    def __init__(self, begin: float = 0.7, threshold: float = 0.3, momentum: float = 0.3) -> None:
        super().__init__()
        for name, number, inside in (
            ("begin", begin, 0 <= begin < 1),
            ("threshold", threshold, 0 <= threshold < 1),
            ("momentum", momentum, 0 < momentum <= 1),
        ):
            if not inside:
                raise ValueError(f"{name} is {number!r}. Expected a share between 0 and 1.")
        self.begin, self.threshold, self.momentum = begin, threshold, momentum
        self.frozen: dict[str, int] = {}
        self._watches: list[_Watch] = []

    def on_train_begin(self, logs: Any = None) -> None:
        """Begin to watch every parameter of the model."""
        parameters = all_parameters(self.model)
        self._watches = [_Watch(parameter) for parameter in parameters]
        self.frozen = {}

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Count the flips, and freeze what flips too often."""
        is_late = epoch + 1 > self.begin * self.params["epochs"]
        for watch in self._watches:
            watch.update(self.momentum)
            if is_late:
                watch.frozen |= watch.rate > self.threshold
            watch.freeze()
            self.frozen[watch.parameter.path] = int(watch.frozen.sum())


class _Watch:
    """A watch follows the values of one parameter at the ends of epochs.

    Attributes:
        rate: The flip rate of each element, float32.
        mean: The moving mean of each element's values, float32.
        frozen: Which elements are frozen.
    """

    def __init__(self, parameter: Parameter) -> None:
        self.parameter = parameter
        self._last_values = self._values()
        self.mean = self._last_values.copy()
        self.rate = np.zeros(self.mean.shape, np.float32)
        self.frozen = np.zeros(self.mean.shape, bool)

    def _values(self) -> NDArray[np.float32]:
        return np.array(whole_array(self.parameter.listed_values))

    def update(self, momentum: float) -> None:
        """Take the present values into rate and mean; frozen elements keep their mean."""
        values = self._values()
        self.rate += momentum * ((values != self._last_values) - self.rate)
        self.mean += np.where(self.frozen, 0, momentum * (values - self.mean))
        self._last_values = values

    def freeze(self) -> None:
        """Put frozen elements onto the value nearest to their mean."""
        if self.frozen.any() and not self.parameter.is_frozen:
            codes = self.parameter.values.codes(self.mean)
            self.parameter.set_codes(codes, where=self.frozen)
            self._last_values = self._values()
