"""What does each kernel of a network cost on ±1? One at a time is left free.

The convnet of benchmarks/fashion_mnist.py with binary kernels, trained as a user does who sets
nothing but one callback, at a constant rate: five epochs of Adam at 0.001 with
`Finish(falling_rate=False)`. "none" has all kernels on the list, "all" is the network of floats.

    FASHION_MNIST=<folder> KERAS_BACKEND=jax python benchmarks/free_kernels.py

Prints a JSON line a run and a Markdown table of means in the end.
"""

import argparse
import json
import os

import keras
from calibrating import accuracy
from fashion_mnist import network, train_plainly
from peers.protocol import load

import quantal

KERNELS = ("conv 3x3x1", "conv 3x3x32", "dense 3136", "dense 32")
FREE = {
    "none": frozenset(),
    **{name: frozenset([number]) for number, name in enumerate(KERNELS)},
    "all": frozenset(range(len(KERNELS))),
}


def run(free: str, seed: int, data, test) -> dict:
    """Train once; return the accuracy, and which kernels were on the list."""
    keras.utils.set_random_seed(seed)
    model = network("convnet", "binary", free=FREE[free])
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    train_plainly(model, data, "averages")
    listed = [parameter.shape for parameter in quantal.parameters_of(model)]
    return {"free": free, "seed": seed, "test_accuracy": accuracy(model, test), "listed": listed}


def table(rows) -> str:
    """Draw means and extremes over the seeds."""
    lines = ["| free | accuracy, mean (lowest to highest) | points to none |", "|---|---|---|"]
    scores = {
        free: [row["test_accuracy"] for row in rows if row["free"] == free]
        for free in dict.fromkeys(row["free"] for row in rows)
    }
    for free, of_free in scores.items():
        mean = sum(of_free) / len(of_free)
        gap = mean - sum(scores["none"]) / len(scores["none"]) if "none" in scores else float("nan")
        lines.append(
            f"| {free} | {mean:.2f} ({min(of_free):.2f} to {max(of_free):.2f}) | {gap:+.2f} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default=os.environ.get("FASHION_MNIST"))
    parser.add_argument("--free", action="append", choices=FREE, help="all where left out")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    arguments = parser.parse_args()
    if arguments.data is None:
        parser.error("give --data or set FASHION_MNIST to the folder of the four .gz files")
    data, test = load(arguments.data, "train"), load(arguments.data, "t10k")
    rows = []
    for seed in arguments.seeds:
        for free in arguments.free or FREE:
            rows.append(run(free, seed, data, test))
            print(json.dumps(rows[-1]), flush=True)
    print(table(rows))


if __name__ == "__main__":
    main()
