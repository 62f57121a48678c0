"""Does a menu of lists lose less than any one list of the same size?

The convnet of benchmarks/fashion_mnist.py is trained as in benchmarks/calibrating.py. All kernels
go on one list, calibrated without training; and on a menu of these lists under budgets, among them
the sizes of the single lists. Bits are those of packed codes and scales, the mean over all kernels.
The seconds are the processor's, the measurement of the menu among them. `counted` are the bytes
that the choice counts for the kernels; `written` those that `quantal.save` writes for them, whose
codes it may pack further; `file` is the whole file, with other weights and the model's description.

    FASHION_MNIST=<folder> KERAS_BACKEND=torch python benchmarks/budgets.py

Prints a JSON line a run and a Markdown table of means in the end.
"""

import argparse
import json
import os
import pathlib
import tempfile
import time

import keras
import numpy as np
from calibrating import LISTS, SCALE, accuracy, cells, trained
from peers.protocol import load

import quantal
from quantal._storage import container

BITS = [1.15, 1.4, 1.64, 2.04, 3.0, 4.04]


def sizes_of(model):
    """Return the bytes counted for a menu's kernels, those written for them, and the file's."""
    kernels = quantal.parameters_of(model)
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "model.quantal"
        quantal.save(model, path)
        arrays = container.read(path).arrays
        names = [f"{kernel.path}.{part}" for kernel in kernels for part in ("codes", "scale")]
        written = sum(arrays[name].nbytes for name in names if name in arrays)
        sizes = {"written": written, "file": path.stat().st_size}
    if all(kernel.choice is not None for kernel in kernels):
        sizes["counted"] = sum(kernel.choice.option.bytes for kernel in kernels)
    return sizes


def row_of(name, seed, model, test, seconds):
    """Return what one model is worth, and the lists of its kernels."""
    kernels = quantal.parameters_of(model)
    lengths = [len(parameter.values) for parameter in kernels]
    return {
        "lists": name,
        "seed": seed,
        "test_accuracy": accuracy(model, test),
        "lengths": lengths,
        **(sizes_of(model) if kernels else {}),
        "seconds": round(seconds, 1),
    }


def runs(seed, data, test, arguments):
    """Yield a row for each list, and for the menu under each budget."""
    model = trained("convnet", seed, data, arguments.floats)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("adam", loss)
    chosen = np.random.default_rng(seed).permutation(len(data[0]))[: arguments.images]
    x, y = data[0][chosen], data[1][chosen]
    yield row_of("float", seed, model, test, 0.0)
    for name in arguments.list or LISTS:
        begin = time.process_time()
        listed = quantal.discretize(
            model, {"kernel": LISTS[name]}, scale=SCALE, calibrate=x, verbose=0
        )
        yield row_of(name, seed, listed, test, time.process_time() - begin)
    samples = {"outputs": x, "loss": (x, y)}
    for measure in arguments.measure or samples:
        for bits in arguments.bits:
            begin = time.process_time()
            listed = quantal.discretize(
                model,
                bits=bits,
                values=list(LISTS.values()),
                scale=SCALE,
                data=samples[measure],
                verbose=0,
            )
            name = f"menu, {bits} bits, by {measure}"
            yield row_of(name, seed, listed, test, time.process_time() - begin)


def table(rows) -> str:
    """Draw means and extremes over the seeds."""
    lines = ["| lists | accuracy, mean (lowest to highest) | s |", "|---|---|---|"]
    for name in dict.fromkeys(row["lists"] for row in rows):
        group = [row for row in rows if row["lists"] == name]
        lines.append(f"| {name} | {cells(group)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default=os.environ.get("FASHION_MNIST"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--bits", type=float, nargs="+", default=BITS)
    parser.add_argument("--images", type=int, default=4096)
    parser.add_argument("--measure", choices=["outputs", "loss"], action="append")
    parser.add_argument("--list", choices=LISTS, action="append", help="alone; all if left out")
    parser.add_argument("--floats", help="a folder that keeps the trained floats")
    arguments = parser.parse_args()
    if arguments.data is None:
        parser.error("give --data or set FASHION_MNIST to the folder of the four .gz files")
    data, test = load(arguments.data, "train"), load(arguments.data, "t10k")
    rows = []
    for seed in arguments.seeds:
        for row in runs(seed, data, test, arguments):
            rows.append(row)
            print(json.dumps(row), flush=True)
    print(table(rows))


if __name__ == "__main__":
    main()
