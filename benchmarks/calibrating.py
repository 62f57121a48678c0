"""What is a trained network worth on a list without training: rounded, and calibrated?

The two networks of benchmarks/fashion_mnist.py are trained as floats for five epochs (Adam from
0.003 along a cosine, batch 128) and put on lists with a learned scale for each output channel:
rounded to nearest values; the same with the statistics of batch normalization measured again;
calibrated on 4,096 training images without labels; and trained on from there, alike.
`--network transformer` and `--network mobilenet` do the same with a language model of keras-hub
and with a network of keras.applications: see calibrating_models.py.
The arms of a seed run in turn in one process. The seconds are the processor's; the memory is the
most that the calibration adds to what the process has before.

    FASHION_MNIST=<folder> KERAS_BACKEND=jax python benchmarks/calibrating.py
    WAR_AND_PEACE=<file> KERAS_BACKEND=jax python benchmarks/calibrating.py --network transformer
    FASHION_MNIST=<folder> KERAS_BACKEND=torch python benchmarks/calibrating.py --network mobilenet

Prints a JSON line a run and a Markdown table of means in the end.
"""

import argparse
import json
import os
import pathlib
import re
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import keras
import numpy as np
from fashion_mnist import EPOCHS, network
from peers.protocol import BATCH, load

import quantal
from quantal.callbacks.statistics import normalizations_of

IMAGES = 4096
NETWORKS = ("mlp", "convnet", "transformer", "mobilenet")
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


def train_once(model: keras.Model, name: str, folder: str | None, train: Callable[[], None]):
    """Train a model, or take its weights from a folder if they are there."""
    file = None if folder is None else pathlib.Path(folder) / f"{name}.npz"
    if file is not None and file.exists():
        arrays = np.load(file)
        model.set_weights([arrays[array] for array in arrays.files])
        return
    train()
    if file is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
        np.savez(file, *model.get_weights())


def trained(kind: str, seed: int, data, folder: str | None) -> keras.Model:
    """Return a trained network of floats, from a folder if it is there."""
    keras.utils.set_random_seed(seed)
    model = network(kind, None)
    train_once(model, f"{kind}{seed}", folder, lambda: train(model, data, EPOCHS, seed))
    return model


def accuracy(model: keras.Model, test) -> float:
    """Return the share of images that a model answers rightly, in percent."""
    answers = model.predict(test[0], batch_size=1000, verbose=0).argmax(axis=1)
    return round(100 * float((answers == test[1]).mean()), 2)


class Task(NamedTuple):
    """A trained model, and how it is trained on, tested and calibrated."""

    model: keras.Model
    train: Callable[[keras.Model, int], None]  # For so many epochs.
    score: Callable[[keras.Model], float]
    samples: Any
    measure: str = "test_accuracy"


def image_task(kind: str, seed: int, arguments: argparse.Namespace) -> Task:
    """Return one of the two networks of benchmarks/fashion_mnist.py."""
    data, test = load(arguments.data, "train"), load(arguments.data, "t10k")
    return Task(
        trained(kind, seed, data, arguments.floats),
        lambda model, epochs: train(model, data, epochs, seed),
        lambda model: accuracy(model, test),
        data[0][np.random.default_rng(seed).permutation(len(data[0]))[:IMAGES]],
    )


def task_of(kind: str, seed: int, arguments: argparse.Namespace) -> Task:
    """Return the task of a network's name."""
    if kind in ("mlp", "convnet"):
        return image_task(kind, seed, arguments)
    # keras-hub is needed for these alone.
    import calibrating_models

    return calibrating_models.TASKS[kind](seed, arguments)


def memory(entry: str) -> float:
    """Return this process's present ("VmRSS") or largest ("VmHWM") memory in MB."""
    status = pathlib.Path("/proc/self/status").read_text()
    return int(re.search(rf"{entry}:\s+(\d+) kB", status)[1]) / 1024


def forget_largest_memory() -> None:
    """Begin the largest memory anew (Linux: proc(5), clear_refs)."""
    pathlib.Path("/proc/self/clear_refs").write_text("5")


def cells(rows) -> str:
    """Return the cells of the score and the seconds for the rows of all seeds."""
    scores = [row.get("test_accuracy", row.get("test_nats")) for row in rows]
    digits = 2 if "test_accuracy" in rows[0] else 3
    seconds = np.mean([row["seconds"] for row in rows])
    mean, low, high = (f"{f(scores):.{digits}f}" for f in (np.mean, min, max))
    return f"{mean} ({low} to {high}) | {seconds:.0f}"


def runs(kind: str, seed: int, lists, arguments: argparse.Namespace):
    """Yield a row for each list and way."""
    task = task_of(kind, seed, arguments)

    def row(name, way, network, seconds=0.0, **other):
        labels = {"network": kind, "seed": seed, "list": name, "way": way}
        return {**labels, task.measure: task.score(network), "seconds": round(seconds, 1), **other}

    yield row("float", "float", task.model)
    for name in lists:
        # An expression takes the kernels of small fan-in, too.
        rules = {"kernel": LISTS[name]}
        rounded = quantal.discretize(task.model, rules, scale=SCALE)
        yield row(name, "rounded", rounded)
        if normalizations_of(rounded):
            again = quantal.callbacks.ReestimateStatistics(task.samples)
            again.set_model(rounded)
            again.on_train_end()
            yield row(name, "statistics again", rounded)
        forget_largest_memory()
        before, begin = memory("VmRSS"), time.process_time()
        listed = quantal.discretize(
            task.model, rules, scale=SCALE, calibrate=task.samples, verbose=0
        )
        seconds, added = time.process_time() - begin, memory("VmHWM") - before
        yield row(name, "calibrated", listed, seconds, megabytes=round(added))
        if arguments.epochs:
            begin = time.process_time()
            task.train(listed, arguments.epochs)
            way = f"and {arguments.epochs} epochs"
            yield row(name, way, listed, time.process_time() - begin)


def table(rows) -> str:
    """Draw means and extremes over the seeds."""
    lines = [
        "| network | list | way | accuracy in % or nats, mean (lowest to highest) | s | MB |",
        "|---|---|---|---|---|---|",
    ]
    for key in dict.fromkeys((r["network"], r["list"], r["way"]) for r in rows):
        group = [r for r in rows if (r["network"], r["list"], r["way"]) == key]
        megabytes = [r["megabytes"] for r in group if "megabytes" in r]
        most = f"{max(megabytes):,}" if megabytes else ""
        lines.append(f"| {' | '.join(key)} | {cells(group)} | {most} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default=os.environ.get("FASHION_MNIST"))
    parser.add_argument("--network", choices=NETWORKS, action="append", help="the first two")
    parser.add_argument("--text", default=os.environ.get("WAR_AND_PEACE"), help="the file")
    parser.add_argument("--list", choices=LISTS, action="append", help="all where left out")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, default=2, help="of training from there; 0 for none")
    parser.add_argument("--floats", help="a folder that keeps the trained floats")
    arguments = parser.parse_args()
    networks = arguments.network or NETWORKS[:2]
    if arguments.data is None and set(networks) != {"transformer"}:
        parser.error("give --data or set FASHION_MNIST to the folder of the four .gz files")
    if arguments.text is None and "transformer" in networks:
        parser.error("give --text or set WAR_AND_PEACE to the file warpeace_input.txt")
    rows = []
    for kind in networks:
        for seed in arguments.seeds:
            for row in runs(kind, seed, arguments.list or list(LISTS), arguments):
                rows.append(row)
                print(json.dumps(row), flush=True)
    print(table(rows))


if __name__ == "__main__":
    main()
