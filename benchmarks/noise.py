"""Does training with the noise of a device help on the device?

The LeNet-5 of AIHWKit's example on Fashion-MNIST: two convolutions of 16 and 32 filters (5 x 5),
tanh and max pooling, 512-128-10. Every kernel is on 16 uneven conductances: 8 of a device, each 0.6
of the next, and their opposites, for which the second device of a pair is written. Each column has
a learned digital factor, as AIHWKit's output scales; biases are digital. Writing puts a normal
number on each weight, with the deviation `sd` in units of the largest conductance.

A model is trained without noise and with each deviation, from the same first weights and in the
same order: Adam with a rate that falls from 0.01 (floats: 0.003) along a cosine, batch 128. Then it
is evaluated on the whole test set without noise and with every deviation, over draws (devices).

    FASHION_MNIST=<folder> KERAS_BACKEND=torch python benchmarks/noise.py

Prints a JSON line a model and a Markdown table of means in the end.
"""

import argparse
import json
import os
import time

import keras
import numpy as np
from keras import layers
from peers.protocol import BATCH, load

import quantal

DEVIATIONS = (0.1, 0.2, 0.4)
RATE, RATE_OF_FLOATS = 1e-2, 3e-3
CONDUCTANCES = 0.6 ** np.arange(8)
LEVELS = [*-CONDUCTANCES, *CONDUCTANCES[::-1]]


def network(trained_with: float | None) -> keras.Model:
    """Return AIHWKit's LeNet-5; its kernels are floats for None, else on conductances."""

    def on_list(layer):
        if trained_with is None:
            return layer
        values = quantal.Values(LEVELS, noise=trained_with)
        return quantal.Discrete(layer, values, scale=quantal.Scale("learned", axis="output"))

    return keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            on_list(layers.Conv2D(16, 5, activation="tanh")),
            layers.MaxPooling2D(),
            on_list(layers.Conv2D(32, 5, activation="tanh")),
            layers.MaxPooling2D(),
            layers.Flatten(),
            on_list(layers.Dense(128, activation="tanh")),
            on_list(layers.Dense(10)),
        ]
    )


def train(trained_with: float | None, seed: int, data, epochs: int) -> keras.Model:
    """Return a trained and compiled model."""
    keras.utils.set_random_seed(seed)
    model = network(trained_with)
    steps = epochs * -(-len(data[0]) // BATCH)
    start = RATE_OF_FLOATS if trained_with is None else RATE
    rate = keras.optimizers.schedules.CosineDecay(start, steps)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(rate), loss, metrics=["accuracy"])
    random = np.random.default_rng(seed)
    for _ in range(epochs):
        order = random.permutation(len(data[0]))
        images, labels = (array[order] for array in data)
        model.fit(images, labels, batch_size=BATCH, shuffle=False, verbose=0)
    return model


def row_of(trained_with: float | None, seed: int, data, test, epochs: int, draws: int) -> dict:
    """Train and evaluate once; accuracies are in percent, of each draw."""
    start = time.perf_counter()
    model = train(trained_with, seed, data, epochs)
    seconds = round(time.perf_counter() - start, 1)
    exact = model.evaluate(*test, batch_size=1000, verbose=0, return_dict=True)["accuracy"]
    row = {"trained_with": trained_with, "seed": seed, "train_seconds": seconds, "0": [100 * exact]}
    if trained_with is not None:
        for deviation in DEVIATIONS:
            result = quantal.evaluate_with_noise(
                model, *test, draws, noise=deviation, batch_size=1000, verbose=0
            )
            row[str(deviation)] = [round(100 * one, 2) for one in result.draws["accuracy"]]
    return row


def table(rows: list[dict]) -> str:
    """Draw the mean accuracy over seeds and draws, and the spread of a device within a seed."""
    lines = [
        "| trained with | without noise | " + " | ".join(f"sd {sd:g}" for sd in DEVIATIONS) + " |",
        "|---|---|" + "---|" * len(DEVIATIONS),
    ]
    for arm in dict.fromkeys(row["trained_with"] for row in rows):
        of_arm = [row for row in rows if row["trained_with"] == arm]
        cells = [f"{np.mean([row['0'] for row in of_arm]):.2f}"]
        for deviation in map(str, DEVIATIONS):
            draws = [row[deviation] for row in of_arm if deviation in row]
            spread = np.mean([np.std(one, ddof=1) for one in draws]) if draws else 0
            cells.append(f"{np.mean(draws):.2f} ± {spread:.2f}" if draws else "-")
        name = "floats" if arm is None else f"sd {arm:g}" if arm else "no noise"
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default=os.environ.get("FASHION_MNIST"))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--draws", type=int, default=20)
    parser.add_argument("--images", type=int, default=60_000, help="the first ones of the training")
    parser.add_argument("--test-images", type=int, default=10_000)
    arguments = parser.parse_args()
    if arguments.data is None:
        parser.error("give --data or set FASHION_MNIST to the folder of the four .gz files")
    counts = {"train": arguments.images, "t10k": arguments.test_images}
    data, test = (
        (images[:count].reshape(-1, 28, 28, 1), labels[:count])
        for part, count in counts.items()
        for images, labels in [load(arguments.data, part)]
    )
    rows = []
    for seed in range(arguments.seeds):
        for trained_with in (None, 0.0, *DEVIATIONS):
            row = row_of(trained_with, seed, data, test, arguments.epochs, arguments.draws)
            rows.append(row)
            print(json.dumps(row), flush=True)
    print(table(rows))


if __name__ == "__main__":
    main()
