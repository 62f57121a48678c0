"""What the nearest listed value costs: our form beside the two that are usual.

Each candidate maps a million float32 latents to listed values. They run in turn, in
shuffled order, in one process; the ratio to copying the latents (x + 1) is taken in each
round. Prints one JSON row a case: median and quartiles of the ratio.

    KERAS_BACKEND=jax python benchmarks/projection.py
"""

import argparse
import json
import time

import keras
import numpy as np
from keras import ops

from quantal import Values
from quantal._core.tensors.projection import projection_of
from quantal.testing import compiled

LISTS = {
    "binary": Values("binary"),
    "four": Values([1, -1, 0.5, -0.5]),
    "nf4": Values("nf4"),
    "signed 8 bits": Values("signed:8"),
    "normal, 256": Values(np.random.default_rng(0).normal(size=256)),
    "log-spaced, 256": Values(np.geomspace(1e-6, 1, 256)),
    "normal, 65,536": Values(
        np.unique(np.random.default_rng(0).normal(size=65_530).astype("float32"))
    ),
}


def wait(tensor):
    """Until the result is there: JAX computes ahead."""
    if hasattr(tensor, "block_until_ready"):
        tensor.block_until_ready()


def candidates(values):
    """Name -> function of a tensor; not all are exact, and argmin takes K per element."""
    middles = ops.convert_to_tensor(values.midpoints)
    listed = ops.convert_to_tensor(values.ascending)

    def by_searchsorted(x):
        return ops.take(listed, ops.searchsorted(middles, x, side="right"))

    def by_argmin(x):
        return ops.take(listed, ops.argmin(ops.abs(ops.expand_dims(x, -1) - listed), axis=-1))

    found = {"quantal": projection_of(values).nearest, "searchsorted": by_searchsorted}
    if len(values) <= 16:
        found["argmin"] = by_argmin
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=15)
    arguments = parser.parse_args()
    x = ops.convert_to_tensor(np.random.default_rng(0).normal(size=(1024, 1024)).astype("float32"))
    random = np.random.default_rng(0)
    for mode in ("eager", "compiled"):
        for name, values in LISTS.items():
            functions = {"copy": lambda x: x + 1.0, **candidates(values)}
            if mode == "compiled":
                functions = {word: compiled(function) for word, function in functions.items()}
            for function in functions.values():
                wait(function(x))
            ratios = {word: [] for word in functions}
            for _ in range(arguments.rounds):
                seconds = {}
                for word in random.permutation(list(functions)):
                    start = time.perf_counter()
                    wait(functions[word](x))
                    seconds[word] = time.perf_counter() - start
                for word in functions:
                    ratios[word].append(seconds[word] / seconds["copy"])
            row = {"backend": keras.config.backend(), "mode": mode, "list": name}
            for word in list(functions)[1:]:
                row[word] = [
                    round(float(q), 1) for q in np.quantile(ratios[word], [0.25, 0.5, 0.75])
                ]
            print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
