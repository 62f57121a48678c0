"""The network with quantal's layers."""

import itertools
import os
import time
from collections.abc import Iterator

os.environ.setdefault("KERAS_BACKEND", "jax")

import keras
import protocol

import quantal


class Epochs(keras.utils.PyDataset):
    """The epochs of the protocol, for one call of `fit`.

    Args:
        epochs: Images and labels of each epoch.
    """

    def __init__(self, epochs: Iterator[protocol.Epoch]) -> None:
        super().__init__()
        self._epochs = epochs
        self._images, self._labels = next(epochs)

    def __len__(self) -> int:
        return -(-len(self._images) // protocol.BATCH)

    def __getitem__(self, index: int) -> protocol.Epoch:
        part = slice(index * protocol.BATCH, (index + 1) * protocol.BATCH)
        return self._images[part], self._labels[part]

    def on_epoch_end(self) -> None:
        """Go on to the next epoch; after the last one the data stay for the statistics."""
        self._images, self._labels = next(self._epochs, (self._images, self._labels))


class Clock(keras.callbacks.Callback):
    """Notes the processor's time at the start of each epoch."""

    def __init__(self):
        super().__init__()
        self.starts = []

    def on_epoch_begin(self, epoch, logs=None):
        self.starts.append(time.process_time())


def train_and_finish(model: keras.Model, count: int, epochs: Iterator[protocol.Epoch]):
    """Fit as a user does who sets nothing but the callback; return the seconds of each epoch.

    What the callback does at the end belongs to the last epoch.
    """
    clock = Clock()
    callbacks = [quantal.callbacks.Finish(), clock]
    model.fit(Epochs(epochs), epochs=count, shuffle=False, verbose=0, callbacks=callbacks)
    times = [*clock.starts, time.process_time()]
    return [round(end - start, 3) for start, end in itertools.pairwise(times)]


def build(plan: protocol.Plan) -> protocol.Run:
    keras.utils.set_random_seed(plan.seed)

    def dense(units: int) -> keras.Layer:
        layer = keras.layers.Dense(units, use_bias=False)
        return layer if plan.kind == "float" else quantal.Discrete(layer, plan.kind)

    def kernel(layer: keras.Layer):
        used = layer.kernel if plan.kind == "float" else layer.listed_values
        return keras.ops.convert_to_numpy(used)

    settings = f"Discrete, {plan.kind}, no scale"
    if plan.end == "cosine":
        return protocol.keras_run(keras, dense, kernel, plan, settings)
    return protocol.keras_run(keras, dense, kernel, plan, f"{settings}, Finish", train_and_finish)


protocol.main("quantal", keras.backend.backend(), build)
