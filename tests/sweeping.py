"""A small sweep, for tests that run it in this process and in another one."""

import sys

import keras
import numpy as np

import quantal

LISTS = {"binary": "binary", "float": None, "wide": [-2, -1, 1, 2]}


def data():
    random = np.random.default_rng(0)
    x = random.normal(size=(40, 6)).astype("float32")
    return x, x @ np.float32([[1, 2], [-1, 1], [1, -2], [1, 1], [-1, -1], [1, -1]])


def model(rate=0.1, **arguments):
    keras.utils.set_random_seed(0)
    dense = keras.layers.Dense(2, use_bias=False, name="dense")
    net = keras.Sequential([keras.Input((6,), name="x"), dense], name="net")
    net.compile(keras.optimizers.SGD(rate), "mse", **{"jit_compile": False, **arguments})
    return net


def run(file=None, **arguments):
    """A sweep of six trials, or of those that the arguments ask for."""
    given = {"values": LISTS, "seeds": (0, 1), "epochs": 2, "verbose": 0, **arguments}
    return quantal.sweep(model(), *data(), file=file, start="fresh", **given)


if __name__ == "__main__":
    run(sys.argv[1], verbose=1)
