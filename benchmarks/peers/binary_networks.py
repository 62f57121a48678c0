"""Two networks whose weights and activations are ±1, and what a run of them has in common.

The networks are those of larq's documentation: that of its MNIST tutorial, and its BinaryNet at an
eighth of the width and for grey images. The layers are those of Keras 2 or 3, whichever is given;
nothing of any library is imported here.
"""

import argparse
import importlib.metadata
import itertools
import json
import os
import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import protocol

WIDTH = 16
"""The channels of BinaryNet's first convolution: larq's documentation has 128."""


class Settings(NamedTuple):
    """A training as larq's documentation has it: Adam, its rate, and what it falls by."""

    rate: float
    decay: float  # The rate is divided by 1 + decay x step.
    batch: int
    epochs: int
    momentum: float  # What batch normalization keeps of its statistics at each step.


SETTINGS = {
    "tutorial": Settings(0.001, 0.0, 64, 6, 0.99),
    "binarynet": Settings(0.01, 0.0001, 50, 6, 0.999),
}
"""How larq's documentation trains each network; BinaryNet's 100 epochs are too many for here."""


class Parts(NamedTuple):
    """What a library makes layers of: each function returns the layers to put one after another.

    `conv(filters, padding, is_first)` has a kernel of 3 x 3, `dense(units)` is fully connected;
    both without bias, with weights of ±1, and inputs of ±1 but for the first.
    """

    conv: Callable[[int, str, bool], list]
    dense: Callable[[int], list]


def tutorial(keras, parts: Parts, normalized: Callable) -> list:
    """Return the layers of larq's MNIST tutorial."""
    pool = keras.layers.MaxPooling2D
    return [
        *parts.conv(32, "valid", True), pool(2), normalized(),
        *parts.conv(64, "valid", False), pool(2), normalized(),
        *parts.conv(64, "valid", False), normalized(), keras.layers.Flatten(),
        *parts.dense(64), normalized(),
        *parts.dense(10), normalized(), keras.layers.Softmax(),
    ]  # fmt: skip


def binarynet(keras, parts: Parts, normalized: Callable) -> list:
    """Return the layers of larq's BinaryNet for CIFAR-10, from `WIDTH` channels on."""
    pool = keras.layers.MaxPooling2D
    return [
        *parts.conv(WIDTH, "valid", True), normalized(),
        *parts.conv(WIDTH, "same", False), pool(2), normalized(),
        *parts.conv(2 * WIDTH, "same", False), normalized(),
        *parts.conv(2 * WIDTH, "same", False), pool(2), normalized(),
        *parts.conv(4 * WIDTH, "same", False), normalized(),
        *parts.conv(4 * WIDTH, "same", False), pool(2), normalized(), keras.layers.Flatten(),
        *parts.dense(8 * WIDTH), normalized(),
        *parts.dense(8 * WIDTH), normalized(),
        *parts.dense(10), normalized(), keras.layers.Softmax(),
    ]  # fmt: skip


def network(keras, name: str, parts: Parts, momentum: float | None = None):
    """Return a network without training; a momentum replaces that of larq's documentation."""
    body = {"tutorial": tutorial, "binarynet": binarynet}[name]

    def normalized():
        kept = SETTINGS[name].momentum if momentum is None else momentum
        return keras.layers.BatchNormalization(scale=False, momentum=kept)

    return keras.Sequential([keras.Input((28, 28, 1)), *body(keras, parts, normalized)])


def optimizer_of_larq(keras, name: str):
    """Return the optimizer that larq's documentation trains the network with."""
    rate, decay = SETTINGS[name][:2]
    if decay:
        rate = keras.optimizers.schedules.InverseTimeDecay(rate, 1, decay)
    return keras.optimizers.Adam(rate)


def clock_of(keras):
    """Return a callback of this Keras that notes the processor's time at the start of epochs."""

    class Clock(keras.callbacks.Callback):
        def __init__(self):
            super().__init__()
            self.starts = []

        def on_epoch_begin(self, epoch, logs=None):
            self.starts.append((time.process_time(), time.perf_counter()))

    return Clock()


def train(keras, model, data, batch: int, epochs: int, callbacks=()) -> dict[str, list[float]]:
    """Fit once; return the processor's and the clock's seconds of each epoch.

    What a callback does at the end belongs to the last epoch.
    """
    clock = clock_of(keras)
    model.fit(*data, batch_size=batch, epochs=epochs, verbose=0, callbacks=[*callbacks, clock])
    times = [*clock.starts, (time.process_time(), time.perf_counter())]
    return {
        name: [round(after[i] - before[i], 3) for before, after in itertools.pairwise(times)]
        for i, name in enumerate(("processor_seconds_per_epoch", "seconds_per_epoch"))
    }


def images_in_signs(images: np.ndarray) -> np.ndarray:
    """Return images in [0, 1] as larq's documentation has them, in [-1, 1] and with a channel."""
    return (2 * images - 1).reshape(-1, 28, 28, 1)


def check(signs: list[np.ndarray]) -> None:
    """Every kernel, as its layer uses it, has -1 and 1 and nothing else."""
    for each in signs:
        assert np.array_equal(np.unique(each), [-1, 1]), np.unique(each)[:9]


def version_of(library: str) -> str | None:
    """Return the installed version; None for a library that runs from its source."""
    try:
        return importlib.metadata.version(library)
    except importlib.metadata.PackageNotFoundError:
        return None


class Outcome(NamedTuple):
    """What a library reports of a training: seconds of each epoch, file sizes, and its settings."""

    model: object
    seconds: dict[str, list[float]]
    kernels: list[np.ndarray]
    bytes: dict[str, int]
    settings: str


def main(library: str, backend: str, run: Callable, ends: tuple[str, ...]) -> None:
    """Train what the command line says by `run(arguments, data)`; print one JSON line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--network", choices=SETTINGS, required=True)
    parser.add_argument("--end", choices=ends, default=ends[0])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--images", type=int, default=60_000)
    parser.add_argument("--momentum", type=float, help="of batch normalization, another one")
    parser.add_argument("--validation", action="store_true", help="the last 10,000 for the test")
    parser.add_argument("--data", default=os.environ.get("FASHION_MNIST"))
    asked = parser.parse_args()
    if asked.data is None:
        parser.error("give --data or set FASHION_MNIST to the folder of the four .gz files")
    images, labels = protocol.load(asked.data, "train")
    test = protocol.load(asked.data, "t10k")
    if asked.validation:
        test = images[-10_000:], labels[-10_000:]
        images, labels = images[:-10_000], labels[:-10_000]
    data = images_in_signs(images[: asked.images]), labels[: asked.images]
    outcome = run(asked, data)
    check(outcome.kernels)
    probabilities = outcome.model.predict(images_in_signs(test[0]), batch_size=1000, verbose=0)
    row = {
        "library": library,
        "version": version_of(library),
        "backend": backend,
        "network": asked.network,
        "end": asked.end,
        "seed": asked.seed,
        "epochs": asked.epochs,
        "images": len(data[0]),
        "validation": asked.validation,
        "momentum": asked.momentum,
        "accuracy": round(100 * float((probabilities.argmax(axis=1) == test[1]).mean()), 2),
        **outcome.seconds,
        "bytes": outcome.bytes,
        "settings": outcome.settings,
    }
    print(json.dumps(row), flush=True)
