"""What is a trained network worth on a list without training: rounded, and calibrated?

The two networks of benchmarks/fashion_mnist.py are trained as floats for five epochs (Adam from
0.003 along a cosine, batch 128) and put on lists with a learned scale for each output channel:
rounded to nearest values; the same with the statistics of batch normalization measured again;
calibrated on 4,096 training images without labels; and trained on from there, alike.
The arms of a seed run in turn in one process. The seconds are the processor's.

    FASHION_MNIST=<folder> KERAS_BACKEND=jax python benchmarks/calibrating.py

Prints a JSON line a run and a Markdown table of means in the end.
"""

import argparse
import json
import os
import pathlib
import time

import keras
import numpy as np
from fashion_mnist import EPOCHS, network
from peers.protocol import BATCH, load

import quantal

IMAGES = 4096
LISTS = {
    "binary": [-1, 1],
    "ternary": [-1, 0, 1],
    "[1, -1, 0.5, -0.5]": [1, -1, 0.5, -0.5],
    "16 normal values": np.random.default_rng(3).normal(size=16).tolist(),
    "powers of two, 4 bits": "powers_of_two:4",
}
SCALE = quantal.Scale("learned", axis="output")


def train(model, data, epochs: int, seed: int) -> None:
    """Train a model as in benchmarks/fashion_mnist.py, with the rate of its floats."""
    steps = epochs * -(-len(data[0]) // BATCH)
    rate = keras.optimizers.schedules.CosineDecay(3e-3, steps)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(rate), loss)
    keras.utils.set_random_seed(seed)
    model.fit(*data, batch_size=BATCH, epochs=epochs, verbose=0)


def trained(kind: str, seed: int, data, folder: str | None) -> keras.Model:
    """Return a trained network of floats, from a folder if it is there."""
    keras.utils.set_random_seed(seed)
    model = network(kind, None)
    file = None if folder is None else pathlib.Path(folder) / f"{kind}{seed}.npz"
    if file is not None and file.exists():
        arrays = np.load(file)
        model.set_weights([arrays[name] for name in arrays.files])
        return model
    train(model, data, EPOCHS, seed)
    if file is not None:
        np.savez(file, *model.get_weights())
    return model


def accuracy(model: keras.Model, test) -> float:
    """Return the share of images that a model answers rightly, in percent."""
    answers = model.predict(test[0], batch_size=1000, verbose=0).argmax(axis=1)
    return round(100 * float((answers == test[1]).mean()), 2)


def cells(rows) -> str:
    """Return the cells of accuracy and seconds for the rows of all seeds."""
    scores = [row["test_accuracy"] for row in rows]
    seconds = np.mean([row["seconds"] for row in rows])
    return f"{np.mean(scores):.2f} ({min(scores):.2f} to {max(scores):.2f}) | {seconds:.0f}"


def runs(kind: str, seed: int, lists, data, test, arguments):
    """Yield a row for each list and way."""
    model = trained(kind, seed, data, arguments.floats)

    def row(name, way, network, seconds=0.0):
        labels = {"network": kind, "seed": seed, "list": name, "way": way}
        return {**labels, "test_accuracy": accuracy(network, test), "seconds": round(seconds, 1)}

    yield row("float", "float", model)
    images = data[0][np.random.default_rng(seed).permutation(len(data[0]))[:IMAGES]]
    for name in lists:
        # An expression takes the kernels of small fan-in, too.
        rules = {"kernel": LISTS[name]}
        rounded = quantal.discretize(model, rules, scale=SCALE)
        yield row(name, "rounded", rounded)
        again = quantal.callbacks.ReestimateStatistics(images)
        again.set_model(rounded)
        again.on_train_end()
        yield row(name, "statistics again", rounded)
        begin = time.process_time()
        listed = quantal.discretize(model, rules, scale=SCALE, calibrate=images, verbose=0)
        yield row(name, "calibrated", listed, time.process_time() - begin)
        if arguments.epochs:
            begin = time.process_time()
            train(listed, data, arguments.epochs, seed)
            way = f"and {arguments.epochs} epochs"
            yield row(name, way, listed, time.process_time() - begin)


def table(rows) -> str:
    """Draw means and extremes over the seeds."""
    lines = [
        "| network | list | way | accuracy, mean (lowest to highest) | s |",
        "|---|---|---|---|---|",
    ]
    for key in dict.fromkeys((r["network"], r["list"], r["way"]) for r in rows):
        group = [r for r in rows if (r["network"], r["list"], r["way"]) == key]
        lines.append(f"| {' | '.join(key)} | {cells(group)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default=os.environ.get("FASHION_MNIST"))
    parser.add_argument("--network", choices=["mlp", "convnet"], action="append")
    parser.add_argument("--list", choices=LISTS, action="append", help="all where left out")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, default=2, help="of training from there; 0 for none")
    parser.add_argument("--floats", help="a folder that keeps the trained floats")
    arguments = parser.parse_args()
    if arguments.data is None:
        parser.error("give --data or set FASHION_MNIST to the folder of the four .gz files")
    data, test = load(arguments.data, "train"), load(arguments.data, "t10k")
    rows = []
    for kind in arguments.network or ["mlp", "convnet"]:
        for seed in arguments.seeds:
            for row in runs(kind, seed, arguments.list or list(LISTS), data, test, arguments):
                rows.append(row)
                print(json.dumps(row), flush=True)
    print(table(rows))


if __name__ == "__main__":
    main()
