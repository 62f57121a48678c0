"""What every library's run has in common: the data, their order, the clock and the line printed.

Nothing of any library is imported here; a library's script gives `main` a `Run`.
"""

import argparse
import functools
import gzip
import importlib.metadata
import json
import os
import pathlib
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

INPUTS, UNITS, BATCH = 784, (256, 256, 10), 128
MOMENTUM = 0.9  # What batch normalization keeps of its mean and variance at each step.


Epoch = tuple[np.ndarray, np.ndarray]  # Images and labels, in the order of the epoch.


class Plan(NamedTuple):
    """How one network is trained: Adam, from this rate along a cosine to zero in these steps."""

    kind: str  # "binary", "ternary" or "float"
    seed: int
    rate: float
    steps: int
    end: str = "cosine"  # "finish": the rate is constant, and quantal's callback ends the run.


class Run(NamedTuple):
    """A network to train: one epoch in the order given, its logits, its kernels as they act."""

    epoch: Callable[[np.ndarray, np.ndarray], None]
    logits: Callable[[np.ndarray], np.ndarray]
    kernels: Callable[[], list[np.ndarray]]  # Inputs by outputs.
    settings: str
    # One call for all epochs, where something of the library ends a run: the seconds of each.
    fit: Callable[[int, Iterator[Epoch]], list[float]] | None = None


def keras_run(
    keras,
    dense: Callable,
    kernel: Callable,
    plan: Plan,
    settings: str,
    fit: Callable | None = None,
) -> Run:
    """The network in Keras 2 or 3: `dense(units)` are its layers, `kernel(layer)` what they use.

    `fit(model, count, epochs)` trains all epochs in one call, where it is given.
    """
    denses = [dense(units) for units in UNITS]
    layers = [keras.Input((INPUTS,))]
    for each in denses:
        normalization = keras.layers.BatchNormalization(momentum=MOMENTUM)
        layers += [each, normalization, keras.layers.ReLU()]
    model = keras.Sequential(layers[:-1])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    falling = keras.optimizers.schedules.CosineDecay(plan.rate, plan.steps)
    model.compile(keras.optimizers.Adam(falling if plan.end == "cosine" else plan.rate), loss)

    def epoch(images: np.ndarray, labels: np.ndarray) -> None:
        model.fit(images, labels, batch_size=BATCH, shuffle=False, verbose=0)

    def logits(images: np.ndarray) -> np.ndarray:
        return model.predict(images, batch_size=1000, verbose=0)

    whole = None if fit is None else functools.partial(fit, model)

    def kernels() -> list[np.ndarray]:
        return [np.asarray(kernel(each)) for each in denses]

    return Run(epoch, logits, kernels, settings, whole)


def load(directory: str, part: str) -> tuple[np.ndarray, np.ndarray]:
    """The images of a part ("train" or "t10k") in [0, 1], one a row, and their labels."""
    folder = pathlib.Path(directory)
    images = gzip.decompress((folder / f"{part}-images-idx3-ubyte.gz").read_bytes())
    labels = gzip.decompress((folder / f"{part}-labels-idx1-ubyte.gz").read_bytes())
    pixels = np.frombuffer(images, np.uint8, offset=16).reshape(-1, INPUTS)
    return pixels.astype(np.float32) / 255, np.frombuffer(labels, np.uint8, offset=8).astype(
        "int32"
    )


def check(kernel: np.ndarray, kind: str) -> None:
    """A kernel acts with -1 and 1, or -1, 0 and 1, times one scale an output (to rounding)."""
    scale = np.abs(kernel).max(axis=0)
    assert np.all(scale > 0), "an output has no weight but zero"
    found = np.unique(np.round(kernel / scale, 3) + 0.0)
    if kind == "float":
        assert found.size > 1000, "the weights are not floating-point numbers"
    else:
        listed = {"binary": [-1, 1], "ternary": [-1, 0, 1]}[kind]
        assert np.array_equal(found, listed), f"not {kind}: {found[:9]} of {found.size} values"


def one_by_one(epoch: Callable[..., None], _: int, epochs: Iterator[Epoch]) -> list[float]:
    """Train epoch by epoch; return the seconds of the processor that each took."""
    seconds = []
    for images, labels in epochs:
        start = time.process_time()
        epoch(images, labels)
        seconds.append(round(time.process_time() - start, 3))
    return seconds


def main(library: str, backend: str, build: Callable[[Plan], Run]) -> None:
    """Train what `build(plan)` gives as the command line says; print one JSON line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--list", choices=["binary", "ternary", "float"], required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--end", choices=["cosine", "finish"], default="cosine")
    parser.add_argument("--data", default=os.environ.get("FASHION_MNIST"))
    asked = parser.parse_args()
    if asked.data is None:
        parser.error("give --data or set FASHION_MNIST to the folder of the four .gz files")

    images, labels = load(asked.data, "train")
    test_images, test_labels = load(asked.data, "t10k")
    random = np.random.default_rng(asked.seed)
    steps = asked.epochs * -(-len(images) // BATCH)
    run = build(Plan(asked.list, asked.seed, asked.rate, steps, asked.end))
    if asked.end == "finish" and run.fit is None:
        parser.error(f"--end finish is quantal's callback; {library} has none")
    orders = (random.permutation(len(images)) for _ in range(asked.epochs))
    epochs = ((images[order], labels[order]) for order in orders)
    fit = run.fit or functools.partial(one_by_one, run.epoch)
    seconds = fit(asked.epochs, epochs)
    right = run.logits(test_images).argmax(axis=1) == test_labels
    for kernel in run.kernels():
        check(kernel, asked.list)
    row = {
        "library": library,
        "version": importlib.metadata.version(library),
        "backend": backend,
        "list": asked.list,
        "seed": asked.seed,
        "epochs": asked.epochs,
        "rate": asked.rate,
        "end": asked.end,
        "batch_size": BATCH,
        "test_accuracy": round(100 * float(right.mean()), 2),
        "processor_seconds_per_epoch": seconds,
        "settings": run.settings,
    }
    print(json.dumps(row))
