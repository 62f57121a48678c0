"""The peak of this process's memory while something is done with a large model.

`python tests/peak_memory.py WORK LAYERS SIDE K` prints the peak of one kind of work in multiples
of the memory of the model's weights, above what the process took before; KERAS_BACKEND chooses
the backend. Run it in a process of its own: memory that was free before hides what is taken.
"""

import gc
import os
import pathlib
import sys
import tempfile

# Else the C library keeps what is freed, and the peak says more of it than of us.
if __name__ == "__main__" and "MALLOC_MMAP_THRESHOLD_" not in os.environ:
    os.environ["MALLOC_MMAP_THRESHOLD_"] = "1000000"
    os.execv(sys.executable, [sys.executable, *sys.argv])


def kib_of(name):
    """A figure of this process in KiB, as Linux reports it."""
    for line in pathlib.Path("/proc/self/status").read_text().splitlines():
        if line.startswith(name):
            return int(line.split()[1])
    raise KeyError(name)


def peak_of(work):
    """The bytes that a function takes above what was taken before, at its peak."""
    gc.collect()
    before = kib_of("VmRSS")
    pathlib.Path("/proc/self/clear_refs").write_text("5")  # The peak begins anew.
    work()
    return (kib_of("VmHWM") - before) * 1024


def values_of(length):
    import numpy as np

    from quantal import Values

    return Values(np.random.default_rng(0).normal(size=length) * 0.05)


def model_of(layers, side, values, **arguments):
    """A stack of square Dense layers on a list, or of free ones where there is none."""
    import keras

    from quantal import Discrete

    def layer(index):
        dense = keras.layers.Dense(side, use_bias=False, activation="relu", name=f"dense_{index}")
        return dense if values is None else Discrete(dense, values, **arguments)

    return keras.Sequential([keras.Input((side,)), *map(layer, range(layers))])


def training(layers, side, values, **arguments):
    """The peak of a model from its first training step on, in multiples of its weights."""
    import numpy as np

    def fit(layers, side):
        model = model_of(layers, side, values, **arguments)
        model.compile("adam", "mse")
        x = np.ones((4, side), "float32")
        model.fit(x, x, epochs=2, verbose=0)

    fit(1, 8)
    return peak_of(lambda: fit(layers, side)) / (4 * layers * side**2)


def whole_model(work, layers, side, values):
    """The peak of a kind of work on a model that exists, in multiples of its weights."""
    import quantal
    from quantal.testing import assert_listed

    folder = tempfile.mkdtemp()
    path = os.path.join(folder, "model.quantal")
    works = {
        "assert_listed": assert_listed,
        "summary": lambda model: str(quantal.summary(model)),
        "save": lambda model: quantal.save(model, path),
        "load": lambda model: quantal.load(path),
        "bake": quantal.bake,
        "finalize": quantal.finalize,
        "discretize": lambda model: quantal.discretize(model, values),
    }

    def prepared(layers, side):
        model = model_of(layers, side, None if work == "discretize" else values)
        if work == "load":
            quantal.save(model, path)
        return model

    works[work](prepared(2, 8))
    model = prepared(layers, side)
    return peak_of(lambda: works[work](model)) / (4 * layers * side**2)


def main():
    work, *numbers = sys.argv[1:]
    layers, side, length = map(int, numbers)
    if work == "float":
        print(training(layers, side, None))
    elif work == "training":
        print(training(layers, side, values_of(length)))
    else:
        print(whole_model(work, layers, side, values_of(length)))


if __name__ == "__main__":
    main()
