"""Vectors of listed values, trained with `compile` and `fit`: planted ones and perceptrons."""

import keras
import numpy as np
from learning import cases

import quantal

PLANTED_STEPS = {1e-3: 12_000, 1e-2: 3_000}  # Full-batch steps at each rate of Adam.
PERCEPTRON_EPOCHS, PERCEPTRON_BATCH = 400, 32
MOST_COPIED = 2**25  # Numbers in the repeated rows of one epoch: 128 MiB.


def unit(size: int, values, estimator: str, *after: keras.Layer) -> keras.Model:
    """One output: the sum of the inputs times a vector from the list, or free floats."""
    dense = keras.layers.Dense(1, use_bias=False)
    if estimator != "float":
        dense = quantal.Discrete(dense, values, estimator=estimator)
    return keras.Sequential([keras.Input((size,)), dense, *after])


def weights_of(model: keras.Model) -> np.ndarray:
    """The vector that the model computes with in the end: its listed values."""
    return keras.ops.convert_to_numpy(model.layers[0].kernel)


def several_steps(steps: int) -> dict:
    """`compile`'s arguments for several steps a call, where the backend gains by it."""
    return {"steps_per_execution": steps} if keras.config.backend() == "tensorflow" else {}


def planted(
    case: cases.Planted, estimator: str, rate: float, seed: int, steps: int | None = None
) -> float:
    """Train on all rows at once; the final loss as a multiple of the planted vector's.

    The rows are repeated, in order, with batches of their number: every batch is the
    whole set, and an epoch is many full-batch steps.
    """
    keras.utils.set_random_seed(seed)
    problem = case.instance(seed)
    steps = steps or PLANTED_STEPS[rate]
    copies = max(1, min(steps, MOST_COPIED // problem.rows.size))
    copies = max(n for n in range(1, copies + 1) if steps % n == 0)
    if case.kind == "squared":
        loss, targets = "mse", problem.targets
    else:
        loss, targets = keras.losses.BinaryCrossentropy(from_logits=True), problem.targets > 0
    model = unit(case.size, cases.LISTS[case.values], estimator)
    model.compile(keras.optimizers.Adam(rate), loss, **several_steps(min(copies, 100)))
    model.fit(
        np.tile(problem.rows, (copies, 1)),
        np.tile(targets.astype(np.float32)[:, None], (copies, 1)),
        batch_size=len(problem.rows),
        epochs=steps // copies,
        shuffle=False,
        verbose=0,
    )
    return problem.score(weights_of(model))


def perceptron(
    load: float, estimator: str, rate: float, seed: int, epochs: int = PERCEPTRON_EPOCHS
) -> int:
    """Train on softplus(-4 X w / sqrt N); how many patterns stay unsatisfied."""
    keras.utils.set_random_seed(seed)
    patterns = cases.perceptron(load, seed)
    size = patterns.shape[1]
    model = unit(size, [-1, 1], estimator, keras.layers.Rescaling(4 / np.sqrt(size)))
    loss = keras.losses.BinaryCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(rate), loss)
    ones = np.ones((len(patterns), 1), np.float32)
    model.fit(patterns, ones, batch_size=PERCEPTRON_BATCH, epochs=epochs, verbose=0)
    return cases.unsatisfied(patterns, weights_of(model))
