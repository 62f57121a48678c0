"""Write the families of `keras.applications` as C, and compare what the C computes with Keras.

Each network is small (32 x 32 pixels, or the least that it takes), with random weights, ternary by
`quantal.discretize` with a scale for each output, and batch statistics of one random batch, so that
its activations are as in a trained one. The outputs are those before the softmax.

    KERAS_BACKEND=torch python benchmarks/c_applications.py [FAMILY ...]

Prints a Markdown table: the largest difference of an output from Keras's, in units of the outputs'
root mean square; that of Keras from itself, from the same samples one by one or moved by one
rounding; by how much the outputs of the samples differ; the bytes of the source; what `size` says
of the object file that gcc -O2 makes.
NASNet does not run on PyTorch: take KERAS_BACKEND=tensorflow for it.
"""

import argparse
import pathlib
import subprocess
import tempfile
import time

import keras
import numpy as np
from keras import applications

import quantal

SAMPLES = 16
BLOCK = 16
WARNINGS = [
    "-std=c99", "-pedantic", "-Wall", "-Wextra", "-Wconversion", "-Wshadow", "-Wdouble-promotion",
    "-Werror",
]  # fmt: skip
SMALL, LARGER = (32, 32, 3), (75, 75, 3)
_HEAD = {"weights": None, "classes": 5, "classifier_activation": None}
FAMILIES = {
    "MobileNet": lambda: applications.MobileNet(SMALL, alpha=0.25, **_HEAD),
    "MobileNetV2": lambda: applications.MobileNetV2(SMALL, alpha=0.1, **_HEAD),
    "MobileNetV3Small": lambda: applications.MobileNetV3Small(SMALL, alpha=0.1, **_HEAD),
    "MobileNetV3Large": lambda: applications.MobileNetV3Large(SMALL, alpha=0.25, **_HEAD),
    "EfficientNetB0": lambda: applications.EfficientNetB0(input_shape=SMALL, **_HEAD),
    "EfficientNetV2B0": lambda: applications.EfficientNetV2B0(input_shape=SMALL, **_HEAD),
    "ResNet50": lambda: applications.ResNet50(input_shape=SMALL, **_HEAD),
    "ResNet50V2": lambda: applications.ResNet50V2(input_shape=SMALL, **_HEAD),
    "DenseNet121": lambda: applications.DenseNet121(input_shape=SMALL, **_HEAD),
    "VGG16": lambda: applications.VGG16(
        input_shape=SMALL, include_top=False, weights=None, pooling="avg"
    ),
    "NASNetMobile": lambda: applications.NASNetMobile(input_shape=SMALL, **_HEAD),
    "ConvNeXtTiny": lambda: applications.ConvNeXtTiny(input_shape=SMALL, **_HEAD),
    "Xception": lambda: applications.Xception(input_shape=LARGER, **_HEAD),
    "InceptionV3": lambda: applications.InceptionV3(input_shape=LARGER, **_HEAD),
    "InceptionResNetV2": lambda: applications.InceptionResNetV2(input_shape=LARGER, **_HEAD),
}
MAIN = """\
#include <stdio.h>
#include "net.h"
int main(void)
{
    static float input[NET_INPUT_SIZE], output[NET_OUTPUT_SIZE];
    while (fread(input, sizeof input, 1, stdin) == 1) {
        net_predict(input, output);
        fwrite(output, sizeof output, 1, stdout);
    }
    return 0;
}
"""


def samples(model: keras.Model) -> np.ndarray:
    """Draw images in the range that the model takes, in blocks: they differ more than noise."""
    random = np.random.default_rng(0)
    height, width, channels = model.input_shape[1:]
    blocks = random.uniform(
        size=(SAMPLES, *(-(-side // BLOCK) for side in (height, width)), channels)
    )
    pixels = blocks.repeat(BLOCK, axis=1).repeat(BLOCK, axis=2)[:, :height, :width]
    scales = any(isinstance(layer, keras.layers.Rescaling) for layer in model.layers)
    return (pixels * (255 if scales else 1)).astype(np.float32)


def numpy(tensor) -> np.ndarray:
    """Return a tensor as an array."""
    return np.asarray(keras.ops.convert_to_numpy(tensor))


def network(family: str) -> keras.Model:
    """Build a network of a family, with ternary kernels and statistics that fit to them."""
    keras.utils.set_random_seed(0)
    random = np.random.default_rng(0)
    floats = FAMILIES[family]()
    scale = quantal.Scale("least_squares", "output")
    model = quantal.discretize(floats, "ternary", scale=scale)
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = 0.0
        if isinstance(layer, keras.layers.Dropout):
            layer.rate = 0.0  # Or the statistics would be those of other activations.
        for variable in layer.trainable_variables:
            # The first factors of a ConvNeXt's branches are so small that they would not count.
            if type(layer).__name__ == "LayerScale":
                variable.assign(random.uniform(0.5, 1, size=variable.shape))
            elif variable.name in ("beta", "bias"):
                variable.assign(random.normal(0, 0.1, size=variable.shape))
    model(samples(model), training=True)
    return model


def measured(model: keras.Model, folder: pathlib.Path) -> dict:
    """Write a model as C in a folder, compile it, run it, and compare it with Keras."""
    x = samples(model)
    expected = numpy(model(x, training=False))
    start = time.perf_counter()
    source = quantal.export(model, folder / "net.c", check=False).paths[0]
    seconds = time.perf_counter() - start
    (folder / "main.c").write_text(MAIN)
    for command in (
        ["gcc", "-O2", *WARNINGS, "-c", "net.c"],
        ["gcc", "-O2", "main.c", "net.o", "-o", "program", "-lm"],
    ):
        subprocess.run(command, cwd=folder, check=True)
    sizes = subprocess.run(["size", "net.o"], cwd=folder, capture_output=True, check=True)
    text, _, bss = map(int, sizes.stdout.split(b"\n")[1].split()[:3])
    run = subprocess.run([folder / "program"], input=x.tobytes(), capture_output=True, check=True)
    outputs = np.frombuffer(run.stdout, np.float32).reshape(expected.shape)
    size = float(np.sqrt(np.mean(expected**2)))
    one_by_one = np.concatenate([numpy(model(x[n : n + 1], training=False)) for n in range(len(x))])
    moved = numpy(model(np.nextafter(x, np.float32(np.inf)), training=False))
    variation = max(float(np.abs(other - expected).max()) for other in (one_by_one, moved))
    return {
        "weights": model.count_params(),
        "largest difference": float(np.abs(outputs - expected).max()) / size,
        "Keras's own": variation / size,
        "differ by": float(np.ptp(expected, axis=0).max()) / size,
        "source, bytes": source.stat().st_size,
        "flash (text)": text,
        "RAM (bss)": bss,
        "export, s": seconds,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("families", nargs="*", default=list(FAMILIES))
    header = False
    for family in parser.parse_args().families:
        with tempfile.TemporaryDirectory() as folder:
            try:
                row = measured(network(family), pathlib.Path(folder))
            except ValueError as error:  # Keras refuses NASNet on PyTorch, in its own words.
                print(f"| {family} | {error} |")
                continue
        if not header:
            print(f"| family | {' | '.join(row)} |\n|{'---|' * (len(row) + 1)}")
            header = True
        texts = [f"{n:,}" if isinstance(n, int) else f"{n:.2g}" for n in row.values()]
        print(f"| {family} | {' | '.join(texts)} |", flush=True)


if __name__ == "__main__":
    main()
