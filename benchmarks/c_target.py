"""Measure the C that `quantal.export` writes: its outputs, its size and its speed.

A convnet of 52,000 ternary weights and batch normalization, trained for one epoch on 10,000
images of Fashion-MNIST; written as C, compiled by gcc -O2, run on 1,000 test images.

    FASHION_MNIST=<folder> KERAS_BACKEND=jax python benchmarks/c_target.py

Prints a Markdown table. Text, data and bss are of the object file alone, by `size`: text holds
the program and the weights, bss the buffers.
"""

import argparse
import os
import pathlib
import platform
import re
import subprocess
import tempfile

import keras
import numpy as np
from keras import layers
from peers.protocol import load

import quantal

TRAINED, TESTED, RATE, BATCH = 10_000, 1_000, 0.01, 128
MAIN = """\
#include <stdio.h>
#include <time.h>
#include "net.h"
int main(void)
{
    static float input[NET_INPUT_SIZE], output[NET_OUTPUT_SIZE];
    double seconds = 0;
    while (fread(input, sizeof input, 1, stdin) == 1) {
        const clock_t start = clock();
        net_predict(input, output);
        seconds += (double)(clock() - start) / CLOCKS_PER_SEC;
        fwrite(output, sizeof output, 1, stdout);
    }
    fprintf(stderr, "%f", seconds);
    return 0;
}
"""


def network(values) -> keras.Model:
    """Build a convnet with its kernels on a list, with a scale for each output; or free."""

    def on_list(layer):
        scale = quantal.Scale("learned", "output")
        return layer if values is None else quantal.Discrete(layer, values, scale=scale)

    def convolution(filters):
        kernel = on_list(layers.Conv2D(filters, 3, padding="same", use_bias=False))
        return kernel, layers.BatchNormalization(momentum=0.9), layers.ReLU()

    return keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            *(*convolution(16), layers.MaxPooling2D()),
            *(*convolution(32), layers.MaxPooling2D()),
            *(layers.Flatten(), on_list(layers.Dense(30, use_bias=False))),
            *(layers.BatchNormalization(momentum=0.9), layers.ReLU()),
            *(on_list(layers.Dense(10)), layers.Softmax()),
        ]
    )


def measured(model: keras.Model, images: np.ndarray) -> dict:
    """Measure a model as C: its outputs against Keras's, its sizes, and its time an image."""
    expected = model.predict(images, batch_size=1000, verbose=0)
    with tempfile.TemporaryDirectory() as temporary:
        folder = pathlib.Path(temporary)
        quantal.export(model, folder / "net.c")
        (folder / "main.c").write_text(MAIN)
        warnings = ["-Wall", "-Wextra", "-Werror", "-std=c99", "-pedantic"]
        for command in (
            ["gcc", "-O2", *warnings, "-c", "net.c"],
            ["gcc", "-O2", "main.c", "net.o", "-o", "program", "-lm"],
        ):
            subprocess.run(command, cwd=folder, check=True)
        sizes = subprocess.run(["size", "net.o"], cwd=folder, capture_output=True, check=True)
        text, data, bss = map(int, sizes.stdout.split(b"\n")[1].split()[:3])
        run = subprocess.run(
            [folder / "program"], input=images.tobytes(), capture_output=True, check=True
        )
        header = (folder / "net.h").read_text()
    outputs = np.frombuffer(run.stdout, np.float32).reshape(expected.shape)
    return {
        "float32 bytes of the weights": 4 * sum(int(np.prod(w.shape)) for w in kernels(model)),
        "weight bytes": int(re.search(r"WEIGHT_BYTES (\d+)", header)[1]),
        "text": text,
        "data": data,
        "bss": bss,
        "same class": f"{(outputs.argmax(1) == expected.argmax(1)).sum()} of {len(images)}",
        "largest difference": f"{np.abs(outputs - expected).max() / np.abs(expected).max():.1e}",
        "ms an image": f"{1e3 * float(run.stderr) / len(images):.2f}",
    }


def kernels(model: keras.Model) -> list[keras.Variable]:
    return [w for w in model.weights if w.name in ("kernel", "kernel_latent", "bias")]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default=os.environ.get("FASHION_MNIST"))
    arguments = parser.parse_args()
    if arguments.data is None:
        parser.error("give --data or set FASHION_MNIST to the folder of the four .gz files")
    (images, labels), test = load(arguments.data, "train"), load(arguments.data, "t10k")
    tested = test[0][:TESTED].reshape(-1, 28, 28, 1), test[1][:TESTED]
    rows = []
    for name, values in {"ternary": "ternary", "float": None}.items():
        keras.utils.set_random_seed(0)
        model = network(values)
        model.compile(keras.optimizers.Adam(RATE), "sparse_categorical_crossentropy")
        trained = images[:TRAINED].reshape(-1, 28, 28, 1)
        model.fit(trained, labels[:TRAINED], batch_size=BATCH, verbose=0)
        classes = model.predict(tested[0], batch_size=1000, verbose=0).argmax(axis=1)
        accuracy = f"{100 * (classes == tested[1]).mean():.1f}"
        rows.append({"weights": name, "accuracy": accuracy, **measured(model, tested[0])})
    print(f"{platform.machine()}, {keras.config.backend()}\n")
    print("| " + " | ".join(rows[0]) + " |\n|" + "---|" * len(rows[0]))
    for row in rows:
        print("| " + " | ".join(map(str, row.values())) + " |")


if __name__ == "__main__":
    main()
