"""What every library's run has in common: the problems, their budgets, the score, the line printed.

NumPy alone. A library's script gives `main` a function that trains; the instances of a case are
trained side by side, as the rows of one matrix of weights, and none of them sees another.
"""

import argparse
import importlib.metadata
import json
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
SLOPE = 6  # Of a perceptron's loss.
SOLVED = 1 + 1e-5  # Of the planted vector's loss.
SIZE, NOISE = 64, 0.05
PATTERN_SIZE, LOADS, BATCH, EPOCHS = 1001, (0.4, 0.5), 32, 400
STEPS = {1e-3: 12_000, 1e-2: 3_000}  # Of the planted problems: Adam's rate, full batches.
SEEDS = {"planted": 20, "perceptron": 3}


class Problem(NamedTuple):
    """The instances of a case, side by side, as a library's script trains them.

    The loss of a step is the sum over the instances of `share[step] @ loss_of_a_row`, the rows
    being `order[step]` of each instance (None: all rows, in every step). A row's loss is the
    squared error, or with `targets` None softplus(-SLOPE row @ weights / sqrt(size)).
    """

    values: list[float]
    rows: np.ndarray  # Instances, rows, size.
    targets: np.ndarray | None  # Instances, rows.
    order: np.ndarray | None  # Steps, instances, batch.
    share: np.ndarray  # Steps, batch; or, for full batches, one weight for all.
    steps: int

    def start(self, limit: float) -> np.ndarray:
        """Initial weights, uniform in ±limit, the same for every rule but for the limit."""
        count, _, size = self.rows.shape
        weights = [
            np.random.default_rng(1000 + i).uniform(-limit, limit, size) for i in range(count)
        ]
        return np.asarray(weights, np.float32)


class Rule(NamedTuple):
    """One way of a library: what it is for each list it has, and what trains by it."""

    settings: dict[str, str]  # {list: settings}
    train: Callable[[str, Problem, float], np.ndarray]  # (list, problem, rate) -> listed weights.


def glorot(problem: Problem) -> float:
    """The limit of Glorot's uniform start, Keras' default, for one unit."""
    return (6 / (problem.rows.shape[-1] + 1)) ** 0.5


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
    weights = snap(train(kind, problem, rate), LISTS[kind])

    def losses(weights: np.ndarray) -> np.ndarray:
        return np.mean((np.einsum("smn,sn->sm", rows, weights) - targets) ** 2, axis=1)

    scores = losses(weights) / losses(hidden)
    return scores.round(6).tolist(), int(np.sum(scores <= SOLVED)), problem.steps


def run_perceptron(train: Callable, load: float, rate: float, seeds: int) -> tuple:
    rows = np.stack([perceptron(load, seed) for seed in range(seeds)])
    order, share = batches(rows.shape[1], seeds)
    problem = Problem(LISTS["signs"], rows.astype("f4"), None, order, share, len(order))
    weights = snap(train("signs", problem, rate), LISTS["signs"])
    errors = np.sum(np.einsum("smn,sn->sm", rows, weights) <= 0, axis=1)
    return errors.tolist(), int(np.sum(errors == 0)), problem.steps


def cases() -> list[tuple]:
    """(name, list, how to run it) of every case."""
    made = [
        (f"planted-{kind}-{SIZE}-{rho:g}-squared", kind, run_planted, (kind, rho))
        for kind in LISTS
        for rho in (0, 0.9)
    ]
    made += [(f"perceptron-{load:g}", "signs", run_perceptron, (load,)) for load in LOADS]
    return made


def main(library: str, rules: dict[str, Rule], cannot: dict[str, str]) -> None:
    """Train every case by every rule that has its list, at both rates; print one JSON line each.

    `cannot` says of the other lists why there is none.
    """
    parser = argparse.ArgumentParser()
    parser.add_argument("--cases", default="", help="only those whose name begins so")
    parser.add_argument("--rules", nargs="+", default=list(rules), choices=list(rules))
    parser.add_argument("--rates", type=float, nargs="+", default=sorted(STEPS))
    parser.add_argument("--seeds", type=int, help="fewer seeds than the protocol's")
    asked = parser.parse_args()
    version = importlib.metadata.version(library)
    for name, kind, run, arguments in cases():
        if not name.startswith(asked.cases):
            continue
        head = {"library": library, "version": version, "case": name, "list": kind}
        if kind in cannot:
            print(json.dumps(head | {"cannot": cannot[kind]}), flush=True)
        for rule in asked.rules:
            settings = rules[rule].settings.get(kind)
            for rate in asked.rates if settings else ():
                seeds = asked.seeds or SEEDS[name.split("-")[0]]
                start = time.perf_counter()
                scores, solved, steps = run(rules[rule].train, *arguments, rate, seeds)
                seconds = round(time.perf_counter() - start, 1)
                found = {"rule": rule, "rate": rate, "steps": steps, "seeds": seeds}
                found |= {"scores": scores, "solved": solved, "seconds": seconds}
                print(json.dumps(head | found | {"settings": settings}), flush=True)
