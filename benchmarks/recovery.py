"""Does a plain `fit` find a hidden vector of listed values, element by element?

4,096 standard-normal rows; the target is the row times the hidden vector.
`compile("adam", "mse")`, 30 epochs at batch 32, no callback, the layer's defaults.
Prints one JSON row a case:

    KERAS_BACKEND=jax python benchmarks/recovery.py --seeds 20
"""

import argparse
import json
import statistics
import time

import keras
import numpy as np

import quantal


def normal_quantiles(count: int) -> list[float]:
    """The quantiles of a standard normal number at (i + 1/2) / count."""
    normal = statistics.NormalDist()
    return [normal.inv_cdf((i + 0.5) / count) for i in range(count)]


LISTS = {
    "binary, n = 64": ([1, -1], 64),
    "four values, n = 10": ([1, -1, 0.5, -0.5], 10),
    "four values, n = 64": ([1, -1, 0.5, -0.5], 64),
    "four values, n = 4096": ([1, -1, 0.5, -0.5], 4096),
    "nine powers, n = 64": ([-8, -4, -2, -1, 0, 1, 2, 4, 8], 64),
    "nine powers, n = 4096": ([-8, -4, -2, -1, 0, 1, 2, 4, 8], 4096),
    "uneven, n = 64": ([1, 0.7, 0, -0.1, -0.2], 64),
    "uneven, n = 4096": ([1, 0.7, 0, -0.1, -0.2], 4096),
    "normal quantiles, n = 64": (normal_quantiles(16), 64),
    "normal quantiles, n = 4096": (normal_quantiles(16), 4096),
}
ROWS, EPOCHS, BATCH = 4096, 30, 32


def right_share(model: keras.Model, hidden: np.ndarray) -> float:
    """The share of elements whose chosen value is the hidden one."""
    return float(np.mean(keras.ops.convert_to_numpy(model.layers[-1].codes) == hidden))


def recover(values: list[float], size: int, seed: int, epochs: int = EPOCHS) -> float:
    """Train on one hidden vector; the share of elements that are right at the end."""
    keras.utils.set_random_seed(seed)
    random = np.random.default_rng(seed)
    rows = random.standard_normal((ROWS, size), dtype=np.float32)
    hidden = random.integers(len(values), size=size)
    targets = rows * np.asarray(values, np.float32)[hidden]
    inputs = keras.Input((size,))
    model = keras.Model(inputs, quantal.LearnableMultiplier(values)(inputs))
    model.compile("adam", "mse")
    model.fit(rows, targets, batch_size=BATCH, epochs=epochs, verbose=0)
    return right_share(model, hidden)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--case", choices=list(LISTS), action="append")
    arguments = parser.parse_args()
    for case in arguments.case or LISTS:
        values, size = LISTS[case]
        start = time.perf_counter()
        shares = [recover(values, size, seed) for seed in range(arguments.seeds)]
        row = {
            "case": case,
            "backend": keras.config.backend(),
            "seeds": arguments.seeds,
            "all right": sum(share == 1 for share in shares),
            "smallest share right": min(shares),
            "epochs": EPOCHS,
            "seconds": round(time.perf_counter() - start, 1),
        }
        print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
