"""What flips to and fro late in training is held."""

from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from quantal._core.parameter import Parameter, parameters_of


class FreezeOscillating(keras.callbacks.Callback):
    """Late in training, holds the elements that keep flipping at their mean's nearest value.

    Use it in long runs at a constant rate, where some elements never decide: each flip
    moves batch normalisation and the other weights, too.

    At each epoch's end the flip rate `f` of an element becomes
    `momentum * flipped + (1 - momentum) * f`, `flipped` being 1 if its value is not that
    of the epoch before, and 0 otherwise; the mean of its values moves the same way. From
    the share `begin` of the run on, elements with `f` above `threshold` are held: at
    this and every later epoch's end their latents are put onto the value nearest to that
    mean. Within an epoch the optimizer may still move them; what training leaves is held.

    Memory: three numbers and a boolean for each element, on the host.

    Args:
        begin: The share of the run after which elements are held, from 0, below 1.
        threshold: The flip rate above which they are, from 0, below 1.
        momentum: Of the flip rate, above 0, at most 1.

    Attributes:
        held: How many elements of each parameter are held, by its path.

    Raises:
        ValueError: An argument is out of its range; or at the start of training, the
            model has no parameter.

    Source: Nagel et al., "Overcoming Oscillations in Quantization-Aware Training", ICML
    2022, with epochs in place of steps: no compiled step has to know what is held.

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
                raise ValueError(
                    f"{name} is {number!r}. Expected a share between 0 and 1. Give, say, 0.5."
                )
        self.begin, self.threshold, self.momentum = begin, threshold, momentum
        self.held: dict[str, int] = {}
        self._watched: list[_Watch] = []

    def on_train_begin(self, logs: Any = None) -> None:
        self._watched = [_Watch(parameter) for parameter in parameters_of(self.model)]
        if not self._watched:
            raise ValueError(
                "The model has no discrete parameter, so nothing can oscillate. Expected a "
                "model with quantal's layers. Leave the callback out."
            )
        self.held = {}

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        late = epoch + 1 > self.begin * self.params["epochs"]
        for watch in self._watched:
            watch.see(self.momentum)
            if late:
                watch.held |= watch.rate > self.threshold
            watch.hold()
            self.held[watch.parameter.path] = int(watch.held.sum())


class _Watch:
    """What is known of one parameter's choices at the ends of epochs."""

    def __init__(self, parameter: Parameter) -> None:
        self.parameter = parameter
        self.last = self._chosen()
        self.mean = self.last.copy()
        self.rate = np.zeros(self.last.shape, np.float32)
        self.held = np.zeros(self.last.shape, bool)

    def _chosen(self) -> NDArray[np.float32]:
        return np.array(keras.ops.convert_to_numpy(self.parameter.kernel))

    def see(self, momentum: float) -> None:
        """Note what is chosen now; held elements keep their mean."""
        chosen = self._chosen()
        self.rate += momentum * ((chosen != self.last) - self.rate)
        self.mean += np.where(self.held, 0, momentum * (chosen - self.mean))
        self.last = chosen

    def hold(self) -> None:
        """Put held elements onto the value nearest to their mean."""
        if self.held.any():
            self.parameter.set_codes(self.parameter.values.codes(self.mean), where=self.held)
            self.last = self._chosen()
