"""MNIST-1D: a small convolutional network with every kernel on a list."""

import functools
import pathlib

import keras
import numpy as np
from keras import layers
from learning.cases import LISTS as ALL_LISTS
from learning.ends import callbacks_of, rate_of

import quantal

LISTS = ("ternary", "four_values", "floats")
EPOCHS, BATCH, CHANNELS = 60, 100, 25


@functools.cache
def _data(path: pathlib.Path) -> tuple[np.ndarray, ...]:
    with np.load(path) as file:
        x, x_test = (file[name].astype(np.float32)[..., None] for name in ("x", "x_test"))
        return x, file["y"], x_test, file["y_test"]


def train(
    values: str,
    estimator: str,
    rate: float,
    seed: int,
    path: pathlib.Path,
    epochs: int = EPOCHS,
    end: str = "cosine",
) -> float:
    """Train from scratch, Adam's rate falling to zero along a cosine; test accuracy in percent.

    Other ends: see `ends.py`.
    """
    keras.utils.set_random_seed(seed)
    x, y, x_test, y_test = _data(path)

    def on_list(layer):
        if estimator == "float":
            return layer
        return quantal.Discrete(layer, ALL_LISTS[values], estimator=estimator)

    body = []
    for size in (5, 3, 3):
        convolution = layers.Conv1D(CHANNELS, size, strides=2, padding="same", use_bias=False)
        body += [on_list(convolution), layers.BatchNormalization(momentum=0.9), layers.ReLU()]
    last = on_list(layers.Dense(10, use_bias=False)), layers.BatchNormalization(momentum=0.9)
    model = keras.Sequential([keras.Input(x.shape[1:]), *body, layers.Flatten(), *last])
    adam = rate_of(end, rate, epochs * -(-len(x) // BATCH))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(adam), loss)
    model.fit(x, y, batch_size=BATCH, epochs=epochs, verbose=0, callbacks=callbacks_of(end))
    found = model.predict(x_test, batch_size=1000, verbose=0).argmax(axis=1)
    return round(100 * float(np.mean(found == y_test)), 2)
