"""A trained convnet gets three kinds of lists: ternary, 16 learned values, powers of two.

The convnet has 120,000 weights and learns Fashion-MNIST with free weights first. For each list
the script prints what rounding alone loses, what more training regains, and how many bits it takes.

    KERAS_BACKEND=jax python examples/fine_tune.py --data FOLDER

FOLDER holds the four .gz files of Fashion-MNIST; without it Keras downloads them.
"""

import argparse
import functools
import gzip
import pathlib

import keras
import numpy as np
from keras import layers

import quantal
from quantal.testing import assert_listed

RULES = {
    "ternary, a scale per channel": {"kernel": "ternary"},
    "16 learned values": functools.partial(quantal.Values.k_means, count=16, learnable=True),
    "powers of two, 4 bits": "powers_of_two:4",
}


def read(folder):
    """Return ((images, labels), (images, labels)) for training and testing, as Keras does."""
    if folder is None:
        return keras.datasets.fashion_mnist.load_data()

    def part(name):
        images = gzip.decompress(
            (pathlib.Path(folder) / f"{name}-images-idx3-ubyte.gz").read_bytes()
        )
        labels = gzip.decompress(
            (pathlib.Path(folder) / f"{name}-labels-idx1-ubyte.gz").read_bytes()
        )
        pixels = np.frombuffer(images, np.uint8, offset=16).reshape(-1, 28, 28)
        return pixels, np.frombuffer(labels, np.uint8, offset=8).astype("int32")

    return part("train"), part("t10k")


def convnet():
    """Return a network of two convolutions and two dense layers, normalized between."""
    return keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            layers.Rescaling(1 / 255),
            layers.Conv2D(32, 3, strides=2, padding="same", use_bias=False),
            layers.BatchNormalization(momentum=0.9),
            layers.ReLU(),
            layers.Conv2D(64, 3, strides=2, padding="same", use_bias=False),
            layers.BatchNormalization(momentum=0.9),
            layers.ReLU(),
            layers.Flatten(),
            layers.Dense(32, use_bias=False),
            layers.BatchNormalization(momentum=0.9),
            layers.ReLU(),
            layers.Dense(10),
        ]
    )


def train(model, data, epochs, rate):
    """Fit a model with a learning rate that falls to zero."""
    x, y = data
    steps = epochs * -(-len(x) // 128)
    rate = keras.optimizers.schedules.CosineDecay(rate, steps)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    optimizer = keras.optimizers.Adam(rate)
    quantal.exclude_from_weight_decay(optimizer, model)
    model.compile(optimizer, loss, metrics=["accuracy"])
    model.fit(x, y, batch_size=128, epochs=epochs, verbose=2)


def accuracy(model, data):
    """Return the share of right answers in per cent."""
    logits = model.predict(data[0], batch_size=1000, verbose=0)
    return 100 * float(np.mean(logits.argmax(axis=1) == data[1]))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", help="the folder of Fashion-MNIST's .gz files")
    parser.add_argument("--epochs", type=int, default=2, help="of each training")
    arguments = parser.parse_args()
    training, testing = read(arguments.data)
    keras.utils.set_random_seed(0)

    free = convnet()
    train(free, training, arguments.epochs, 3e-3)
    print(f"free weights: {accuracy(free, testing):.2f} %\n")

    for name, rule in RULES.items():
        discrete = quantal.discretize(free, rule)
        report = quantal.summary(discrete, compared_with=free, rules=rule)
        rounded = accuracy(discrete, testing)
        train(discrete, training, arguments.epochs, 1e-3)
        assert_listed(discrete, testing[0][:2].astype("float32"))
        plain = quantal.bake(discrete)
        same = np.array_equal(
            plain.predict(testing[0][:1000], verbose=0),
            discrete.predict(testing[0][:1000], verbose=0),
        )
        print(f"== {name}\n{report}")
        print(f"rounded: {rounded:.2f} %, trained on: {accuracy(discrete, testing):.2f} %")
        print(f"baked to plain Keras: {'the same to the bit' if same else 'DIFFERENT'}\n")


if __name__ == "__main__":
    main()
