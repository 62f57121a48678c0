"""Learned lists fit the weights that hold them."""

from typing import Any

import keras
import numpy as np

from quantal._core.parameter import parameters_of


class RefreshLists(keras.callbacks.Callback):
    """Moves each entry of a learnable list to the mean of the weights that hold it.

    Use it with `Values(..., learnable=True)` where weights are shared: gradients move
    codes and entries, and a refresh from time to time makes the entries fit the codes
    again (one step of k-means). Entries that no weight holds stay where they are.

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
            raise ValueError(
                f"every is {every!r}. Expected a number of epochs, at least 1. Give, say, 1."
            )
        self.every = int(every)

    def on_train_begin(self, logs: Any = None) -> None:
        if not any(parameter.entries is not None for parameter in parameters_of(self.model)):
            raise ValueError(
                "The model has no learnable list, so there is nothing to refresh. Expected "
                "one made with Values(..., learnable=True). Leave the callback out, or give "
                "a layer such a list."
            )

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        if (epoch + 1) % self.every == 0:
            for parameter in parameters_of(self.model):
                if parameter.entries is not None:
                    parameter.refresh_values()
