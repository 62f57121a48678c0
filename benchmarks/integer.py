"""Measure integer networks: their accuracy beside float activations, and the C of both.

A convnet of 33,424 weights on Fashion-MNIST. Kernels are on a list, with a scale for each output;
activations are floats (ReLU), or unsigned integers of 8 bits with a learned scale. The integer
network is written as C and has to give the integers of the reference in NumPy on 1,000 test
images; float C is that of the network with float activations.

    FASHION_MNIST=<folder> KERAS_BACKEND=jax python benchmarks/integer.py --models <folder>

Prints two Markdown tables: accuracy by list and seed, and what the C takes. Trained models are kept
in the folder of `--models` and read where they exist, so that `--only-c` measures the C again
without training. Flash and RAM are of the object alone, compiled with -Os for a Cortex-M3 where
arm-none-eabi-gcc is installed. Times are of the processor, -O2: all networks are in one program,
which computes them in turn, in a shuffled order, round after round.
"""

import argparse
import os
import pathlib
import platform
import shutil
import tempfile
from typing import NamedTuple

import keras
import numpy as np
from c_rounds import Program, seconds_of_rounds
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


class Training(NamedTuple):
    """A training says on what networks are trained, for how long, and where they are kept.

    Attributes:
        images: Pixels, shape (images, 28, 28, 1).
        labels: Shape (images,).
        epochs: The number of epochs.
        folder: Trained models are written there and read from there; None keeps none.
    """

    images: np.ndarray
    labels: np.ndarray
    epochs: int
    folder: pathlib.Path | None

    def model(self, name: str, discrete: bool, seed: int) -> keras.Model:
        """Return the trained network of a list, from its file if there is one."""
        if self.folder is None:
            return trained(LISTS[name], discrete, seed, self)
        kind = "int8" if discrete else "float"
        length = f"{len(self.images)}_images_{self.epochs}_epochs"
        path = self.folder / f"{name.replace(' ', '_')}_{kind}_{length}_seed_{seed}.keras"
        if path.exists():
            return keras.models.load_model(path, compile=False)
        model = trained(LISTS[name], discrete, seed, self)
        self.folder.mkdir(parents=True, exist_ok=True)
        # Moved when it is whole, so that a program that is stopped leaves no half of a file.
        part = path.with_name(f"part_of_{path.name}")
        model.save(part)
        part.replace(path)
        return model


def trained(values, discrete: bool, seed: int, training: Training) -> keras.Model:
    """Train a network, its rate falling to 0."""
    keras.utils.set_random_seed(seed)
    model = network(values, discrete)
    steps = training.epochs * -(-len(training.images) // BATCH)
    rate = keras.optimizers.schedules.CosineDecay(RATE, steps)
    model.compile(keras.optimizers.Adam(rate), "sparse_categorical_crossentropy")
    model.fit(training.images, training.labels, batch_size=BATCH, epochs=training.epochs, verbose=0)
    return model


def accuracy(outputs, labels) -> float:
    return float(100 * (outputs.argmax(axis=1) == labels).mean())


def accuracies(training: Training, tested: np.ndarray, classes: np.ndarray, seeds: int):
    """Return a row for each list: accuracies with floats and integers between the layers."""
    rows = []
    for name, values in LISTS.items():
        row: dict[str, list[float]] = {"float": [], "int8": [], "integer C's": []}
        for seed in range(seeds):
            for kind in ("float", "int8"):
                model = training.model(name, kind == "int8", seed)
                outputs = model.predict(tested, batch_size=1000, verbose=0)
                row[kind].append(accuracy(outputs, classes))
                if kind == "int8" and values is not None:
                    integer = quantal.to_integer(model)
                    row["integer C's"].append(accuracy(integer.run(tested.astype(int)), classes))
                    print(integer.compare(tested[:COMPARED]), flush=True)
        rows.append({"weights": name} | {k: _shown(numbers) for k, numbers in row.items()})
    return rows


def written(training: Training, images: np.ndarray, folder: pathlib.Path):
    """Write each network of the first seed as C, which is run and compared.

    Returns:
        A row for each network, and its source with the type of its inputs.
    """
    rows, programs = [], []
    arm = shutil.which("arm-none-eabi-gcc")
    for name, values in LISTS.items():
        for target in ("c", "c_integer") if values is not None else ("c",):
            discrete = target == "c_integer"
            path = folder / f"net_{len(rows)}.c"
            quantal.export(training.model(name, discrete, 0), path, target, inputs=images)
            row = {"weights": name, "C": "integers" if discrete else "float32"}
            size = object_size(path, arm, CORTEX_M3) if arm else object_size(path)
            if size is not None:
                row |= {
                    "program, bytes": f"{size.text:,}",
                    "constants, bytes": f"{size.rodata + size.data:,}",
                    "RAM, bytes": f"{size.bss:,}",
                }
            rows.append(row)
            programs.append(Program(path, "uint8_t" if discrete else "float"))
    return rows, programs


def of_c(training: Training, images: np.ndarray, options: list[str]) -> list[dict[str, str]]:
    """Return a row for each network as C: its sizes, and its time beside that of floats."""
    with tempfile.TemporaryDirectory() as folder:
        rows, programs = written(training, images, pathlib.Path(folder))
        times = 1e3 * seconds_of_rounds(programs, images, options)
    ratios = times / times[:, -1:]  # The last is float C with float weights.
    for row, each, ratio in zip(rows, times.T, ratios.T, strict=True):
        low, median, high = np.quantile(ratio, [0.25, 0.5, 0.75])
        row["ms an image"] = f"{np.median(each):.4f}, least {each.min():.4f}"
        row["times that of floats"] = f"{median:.2f} ({low:.2f} to {high:.2f})"
    return rows


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
    parser.add_argument("--models", type=pathlib.Path, help="folder that keeps trained models")
    parser.add_argument("--only-c", action="store_true", help="measure no accuracies")
    parser.add_argument("--options", default="-O2", help="options of the compiler for times")
    arguments = parser.parse_args()
    if arguments.data is None:
        parser.error("give --data or set FASHION_MNIST to the folder of the four .gz files")
    pixels, labels = load(arguments.data, "train")
    pixels = np.rint(255 * pixels[: arguments.images]).reshape(-1, 28, 28, 1)
    tested, classes = load(arguments.data, "t10k")
    tested = np.rint(255 * tested).reshape(-1, 28, 28, 1)
    training = Training(pixels, labels[: arguments.images], arguments.epochs, arguments.models)
    print(
        f"{platform.machine()}, {keras.config.backend()}, {arguments.images:,} images, "
        f"{arguments.epochs} epochs, {arguments.seeds} seeds",
        flush=True,
    )
    if not arguments.only_c:
        printed(accuracies(training, tested, classes, arguments.seeds))
    printed(of_c(training, tested[:COMPARED], arguments.options.split()))


def _shown(numbers: list[float]) -> str:
    if not numbers:
        return "-"
    return f"{np.mean(numbers):.2f} ({min(numbers):.2f} to {max(numbers):.2f})"


if __name__ == "__main__":
    main()
