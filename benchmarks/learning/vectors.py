"""Vectors of listed values, trained with `compile` and `fit`: planted ones and perceptrons."""

import keras
import numpy as np
from learning import cases

import quantal

PLANTED_STEPS = {1e-3: 12_000, 1e-2: 3_000}  # Full-batch steps at each rate of Adam.
PERCEPTRON_EPOCHS, PERCEPTRON_BATCH = 400, 32
WHOLE_STEPS, WHOLE_COPIES = 3_000, 50
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
    return {} if keras.config.backend() == "torch" else {"steps_per_execution": steps}


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
    """Train on softplus(-6 X w / sqrt N); how many patterns stay unsatisfied.

    `mean_field`'s outputs are in standard deviations already; it trains on twice these,
    in 3,000 steps on all patterns at once.
    """
    keras.utils.set_random_seed(seed)
    patterns = cases.perceptron(load, seed)
    size = patterns.shape[1]
    whole = estimator == "mean_field"
    factor = 2.0 if whole else 6 / np.sqrt(size)
    model = unit(size, [-1, 1], estimator, keras.layers.Rescaling(factor))
    loss = keras.losses.BinaryCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(rate), loss)
    copies, batch = (WHOLE_COPIES, len(patterns)) if whole else (1, PERCEPTRON_BATCH)
    rows = np.tile(patterns, (copies, 1))
    ones = np.ones((len(rows), 1), np.float32)
    epochs = WHOLE_STEPS // copies if whole else epochs
    model.fit(rows, ones, batch_size=batch, epochs=epochs, shuffle=not whole, verbose=0)
    return cases.unsatisfied(patterns, weights_of(model))
