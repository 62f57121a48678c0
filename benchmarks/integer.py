"""Measure integer networks: their accuracy beside float activations, and the C of both.

A convnet of 33,424 weights on Fashion-MNIST. Kernels are on a list, with a scale for each output;
activations are floats (ReLU), or unsigned integers of 8 bits with a learned scale. The integer
network is written as C and has to give the integers of the reference in NumPy on 1,000 test
images; float C is that of the network with float activations.

    FASHION_MNIST=<folder> KERAS_BACKEND=jax python benchmarks/integer.py

Prints two Markdown tables: accuracy by list and seed, and what the C takes. Flash and RAM are of
the object alone, compiled with -Os for a Cortex-M3 where arm-none-eabi-gcc is installed.
"""

import argparse
import os
import pathlib
import platform
import shutil
import subprocess
import tempfile

import keras
import numpy as np
from keras import layers
from peers.protocol import load

import quantal
from quantal._export.object_size import object_size

LISTS = {
    "ternary": "ternary",
    "powers of two": "powers_of_two:4",
    "four values": [1, -1, 0.5, -0.5],
    "float": None,
}
COMPARED = 1_000
RATE, BATCH = 0.01, 128
MAIN = """\
#include <stdio.h>
#include <time.h>
#include "net.h"
int main(void)
{
    static INPUT input[NET_INPUT_SIZE];
    static OUTPUT output[NET_OUTPUT_SIZE];
    double seconds = 0;
    while (fread(input, sizeof input, 1, stdin) == 1) {
        const clock_t start = clock();
        net_predict(input, output);
        seconds += (double)(clock() - start) / CLOCKS_PER_SEC;
    }
    printf("%.9g", seconds);
    return 0;
}
"""
CORTEX_M3 = ("-Os", "-mcpu=cortex-m3", "-mthumb", "-ffunction-sections")


def network(values, discrete: bool) -> keras.Model:
    """Build a convnet for pixels, its kernels and its activations on lists or free."""

    def on_list(layer):
        scale = quantal.Scale("learned", "output")
        return layer if values is None else quantal.Discrete(layer, values, scale=scale)

    def activation():
        return (
            quantal.DiscreteActivation("unsigned:8", scale="learned") if discrete else layers.ReLU()
        )

    def convolution(filters, strides):
        kernel = layers.Conv2D(filters, 3, strides, padding="same", use_bias=False)
        return on_list(kernel), layers.BatchNormalization(momentum=0.9), activation()

    return keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            layers.Rescaling(1 / 255),
            *convolution(16, 2),
            *convolution(32, 2),
            *convolution(64, 2),
            layers.Flatten(),
            on_list(layers.Dense(10)),
            layers.Softmax(),
        ]
    )


def trained(values, discrete: bool, images, labels, seed: int, epochs: int) -> keras.Model:
    """Train a network, its rate falling to 0."""
    keras.utils.set_random_seed(seed)
    model = network(values, discrete)
    steps = epochs * -(-len(images) // BATCH)
    rate = keras.optimizers.schedules.CosineDecay(RATE, steps)
    model.compile(keras.optimizers.Adam(rate), "sparse_categorical_crossentropy")
    model.fit(images, labels, batch_size=BATCH, epochs=epochs, verbose=0)
    return model


def accuracy(outputs, labels) -> float:
    return float(100 * (outputs.argmax(axis=1) == labels).mean())


def measured(model: keras.Model, images: np.ndarray, target: str) -> dict[str, str]:
    """Write a network as C, which is run and compared; return what it takes."""
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "net.c"
        quantal.export(model, path, target, inputs=images)
        seconds = timed(path, images, target)
        arm = shutil.which("arm-none-eabi-gcc")
        size = object_size(path, arm, CORTEX_M3) if arm else object_size(path)
    row = {"C": target, "ms an image": f"{1e3 * seconds / len(images):.3f}"}
    if size is not None:
        row |= {
            "program, bytes": f"{size.text:,}",
            "constants, bytes": f"{size.rodata + size.data:,}",
            "RAM, bytes": f"{size.bss:,}",
        }
    return row


def timed(path: pathlib.Path, images: np.ndarray, target: str) -> float:
    """Return the seconds of the processor that all images take, compiled with -O2."""
    types = ("uint8_t", "int32_t") if target == "c_integer" else ("float", "float")
    main = path.with_name("main.c")
    main.write_text(MAIN.replace("INPUT input", f"{types[0]} input").replace("OUTPUT", types[1], 1))
    program = path.with_name("program")
    command = ["gcc", "-O2", "-std=c99", path, main, "-o", program, "-lm"]
    subprocess.run(command, check=True)
    samples = images.astype(np.uint8 if target == "c_integer" else np.float32).tobytes()
    run = subprocess.run([program], input=samples, capture_output=True, check=True)
    return float(run.stdout)


def printed(rows: list[dict[str, str]]) -> None:
    print("\n| " + " | ".join(rows[0]) + " |\n|" + "---|" * len(rows[0]))
    for row in rows:
        print("| " + " | ".join(map(str, row.values())) + " |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default=os.environ.get("FASHION_MNIST"))
    parser.add_argument("--images", type=int, default=60_000, help="so many are trained on")
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--seeds", type=int, default=3)
    arguments = parser.parse_args()
    if arguments.data is None:
        parser.error("give --data or set FASHION_MNIST to the folder of the four .gz files")
    pixels, labels = load(arguments.data, "train")
    pixels = np.rint(255 * pixels[: arguments.images]).reshape(-1, 28, 28, 1)
    tested, classes = load(arguments.data, "t10k")
    tested = np.rint(255 * tested).reshape(-1, 28, 28, 1)
    accuracies, sizes = [], []
    for name, values in LISTS.items():
        row: dict[str, list[float]] = {"float": [], "int8": [], "integer C's": []}
        for seed in range(arguments.seeds):
            for kind in ("float", "int8"):
                discrete = kind == "int8"
                given = pixels, labels[: arguments.images], seed, arguments.epochs
                model = trained(values, discrete, *given)
                row[kind].append(
                    accuracy(model.predict(tested, batch_size=1000, verbose=0), classes)
                )
                if discrete and values is not None:
                    integer = quantal.to_integer(model)
                    row["integer C's"].append(accuracy(integer.run(tested.astype(int)), classes))
                    comparison = integer.compare(tested[:COMPARED])
                    print(comparison, flush=True)
                if seed == 0 and (discrete or values is None or name == "ternary"):
                    target = "c_integer" if discrete and values is not None else "c"
                    if target == "c_integer" or not discrete:
                        sizes.append(
                            {"weights": name, **measured(model, tested[:COMPARED], target)}
                        )
        accuracies.append({"weights": name} | {k: _shown(numbers) for k, numbers in row.items()})
    print(
        f"\n{platform.machine()}, {keras.config.backend()}, {arguments.images:,} images, "
        f"{arguments.epochs} epochs, {arguments.seeds} seeds"
    )
    printed(accuracies)
    printed(sizes)


def _shown(numbers: list[float]) -> str:
    if not numbers:
        return "-"
    return f"{np.mean(numbers):.2f} ({min(numbers):.2f} to {max(numbers):.2f})"


if __name__ == "__main__":
    main()
