"""A list for given numbers: how near to the best K values, known exactly, does it come?"""

import json
import pathlib
import statistics

import keras
import numpy as np

import quantal

COUNTS = (2, 3, 4, 8, 16)
NUMBERS = ("gauss_quantiles_4096", "randn_seed0_4096")
STEPS = 2_000


def numbers_of(name: str) -> np.ndarray:
    if name == "randn_seed0_4096":
        return np.random.RandomState(0).randn(4096)
    normal = statistics.NormalDist()
    return np.array([normal.inv_cdf((i + 0.5) / 4096) for i in range(4096)])


def train(
    name: str,
    count: int,
    estimator: str,
    rate: float,
    seed: int,
    path: pathlib.Path,
    steps: int = STEPS,
) -> float:
    """How far the fitted list's squared error is above the optimum, in percent.

    "k_means" is `Values.k_means`. An estimator trains a learnable list by gradient: a
    vector of 4,096 elements from K values, evenly spaced over the numbers at first,
    is fitted to the numbers themselves, with `compile` and `fit`.
    """
    numbers = numbers_of(name)
    best = json.loads(path.read_text())[name][f"K{count}_mse"]
    if estimator == "k_means":
        values = quantal.Values.k_means(numbers, count)
    else:
        values = _trained(numbers, count, estimator, rate, seed, steps)
    chosen = values.nearest(numbers).astype(float)
    return 100 * (float(np.mean((numbers - chosen) ** 2)) / best - 1)


def _trained(
    numbers: np.ndarray, count: int, estimator: str, rate: float, seed: int, steps: int
) -> quantal.Values:
    keras.utils.set_random_seed(seed)
    # The middles of K equal parts of the range.
    edges = np.linspace(numbers.min(), numbers.max(), count + 1)
    first = quantal.Values((edges[1:] + edges[:-1]) / 2, learnable=True)
    layer = quantal.LearnableMultiplier(
        first,
        estimator=estimator,
        kernel_initializer=lambda shape, dtype=None: keras.ops.convert_to_tensor(numbers, dtype),
    )
    model = keras.Sequential([keras.Input((len(numbers),)), layer])
    model.compile(keras.optimizers.Adam(rate), "mse")
    rows = 100
    ones = np.ones((rows, len(numbers)), np.float32)
    targets = np.tile(numbers.astype(np.float32), (rows, 1))
    model.fit(ones, targets, batch_size=1, epochs=max(1, steps // rows), verbose=0)
    return quantal.parameters_of(model)[0].values
