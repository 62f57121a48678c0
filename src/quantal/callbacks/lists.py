"""Learned lists are fitted to the weights that share their entries."""

from typing import Any

import keras
import numpy as np

from quantal._core.parameter import Parameter
from quantal.callbacks._parameters import required_parameters


class RefreshLists(keras.callbacks.Callback):
    """The callback moves each entry of a learnable list to the mean of its weights.

    Use it with `Values(..., learnable=True)` where weights are shared: gradients move
    codes and entries, and a refresh from time to time makes the entries fit the codes
    again (one step of k-means). Entries whose code no weight has stay where they are, and so
    do the lists of frozen layers (`trainable=False`).

    Args:
        every: Epochs from one refresh to the next, at least 1.

    Raises:
        ValueError: `every` is below 1; or at the start of training, the model has no
            learnable list.

    Source: the refresh of centroids in pytorch/ao's training with codebooks, there
    every 100 steps; k-means, Lloyd 1982.

    >>> RefreshLists(every=2).every
    2
    """

    def __init__(self, every: int = 1) -> None:
        super().__init__()
        if isinstance(every, bool) or not isinstance(every, (int, np.integer)) or every < 1:
            raise ValueError(f"every is {every!r}. Expected a number of epochs, at least 1.")
        self.every = int(every)
        self._learned: list[Parameter] = []

    def on_train_begin(self, logs: Any = None) -> None:
        """Collect the parameters with learnable lists."""
        self._learned = required_parameters(
            self.model,
            lambda parameter: parameter.entries is not None,
            missing="learnable list",
            expected="one created with Values(..., learnable=True)",
        )

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Refresh the lists after every `every` epochs."""
        if (epoch + 1) % self.every == 0:
            for parameter in self._learned:
                if not parameter.is_frozen:
                    parameter.refresh_values()
