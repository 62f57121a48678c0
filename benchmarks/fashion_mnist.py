"""What does a list cost on Fashion-MNIST, in accuracy, in bits and in time?

Two networks with batch normalisation, every kernel on one list, trained from scratch:
784-256-256-10, and a convnet of 119,000 weights. All arms see the same images in the same
order: batch 128, Adam with a rate that falls to zero along a cosine, 5 epochs; the accuracy is
that after the last. Float weights start at the rate 0.003, the best of 0.001, 0.003 and 0.01;
lists at 0.01.
The arms of a seed run in turn in one process, so that their times compare.

With `--end`, all arms train as a user does who sets nothing: one `fit` with Adam at its default.
"constant" takes the last weights, "finish" adds the callback `Finish()`, without validation data,
and "averages" adds `Finish(falling_rate=False)`, which leaves the rate at 0.001.

    FASHION_MNIST=<folder> KERAS_BACKEND=jax python benchmarks/fashion_mnist.py
    FASHION_MNIST=<folder> python benchmarks/fashion_mnist.py --end constant --end finish

Prints a JSON line a run and a Markdown table of means in the end.
"""

import argparse
import itertools
import json
import os
import time

import keras
import numpy as np
from keras import layers
from peers.protocol import BATCH, MOMENTUM, load

import quantal

EPOCHS = 5
ENDS = ("constant", "averages", "finish")


def learned():
    """Return sixteen values that training moves, a uniform grid at first."""
    return quantal.Values(np.linspace(-1, 1, 16), learnable=True)


ARMS = {
    "float": (None, 3e-3),
    "binary": ("binary", 1e-2),
    "ternary": ("ternary", 1e-2),
    "[1, -1, 0.5, -0.5]": ([1, -1, 0.5, -0.5], 1e-2),
    "16 learned values": (learned(), 1e-2),
    "powers of two, 4 bits": ("powers_of_two:4", 1e-2),
}


def network(
    kind: str, values, estimator: str = "auto", free=frozenset(), activation=layers.ReLU
) -> keras.Model:
    """Return a network with its kernels on a list, or free where there is none.

    `free` has the numbers of kernels that stay free, too, counted from the input and from 0;
    `activation` returns a layer for each place where a ReLU stands.
    """

    def on_list(number, layer):
        if values is None or number in free:
            return layer
        return quantal.Discrete(layer, values, estimator=estimator)

    def normalized():
        return layers.BatchNormalization(momentum=MOMENTUM)

    dense = [
        on_list(0, layers.Dense(256, use_bias=False)), normalized(), activation(),
        on_list(1, layers.Dense(256, use_bias=False)), normalized(), activation(),
    ]  # fmt: skip
    convolutions = [
        layers.Reshape((28, 28, 1)),
        on_list(0, layers.Conv2D(32, 3, strides=2, padding="same", use_bias=False)), normalized(),
        activation(),
        on_list(1, layers.Conv2D(64, 3, strides=2, padding="same", use_bias=False)), normalized(),
        activation(),
        layers.Flatten(), on_list(2, layers.Dense(32, use_bias=False)), normalized(), activation(),
    ]  # fmt: skip
    body = dense if kind == "mlp" else convolutions
    last = [on_list(2 if kind == "mlp" else 3, layers.Dense(10, use_bias=False)), normalized()]
    return keras.Sequential([keras.Input((784,)), *body, *last])


class Clock(keras.callbacks.Callback):
    """Notes the seconds of each epoch."""

    def __init__(self):
        super().__init__()
        self.seconds = []

    def on_epoch_begin(self, epoch, logs=None):
        self._start = time.perf_counter()

    def on_epoch_end(self, epoch, logs=None):
        self.seconds.append(round(time.perf_counter() - self._start, 3))


def train_plainly(model: keras.Model, data, end: str) -> list[float]:
    """Fit as it is by default, and return the seconds of each epoch; the end's are the last's."""
    clock = Clock()
    finish = [] if end == "constant" else [quantal.callbacks.Finish(falling_rate=end == "finish")]
    start = time.perf_counter()
    model.fit(*data, batch_size=BATCH, epochs=EPOCHS, verbose=0, callbacks=[*finish, clock])
    rest = time.perf_counter() - start - sum(clock.seconds)
    return [*clock.seconds[:-1], round(clock.seconds[-1] + rest, 3)]


def train_with_schedule(model: keras.Model, data, rate: float, seed: int) -> list[float]:
    """Fit with a rate that falls to zero, and return the seconds of each epoch."""
    images, labels = data
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    rate = keras.optimizers.schedules.CosineDecay(rate, EPOCHS * -(-len(images) // BATCH))
    model.compile(keras.optimizers.Adam(rate), loss)
    random = np.random.default_rng(seed)
    seconds = []
    for _ in range(EPOCHS):
        order = random.permutation(len(images))
        shuffled, answers = images[order], labels[order]
        start = time.perf_counter()
        model.fit(shuffled, answers, batch_size=BATCH, shuffle=False, verbose=0)
        seconds.append(round(time.perf_counter() - start, 3))
    return seconds


def run(kind: str, arm: str, seed: int, data, test, estimator="auto", end="schedule") -> dict:
    """Train once; return accuracy, bits a kernel weight, and seconds of each epoch."""
    values, rate = ARMS[arm]
    keras.utils.set_random_seed(seed)
    model = network(kind, values, estimator)
    if end == "schedule":
        seconds = train_with_schedule(model, data, rate, seed)
    else:
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile("adam", loss)
        seconds = train_plainly(model, data, end)
    right = model.predict(test[0], batch_size=1000, verbose=0).argmax(axis=1) == test[1]
    parameters = quantal.parameters_of(model)
    if values is not None:
        quantal.testing.assert_listed(model)
    elements = sum(int(np.prod(p.shape)) for p in parameters)
    return {
        "network": kind,
        "arm": ", ".join(
            [
                arm,
                *([] if estimator == "auto" else [estimator]),
                *([] if end == "schedule" else [end]),
            ]
        ),
        "seed": seed,
        "test_accuracy": round(100 * float(right.mean()), 2),
        "bits": round(sum(p.bits for p in parameters) / elements, 3) if parameters else 32,
        "seconds_per_epoch": seconds,
        "backend": keras.config.backend(),
    }


def table(rows: list[dict]) -> str:
    """Draw means and extremes over the seeds; times are medians of ratios to float's."""
    # The first epoch compiles.
    epoch = {
        (r["network"], r["arm"], r["seed"]): float(np.median(r["seconds_per_epoch"][1:]))
        for r in rows
    }
    lines = [
        "| network | weights | accuracy, mean (lowest to highest) | points to float "
        "| bits a weight | time an epoch, float = 1 |",
        "|---|---|---|---|---|---|",
    ]
    for kind, arm in dict.fromkeys((r["network"], r["arm"]) for r in rows):
        end = arm.rpartition(", ")[2]
        float_arm = f"float, {end}" if end in ENDS else "float"
        of_arm = [r for r in rows if (r["network"], r["arm"]) == (kind, arm)]
        free = {
            r["seed"]: r["test_accuracy"]
            for r in rows
            if (r["network"], r["arm"]) == (kind, float_arm)
        }
        scores = [r["test_accuracy"] for r in of_arm]
        gap = np.mean([r["test_accuracy"] - free[r["seed"]] for r in of_arm])
        ratios = [epoch[kind, arm, r["seed"]] / epoch[kind, float_arm, r["seed"]] for r in of_arm]
        lines.append(
            f"| {kind} | {arm} | {np.mean(scores):.2f} ({min(scores):.2f} to {max(scores):.2f}) "
            f"| {gap:+.2f} | {of_arm[0]['bits']:g} | {np.median(ratios):.2f} "
            f"({min(ratios):.2f} to {max(ratios):.2f}) |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default=os.environ.get("FASHION_MNIST"))
    parser.add_argument("--network", choices=["mlp", "convnet"], action="append")
    parser.add_argument("--arm", choices=ARMS, action="append", help="all where left out")
    parser.add_argument("--estimator", action="append", help="the default where left out")
    parser.add_argument("--end", choices=ENDS, action="append", help="a schedule where left out")
    parser.add_argument("--seeds", type=int, default=3)
    arguments = parser.parse_args()
    if arguments.data is None:
        parser.error("give --data or set FASHION_MNIST to the folder of the four .gz files")
    data, test = load(arguments.data, "train"), load(arguments.data, "t10k")
    lists = [arm for arm in arguments.arm or ARMS if arm != "float"]
    arms = [("float", "auto"), *itertools.product(lists, arguments.estimator or ["auto"])]
    plan = [(*arm, end) for end in arguments.end or ["schedule"] for arm in arms]
    rows = []
    for kind in arguments.network or ["mlp", "convnet"]:
        for seed in range(arguments.seeds):
            for arm, estimator, end in plan:
                rows.append(run(kind, arm, seed, data, test, estimator, end))
                print(json.dumps(rows[-1]), flush=True)
    print(table(rows))


if __name__ == "__main__":
    main()
