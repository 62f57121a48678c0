"""A vector planted before a frozen Fashion-MNIST network: real data, a score known attainable."""

import functools
import pathlib

import keras
import numpy as np
from learning.cases import LISTS as ALL_LISTS
from peers.protocol import BATCH, INPUTS, load

import quantal

LISTS = ("signs", "four_values")
NETWORK_EPOCHS, EPOCHS = 5, 3


class Free(keras.Layer):
    """The input times a free float for each feature, zero at first."""

    def build(self, input_shape):
        self.kernel = self.add_weight(shape=input_shape[1:], initializer="zeros")

    def call(self, inputs):
        return inputs * self.kernel


def loss() -> keras.Loss:
    return keras.losses.SparseCategoricalCrossentropy(from_logits=True)


@functools.cache
def _data(path: pathlib.Path) -> tuple:
    """(images, labels) for training and for testing, the training mean taken off the pixels."""
    (images, labels), (test, test_labels) = load(str(path), "train"), load(str(path), "t10k")
    mean = images.mean(axis=0)
    return images - mean, labels, test - mean, test_labels


@functools.cache
def _network(path: pathlib.Path) -> keras.Model:
    """The frozen float network, trained once a process."""
    keras.utils.set_random_seed(0)
    images, labels, *_ = _data(path)
    dense = [keras.layers.Dense(256, activation="relu"), keras.layers.Dense(10)]
    model = keras.Sequential([keras.Input((INPUTS,)), *dense])
    model.compile("adam", loss())
    model.fit(images, labels, batch_size=BATCH, epochs=NETWORK_EPOCHS, verbose=0)
    model.trainable = False
    return model


def train(
    values: str, estimator: str, rate: float, seed: int, path: pathlib.Path, epochs: int = EPOCHS
) -> float:
    """Learn the vector through `x * d`; the test accuracy in percent.

    The network sees the pixels divided by the hidden vector: with that vector (the
    estimator "planted") its accuracy is what it was.
    """
    numbers = np.asarray(ALL_LISTS[values], np.float32)
    images, labels, test, test_labels = _data(path)
    network = _network(path)
    keras.utils.set_random_seed(seed)
    hidden = numbers[np.random.default_rng(seed).integers(len(numbers), size=INPUTS)]
    if estimator == "planted":
        return _accuracy(network, test, test_labels)
    first = Free() if estimator == "float" else quantal.LearnableMultiplier(
        numbers, estimator=estimator
    )  # fmt: skip
    model = keras.Sequential([keras.Input((INPUTS,)), first, network])
    model.compile(keras.optimizers.Adam(rate), loss())
    model.fit(images / hidden, labels, batch_size=BATCH, epochs=epochs, verbose=0)
    return _accuracy(model, test / hidden, test_labels)


def _accuracy(model: keras.Model, images: np.ndarray, labels: np.ndarray) -> float:
    found = model.predict(images, batch_size=1000, verbose=0).argmax(axis=1)
    return round(100 * float(np.mean(found == labels)), 2)
