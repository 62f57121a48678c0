"""How often planted vectors are solved, by optimizer and by the number of steps.

Many instances train at once, by the library's own functions under `jax.vmap` and Keras's own
optimizers, on all rows at each step. Beside the default there is `before`: the default of the
versions that moved latents by the optimizer's steps themselves.

```
KERAS_BACKEND=jax python benchmarks/learning/grid.py --out rows.jsonl       # the whole grid
KERAS_BACKEND=jax python benchmarks/learning/grid.py --list four_values --optimizer 'Adam 0.001'
KERAS_BACKEND=jax python benchmarks/learning/grid.py --table rows.jsonl     # as Markdown
```
"""

import argparse
import functools
import json
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import jax
import keras
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from learning import cases

import quantal
from quantal._core.tensors.latent_units import LatentUnits
from quantal._core.tensors.projection import FixedProjection
from quantal._core.tensors.pull import as_if_pulled
from quantal.estimators._hardening import Hardening, proximal_map

SIZE, CORRELATIONS, LENGTHS = 64, (0.9, 0.0), (1_000, 3_840, 12_000)
FIRST_SEED = 4_000  # Not one of the seeds by which the default was chosen (200 to 319).
OPTIMIZERS = {
    "Adam 0.001": lambda: keras.optimizers.Adam(1e-3),
    "Adam 0.01": lambda: keras.optimizers.Adam(1e-2),
    "AdamW 0.001": lambda: keras.optimizers.AdamW(1e-3),
    "SGD 0.1, momentum 0.9": lambda: keras.optimizers.SGD(0.1, momentum=0.9),
    "RMSprop 0.001": lambda: keras.optimizers.RMSprop(1e-3),
    "Lion 0.0001": lambda: keras.optimizers.Lion(1e-4),
    "Nadam 0.001": lambda: keras.optimizers.Nadam(1e-3),
    "Adafactor 0.001": lambda: keras.optimizers.Adafactor(1e-3),
    "Adam 0.0001": lambda: keras.optimizers.Adam(1e-4),
    "Adam 0.1": lambda: keras.optimizers.Adam(1e-1),
}
GRID = tuple(OPTIMIZERS)[:6]


class Before(Hardening):
    """The default before: half-life 100, pull 0.5 t / (t + 2,000), the optimizer's steps."""

    def __init__(self) -> None:
        super().__init__(half_life=100.0)

    def forward(
        self, latent: Any, listed: Any, training: bool, state: Any, seed: Any = None
    ) -> Any:
        gap, strength = listed.around(latent), 0.5 * state[0] / (state[0] + 2_000.0)
        value = proximal_map(latent, gap, self.softness(state, len(listed)))
        ends = listed.low, listed.high
        direction = gap.offsets(latent, *ends)
        return as_if_pulled(value if training else gap.nearest, latent, direction, strength, *ends)

    def soft(self, latent: Any, nearest: Any, listed: Any, softness: Any) -> Any:
        return proximal_map(latent, listed.around(latent), softness)


RULES = {"default": quantal.estimators.Settling, "before": Before}


class Run(NamedTuple):
    """What training moves, of one instance.

    Attributes:
        optimized: The variable that the optimizer moves.
        latent: The effective latent at the last step; without steps of its own, the same.
        last: The optimizer's variable then.
        traces: What the estimator remembers of each element.
        state: The estimator's state.
        optimizer: The optimizer's variables.
    """

    optimized: Any
    latent: Any
    last: Any
    traces: list[Any]
    state: Any
    optimizer: list[Any]


class Trainer:
    """One list, rule and optimizer, for any number of instances at once."""

    def __init__(self, values: list[float], rule: str, optimizer: str) -> None:
        listed = quantal.Values(values)
        self.values, self.estimator = listed, RULES[rule]()
        self.projection, self.units = FixedProjection(listed), LatentUnits(listed)
        self.optimizer = OPTIMIZERS[optimizer]()
        self.optimizer.build([keras.Variable(np.zeros(SIZE, np.float32))])

    def first(self, seed: int) -> Run:
        """Return the state before the first step, with the latents that a layer starts with."""
        keras.utils.set_random_seed(seed)
        layer = quantal.Discrete(keras.layers.Dense(1, use_bias=False), self.values)
        layer.build((None, SIZE))
        (latent,) = (v for v in layer.trainable_variables)
        latent = np.asarray(latent).reshape(SIZE)
        traces = [np.zeros_like(latent)] * getattr(self.estimator, "traces", 0)
        state = np.asarray(self.estimator.initial_state, np.float32)
        variables = [np.asarray(v) for v in self.optimizer.variables]
        return Run(latent, latent, latent, traces, state, variables)

    def follow(self, run: Run) -> Run:
        """Return the run with the effective latent where the optimizer's last move takes it."""
        if not getattr(self.estimator, "has_steps", False):
            return run._replace(latent=run.optimized)
        moved = run.optimized - run.last
        move = self.estimator.effective_move(moved, run.traces, run.state)
        after = (run.latent + move.latent, list(move.traces), jax.numpy.asarray(move.state))
        has_moved = (moved != 0).any()
        latent, traces, state = jax.tree.map(
            lambda new, old: jax.numpy.where(has_moved, new, old),
            after,
            (run.latent, list(run.traces), run.state),
        )
        return run._replace(latent=latent, last=run.optimized, traces=traces, state=state)

    def step(self, rows: Any, targets: Any, run: Run) -> Run:
        """Return the run after one more step on all rows."""
        run = self.follow(run)

        def loss(latent: Any) -> Any:
            numbers = self.units.values_of(latent)
            weights = self.estimator.forward(numbers, self.projection, True, run.state)
            return ((rows @ weights - targets) ** 2).mean()

        gradient = jax.grad(loss)(run.latent)
        (optimized,), variables = self.optimizer.stateless_apply(
            run.optimizer, [gradient], [run.optimized]
        )
        state = self.estimator.next_state(run.state)
        return run._replace(optimized=optimized, optimizer=variables, state=state)

    @functools.partial(jax.jit, static_argnums=0)
    def steps(self, rows: Any, targets: Any, run: Run, count: Any) -> Run:
        """Return the runs of all instances after so many more steps."""
        one = jax.vmap(self.step)
        return jax.lax.fori_loop(0, count, lambda _, run: one(rows, targets, run), run)

    def listed(self, run: Run) -> np.ndarray:
        """Return the listed values of all instances."""
        latent = jax.vmap(self.follow)(run).latent
        return np.asarray(self.projection.nearest(self.units.values_of(latent)))


def measure(values: str, rule: str, optimizer: str, count: int) -> list[dict[str, Any]]:
    """Return a row for each length and correlation: the share of instances that are solved."""
    trainer = Trainer(cases.LISTS[values], rule, optimizer)
    planted = [cases.Planted(values, SIZE, rho, "squared") for rho in CORRELATIONS]
    seeds = range(FIRST_SEED, FIRST_SEED + count)
    problems = [case.instance(seed) for case in planted for seed in seeds]
    rows = np.stack([problem.rows for problem in problems])
    targets = np.stack([problem.targets for problem in problems]).astype(np.float32)
    firsts = [trainer.first(seed) for _ in planted for seed in seeds]
    run = jax.tree.map(lambda *arrays: np.stack(arrays), *firsts)
    measured, done, began = [], 0, time.process_time()
    for length in LENGTHS:
        run = trainer.steps(rows, targets, run, length - done)
        done = length
        scores = [p.score(w) for p, w in zip(problems, trainer.listed(run), strict=True)]
        for i, rho in enumerate(CORRELATIONS):
            part = np.array(scores[i * count : (i + 1) * count])
            measured.append({
                "list": values, "rule": rule, "optimizer": optimizer, "steps": length,
                "rho": rho, "instances": count, "solved": float((part <= cases.SOLVED).mean()),
                "median": float(np.median(part)),
                "seconds": round(time.process_time() - began, 1),
            })  # fmt: skip
    return measured


def table(rows: list[dict[str, Any]]) -> str:
    """Return the rows as Markdown: a share at both correlations for each list."""
    lists = list(dict.fromkeys(row["list"] for row in rows))
    shares: dict[tuple[str, str, int], dict[str, dict[float, float]]] = {}
    for row in rows:
        key = (row["rule"], row["optimizer"], row["steps"])
        shares.setdefault(key, {}).setdefault(row["list"], {})[row["rho"]] = row["solved"]
    lines = [f"| rule | optimizer | steps | {' | '.join(lists)} |", "|---" * (3 + len(lists)) + "|"]
    for (rule, optimizer, steps), cells in shares.items():
        texts = (
            " / ".join(f"{share:.2f}" for share in cells[name].values()) if name in cells else ""
            for name in lists
        )
        lines.append(f"| {rule} | {optimizer} | {steps:,} | {' | '.join(texts)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--list", action="append", choices=list(cases.LISTS))
    parser.add_argument("--optimizer", action="append", choices=list(OPTIMIZERS))
    parser.add_argument("--rule", action="append", choices=list(RULES))
    parser.add_argument("--instances", type=int, default=40)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--table", type=Path)
    arguments = parser.parse_args()
    if arguments.table:
        print(table([json.loads(line) for line in arguments.table.read_text().splitlines()]))
        return
    for optimizer in arguments.optimizer or GRID:
        for rule in arguments.rule or RULES:
            for values in arguments.list or cases.LISTS:
                for row in measure(values, rule, optimizer, arguments.instances):
                    line = json.dumps(row)
                    print(line, flush=True)
                    if arguments.out:
                        with arguments.out.open("a") as file:
                            file.write(line + "\n")


if __name__ == "__main__":
    main()
