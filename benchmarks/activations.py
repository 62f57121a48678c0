"""What do activations on a list cost on Fashion-MNIST, in accuracy?

The networks of `fashion_mnist.py`, every kernel on a list, and in place of each ReLU a
`DiscreteActivation`: integers of 8, 4 or 2 bits from 0 with a learned scale, or ±1. All train as a
user does who sets nothing: one `fit` of 5 epochs with Adam at its default, batches of 128, and
`Finish()` without validation data. With `--calibrated` the network with float activations of the
same seed gets its activations afterwards, from 1,000 training images and without training.

    FASHION_MNIST=<folder> KERAS_BACKEND=tensorflow python benchmarks/activations.py
    FASHION_MNIST=<folder> python benchmarks/activations.py --network mlp --weights ternary

Prints a JSON line a run and a Markdown table of means in the end.
"""

import argparse
import functools
import json
import os

import keras
import numpy as np
from fashion_mnist import network, train_plainly
from peers.protocol import load

import quantal

WEIGHTS = {
    "ternary": "ternary",
    "powers of two, 4 bits": "powers_of_two:4",
    "[1, -1, 0.5, -0.5]": [1, -1, 0.5, -0.5],
}
ACTIVATIONS = {
    "float": None,
    "8 bits": ("unsigned:8", "learned"),
    "4 bits": ("unsigned:4", "learned"),
    "2 bits": ("unsigned:2", "learned"),
    "±1": ("binary", None),
}
EVERYWHERE = ("float", "8 bits")
"""The activations that all weights are tried with; the others are tried with ternary ones."""
CALIBRATED = ("8 bits", "4 bits")
SAMPLES = 1000


def accuracy(model: keras.Model, test) -> float:
    """Return the test accuracy in percent."""
    right = model.predict(test[0], batch_size=1000, verbose=0).argmax(axis=1) == test[1]
    return round(100 * float(right.mean()), 2)


def run(kind: str, weights: str, activations: str, seed: int, data, test) -> tuple[dict, object]:
    """Train once; return what it reached, and the model."""
    keras.utils.set_random_seed(seed)
    options = {}
    if ACTIVATIONS[activations] is not None:
        values, scale = ACTIVATIONS[activations]
        options["activation"] = functools.partial(quantal.DiscreteActivation, values, scale=scale)
    model = network(kind, WEIGHTS[weights], **options)
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    seconds = train_plainly(model, data, "finish")
    quantal.testing.assert_listed(model)
    row = {
        "network": kind,
        "weights": weights,
        "activations": activations,
        "seed": seed,
        "test_accuracy": accuracy(model, test),
        "seconds_per_epoch": seconds,
        "backend": keras.config.backend(),
    }
    return row, model


def calibrated(row: dict, model: keras.Model, data, test) -> list[dict]:
    """Give a trained model's activations lists; return what each reaches, and after one epoch."""
    samples = data[0][:SAMPLES]
    rows = []
    for name in CALIBRATED:
        values, _ = ACTIVATIONS[name]
        again = quantal.discretize(model, {}, activations=values, calibrate=samples)
        reached = accuracy(again, test)
        rows.append({**row, "activations": f"{name}, calibrated", "test_accuracy": reached})
        again.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        finish = quantal.callbacks.Finish()
        again.fit(*data, batch_size=128, verbose=0, callbacks=[finish])
        reached = accuracy(again, test)
        rows.append({**row, "activations": f"{name}, one epoch more", "test_accuracy": reached})
    return rows


def table(rows: list[dict]) -> str:
    """Draw means and extremes over the seeds, and the difference to float activations."""
    lines = [
        "| network | weights | activations | accuracy, mean (lowest to highest) "
        "| points to float activations |",
        "|---|---|---|---|---|",
    ]
    arms = dict.fromkeys((r["network"], r["weights"], r["activations"]) for r in rows)
    scores = {
        (*arm, r["seed"]): r["test_accuracy"]
        for arm in arms
        for r in rows
        if (r["network"], r["weights"], r["activations"]) == arm
    }
    for kind, weights, activations in arms:
        arm = [(s, scores[key]) for key in scores if key[:3] == (kind, weights, activations)
               for s in key[3:]]  # fmt: skip
        reached = [score for _, score in arm]
        gaps = [score - scores[kind, weights, "float", seed] for seed, score in arm]
        lines.append(
            f"| {kind} | {weights} | {activations} | {np.mean(reached):.2f} "
            f"({min(reached):.2f} to {max(reached):.2f}) | {np.mean(gaps):+.2f} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default=os.environ.get("FASHION_MNIST"))
    parser.add_argument("--network", choices=["mlp", "convnet"], action="append")
    parser.add_argument("--weights", choices=WEIGHTS, action="append", help="all where left out")
    parser.add_argument("--seed", type=int, action="append", help="0, 1 and 2 where left out")
    parser.add_argument("--calibrated", action="store_true", help="without training, too")
    parser.add_argument("--images", type=int, default=60_000, help="so many of the training images")
    asked = parser.parse_args()
    if asked.data is None:
        parser.error("give --data or set FASHION_MNIST to the folder of the four .gz files")
    data, test = load(asked.data, "train"), load(asked.data, "t10k")
    data = tuple(part[: asked.images] for part in data)
    rows = []
    for kind in asked.network or ["mlp", "convnet"]:
        for seed in asked.seed or [0, 1, 2]:
            for weights in asked.weights or WEIGHTS:
                for activations in ACTIVATIONS:
                    if weights != "ternary" and activations not in EVERYWHERE:
                        continue
                    row, model = run(kind, weights, activations, seed, data, test)
                    new = [row]
                    if asked.calibrated and activations == "float":
                        new += calibrated(row, model, data, test)
                    for each in new:
                        print(json.dumps(each), flush=True)
                    rows += new
    print(table(rows))


if __name__ == "__main__":
    main()
