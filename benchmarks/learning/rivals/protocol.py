"""What every library's run has in common: the problems, their budgets, the score, the line printed.

NumPy alone. A library's script gives `main` a function that trains; the instances of a case are
trained side by side, as the rows of one matrix of weights, and none of them sees another.
"""

import argparse
import importlib.metadata
import json
import sys
import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

LISTS = {
    "signs": [-1, 1],
    "ternary": [-1, 0, 1],
    "four_values": [-1, -0.5, 0.5, 1],
    "nine_powers": [-8, -4, -2, -1, 0, 1, 2, 4, 8],
}
SOLVED = 1 + 1e-5  # Of the planted vector's loss.
SIZE, NOISE = 64, 0.05
PATTERN_SIZE, LOADS, BATCH, EPOCHS = 1001, (0.4, 0.5), 32, 400
STEPS = {1e-3: 12_000, 1e-2: 3_000}  # Of the planted problems: Adam's rate, full batches.
SEEDS = {"planted": 20, "perceptron": 3}


class Problem(NamedTuple):
    """The instances of a case, side by side, as a library's script trains them.

    The loss of a step is the sum over the instances of `share[step] @ loss_of_a_row`, the rows
    being `order[step]` of each instance (None: all rows, in every step). A row's loss is the
    squared error, or with `targets` None softplus(-4 row @ weights / sqrt(size)).
    """

    values: list[float]
    rows: np.ndarray  # Instances, rows, size.
    targets: np.ndarray | None  # Instances, rows.
    order: np.ndarray | None  # Steps, instances, batch.
    share: np.ndarray  # Steps, batch; or, for full batches, one weight for all.
    steps: int

    def start(self, limit: float) -> np.ndarray:
        """Initial weights, uniform in ±limit, the instance's number being the seed."""
        count, _, size = self.rows.shape
        weights = [np.random.default_rng(1000 + i).uniform(-limit, limit, size) for i in range(count)]
        return np.asarray(weights, np.float32)


class Trained(NamedTuple):
    weights: np.ndarray  # Instances, size: the listed weights at the end.
    settings: str


def planted(n: int, rho: float, values: list[float], noise: float, seed: int) -> tuple:
    """Rows, targets and the vector of listed values that made them, but for the noise."""
    r = np.random.default_rng(seed)
    m = 3 * n // 2
    place = np.arange(n)
    correlation = float(rho) ** np.abs(place[:, None] - place)
    rows = r.standard_normal((m, n)) @ np.linalg.cholesky(correlation).T / np.sqrt(n)
    hidden = r.choice(np.sort(np.asarray(values, float)), n)
    return rows, rows @ hidden + noise * r.standard_normal(m), hidden


def perceptron(load: float, seed: int) -> np.ndarray:
    """Random patterns of signs, each times its random label."""
    r = np.random.default_rng(seed)
    count = round(load * PATTERN_SIZE)
    patterns = r.choice([-1.0, 1.0], (count, PATTERN_SIZE))
    return patterns * r.choice([-1.0, 1.0], (count, 1))


def batches(count: int, seeds: int) -> tuple[np.ndarray, np.ndarray]:
    """Shuffled batches of all epochs, and each row's share in its batch's mean (0: filling)."""
    per_epoch = -(-count // BATCH)
    filled = np.arange(per_epoch * BATCH).reshape(per_epoch, BATCH) < count
    share = np.tile(filled / filled.sum(axis=1, keepdims=True), (EPOCHS, 1))
    order = np.zeros((EPOCHS, per_epoch * BATCH, seeds), np.int32)
    for seed in range(seeds):
        random = np.random.default_rng(seed)
        for epoch in range(EPOCHS):
            order[epoch, :count, seed] = random.permutation(count)
    order = order.reshape(EPOCHS * per_epoch, BATCH, seeds).transpose(0, 2, 1)
    return np.ascontiguousarray(order), share.astype(np.float32)


def snap(weights: np.ndarray, values: list[float]) -> np.ndarray:
    """The weights without float32's rounding; fails if one is not on the list."""
    listed = np.asarray(values, float)
    nearest = listed[np.abs(np.asarray(weights, float)[..., None] - listed).argmin(axis=-1)]
    assert np.allclose(weights, nearest, atol=1e-4), "a weight is not on the list"
    return nearest


def run_planted(train: Callable, kind: str, rho: float, rate: float, seeds: int) -> tuple:
    made = [planted(SIZE, rho, LISTS[kind], NOISE, seed) for seed in range(seeds)]
    rows, targets, hidden = (np.stack(each) for each in zip(*made, strict=True))
    share = np.full(rows.shape[1], 1 / rows.shape[1], np.float32)
    problem = Problem(
        LISTS[kind], rows.astype("f4"), targets.astype("f4"), None, share, STEPS[rate]
    )
    trained = train(kind, problem, rate)

    def losses(weights: np.ndarray) -> np.ndarray:
        return np.mean((np.einsum("smn,sn->sm", rows, weights) - targets) ** 2, axis=1)

    scores = losses(snap(trained.weights, LISTS[kind])) / losses(hidden)
    return scores.round(6).tolist(), int(np.sum(scores <= SOLVED)), problem.steps, trained.settings


def run_perceptron(train: Callable, load: float, rate: float, seeds: int) -> tuple:
    rows = np.stack([perceptron(load, seed) for seed in range(seeds)])
    order, share = batches(rows.shape[1], seeds)
    problem = Problem(LISTS["signs"], rows.astype("f4"), None, order, share, len(order))
    trained = train("signs", problem, rate)
    weights = snap(trained.weights, LISTS["signs"])
    errors = np.sum(np.einsum("smn,sn->sm", rows, weights) <= 0, axis=1)
    return errors.tolist(), int(np.sum(errors == 0)), problem.steps, trained.settings


def cases() -> list[tuple]:
    """(name, list, how to run it) of every case."""
    made = [
        (f"planted-{kind}-{SIZE}-{rho:g}-squared", kind, run_planted, (kind, rho))
        for kind in LISTS
        for rho in (0, 0.9)
    ]
    made += [(f"perceptron-{load:g}", "signs", run_perceptron, (load,)) for load in LOADS]
    return made


def main(
    library: str, train: Callable[[str, Problem, float], Trained], cannot: dict, variant: str = ""
) -> None:
    """Train every case at both rates; print one JSON line each. `cannot`: {list: reason}."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--cases", default="", help="only those whose name begins so")
    parser.add_argument("--rates", type=float, nargs="+", default=sorted(STEPS))
    parser.add_argument("--seeds", type=int, help="fewer seeds than the protocol's")
    asked = parser.parse_args()
    for name, kind, run, arguments in cases():
        if not name.startswith(asked.cases):
            continue
        row = {
            "library": library,
            "variant": variant,
            "version": importlib.metadata.version(library),
            "case": name,
            "list": kind,
        }
        if kind in cannot:
            print(json.dumps(row | {"cannot": cannot[kind]}), flush=True)
            continue
        for rate in asked.rates:
            seeds = asked.seeds or SEEDS[name.split("-")[0]]
            start = time.perf_counter()
            scores, solved, steps, settings = run(train, *arguments, rate, seeds)
            seconds = round(time.perf_counter() - start, 1)
            found = {"rate": rate, "steps": steps, "seeds": seeds, "scores": scores}
            found |= {"solved": solved, "seconds": seconds, "settings": settings}
            print(json.dumps(row | found), flush=True)
            print(f"{library} {variant} {name} {rate:g}: {solved}/{seeds}", file=sys.stderr)
