"""Does each estimator find good values? Trains the cases and writes one JSON row each.

    KERAS_BACKEND=jax python benchmarks/learning/run.py --data DIR --out rows.jsonl
    KERAS_BACKEND=jax python benchmarks/learning/run.py --case 'planted-*-64-0.9-*' \\
        --estimator auto --estimator float --seeds 20
    python benchmarks/learning/run.py --list

A row is one case, estimator and rate; its scores are one a seed, each taken at the end of
training. What needs a data set that is not in DIR is left out and named.
"""

import argparse
import functools
import importlib.metadata
import json
import os
import pathlib
import sys
import time
from collections.abc import Callable, Iterator
from fnmatch import fnmatch
from typing import NamedTuple

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

import keras
from learning import cases, codebooks, ends, fashion, mnist1d, vectors, war_and_peace

import quantal

ESTIMATORS = (
    "auto",
    "straight_through",
    "annealed",
    "binary_relax",
    "argmax_straight_through",
    "settling",
)
"""What is compared by default; `--estimator` takes any name that quantal knows."""
UNTRAINED = ("planted", "k_means")
"""References that no rate matters to."""


class Case(NamedTuple):
    """One problem: how an estimator is trained on it, and how its scores read."""

    train: Callable[..., float]  # (estimator, rate, seed), and the data's path if there are any
    measure: str
    rates: tuple[float, ...]
    seeds: int = 3
    references: tuple[str, ...] = ("float",)  # What is trained beside the estimators.
    compares: bool = True  # Whether the estimators are trained, or the references alone.
    data: str | None = None  # Its place in the folder of data sets.
    solved: float | None = None  # A score up to this counts as solved.
    higher_is_better: bool = False


def _cases() -> dict[str, Case]:
    made = {}
    for name, planted in cases.PLANTED.items():
        made[name] = Case(
            functools.partial(vectors.planted, planted),
            "final loss / planted loss",
            tuple(vectors.PLANTED_STEPS),
            seeds=20 if planted.size < 4096 else 1,
            solved=cases.SOLVED,
        )
    for load in cases.LOADS:
        made[f"perceptron-{load:g}"] = Case(
            functools.partial(vectors.perceptron, load),
            "patterns not satisfied",
            (1e-2, 3e-3),
            solved=0,
        )
    for values in fashion.LISTS:
        made[f"fashion-{values}"] = Case(
            functools.partial(fashion.train, values),
            "test accuracy, %",
            (1e-2, 3e-2),
            references=("float", "planted"),
            data="fashion_mnist",
            higher_is_better=True,
        )
    for name in codebooks.NUMBERS:
        for count in codebooks.COUNTS:
            made[f"codebook-{name}-{count}"] = Case(
                functools.partial(codebooks.train, name, count),
                "squared error above the optimum, %",
                (1e-2, 1e-3),
                references=("k_means",),
                data="codebook/optima.json",
            )
    for values in mnist1d.LISTS:
        made[f"mnist1d-{values}"] = Case(
            functools.partial(mnist1d.train, values),
            "test accuracy, %",
            (1e-2, 3e-3),
            references=("float",) if values == "floats" else (),
            compares=values != "floats",
            data="mnist1d/mnist1d_seed42.npz",
            higher_is_better=True,
        )
    for name in war_and_peace.ARMS:
        made[f"war_and_peace-{name}"] = Case(
            functools.partial(war_and_peace.train, name),
            "test nats a character",
            (1e-2, 2e-3),
            seeds=1,
            references=() if war_and_peace.ARMS[name] else ("float",),
            compares=war_and_peace.ARMS[name] is not None,
            data="war_and_peace/warpeace_input.txt",
        )
    return made


CASES = _cases()
DEFAULT = ("planted-*-64-*", "perceptron-*", "fashion-*", "codebook-*", "mnist1d-*")


def row(
    name: str, estimator: str, rate: float, seeds: int | None = None, data: str | None = None,
    **shorter,
) -> dict:  # fmt: skip
    """Train a case from each seed; what is written.

    Args:
        name: The case.
        estimator: A name that `quantal.estimators.get` knows, or a reference's.
        rate: Adam's.
        seeds: How many, from 0; None for the case's own number.
        data: The folder of the data sets.
        **shorter: For the case's training, such as `steps`: a test's short run.
    """
    case = CASES[name]
    count = case.seeds if seeds is None else seeds
    given = {} if case.data is None else {"path": pathlib.Path(str(data)) / case.data}
    start = time.perf_counter()
    scores = [case.train(estimator, rate, seed, **given, **shorter) for seed in range(count)]
    made = {
        "case": name,
        "estimator": estimator,
        "rate": None if estimator in UNTRAINED else rate,
        "measure": case.measure,
        "higher_is_better": case.higher_is_better,
        "seeds": count,
        "scores": scores,
    }
    if case.solved is not None:
        made["solved"] = sum(score <= case.solved for score in scores)
    backend = keras.config.backend()
    versions = {name: importlib.metadata.version(name) for name in ("keras", backend)}
    return made | {
        "seconds": round(time.perf_counter() - start, 1),
        "backend": backend,
        "versions": {"quantal": quantal.__version__, **versions},
    }


def plan(asked: argparse.Namespace) -> Iterator[tuple[str, str, float]]:
    """(case, estimator, rate) of every row to make, in order."""
    for name, case in CASES.items():
        if not any(fnmatch(name, pattern) for pattern in asked.case or DEFAULT):
            continue
        if case.data and not (asked.data and (pathlib.Path(asked.data) / case.data).exists()):
            print(f"{name} left out: no {case.data} in --data {asked.data}", file=sys.stderr)
            continue
        for estimator in asked.estimator or (*ESTIMATORS, *case.references):
            reference = estimator in (*UNTRAINED, "float")
            if not (estimator in case.references if reference else case.compares):
                continue
            rates = case.rates[:1] if estimator in UNTRAINED else case.rates
            if asked.end in ("constant", "averages", "finish"):
                rates = (ends.RATE, *rates)
            for rate in rates:
                if not asked.rate or rate in asked.rate:
                    yield name, estimator, rate


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--case", action="append", help="a name or a pattern such as 'planted-*'")
    parser.add_argument("--estimator", action="append")
    parser.add_argument("--rate", action="append", type=float, help="one of the case's rates only")
    parser.add_argument("--end", choices=ends.ENDS, help="of mnist1d and war_and_peace: a cosine")
    parser.add_argument("--seeds", type=int, help="of each row; each case has its own default")
    parser.add_argument("--data", default=os.environ.get("DATA"), help="folder of the data sets")
    parser.add_argument("--out", help="file that the rows are added to")
    parser.add_argument("--list", action="store_true", help="print the cases' names and stop")
    asked = parser.parse_args()
    if asked.list:
        print("\n".join(CASES))
        return
    for name, estimator, rate in plan(asked):
        other = {} if asked.end is None else {"end": asked.end}
        made = row(name, estimator, rate, asked.seeds, asked.data, **other)
        if asked.end is not None:
            made["estimator"] += f", {asked.end}"
        line = json.dumps(made)
        print(line, flush=True)
        if asked.out:
            with open(asked.out, "a") as file:
                file.write(line + "\n")


if __name__ == "__main__":
    main()
