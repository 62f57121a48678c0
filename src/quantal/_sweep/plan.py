"""A plan names the trials of a sweep: each list with each estimator, rate and seed."""

import itertools
import json
import math
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np

from quantal._core.estimator import Estimator
from quantal._core.numbers.noise import noise_name
from quantal._core.numbers.values import Values
from quantal.estimators.policy import AUTO, parse

FREE = "float"
"""The name of the trials whose weights are on no list."""

MOST_NUMBERS = 8
"""A longer list is named by its length and its ends, so that a table stays narrow."""


class Trial(NamedTuple):
    """A trial is one training run of a sweep.

    Attributes:
        values: The name of the list.
        estimator: The name of the estimator.
        learning_rate: The learning rate; None for the one that the model is compiled with.
        seed: The seed of the initial weights and of the order of batches.
        rule: The list or rules, as `discretize` takes them; None for free floats.
        identifier: The estimator, as `discretize` takes it.
    """

    values: str
    estimator: str
    learning_rate: float | None
    seed: int
    rule: Any
    identifier: Any

    @property
    def key(self) -> str:
        """Return a text that is the same for the same trial in another process."""
        rule = _canonical(self.rule, self.values)
        return json.dumps([rule, self.estimator, self.learning_rate, self.seed])

    @property
    def cell(self) -> tuple[str, str, float | None]:
        """Return what trials that differ in their seed alone have in common."""
        return self.values, self.estimator, self.learning_rate

    def __str__(self) -> str:
        rate = [] if self.learning_rate is None else [f"learning rate {self.learning_rate:g}"]
        estimator = [] if self.rule is None else [self.estimator]
        return ", ".join([self.values, *estimator, *rate, f"seed {self.seed}"])


def plan_of(values: Any, estimators: Any, learning_rates: Any, seeds: Any) -> list[Trial]:
    """Return all trials, list by list; free floats are trained with no estimator.

    Args:
        values: The lists, or a mapping of names to lists.
        estimators: The estimators.
        learning_rates: The rates, or None.
        seeds: The seeds.

    Raises:
        TypeError: Something is not of the expected kind.
        ValueError: There is nothing to choose from, a name is used twice, or a number is not
            valid.
    """
    lists = _lists(values)
    identifiers = {_estimator_name(e): e for e in _each("estimators", estimators, (str, Estimator))}
    rates = [None] if learning_rates is None else _rates(learning_rates)
    trials = []
    for name, rule in lists.items():
        choices = {"-": AUTO} if rule is None else identifiers
        for (estimator, identifier), rate, seed in itertools.product(
            choices.items(), rates, _seeds(seeds)
        ):
            trials.append(Trial(name, estimator, rate, seed, rule, identifier))
    return trials


def round_by_round(trials: Iterable[Trial]) -> list[Trial]:
    """Return trials seed by seed, so that a sweep cut short has something of every list."""
    rounds: dict[int, list[Trial]] = {}
    for trial in trials:
        rounds.setdefault(trial.seed, []).append(trial)
    return list(itertools.chain.from_iterable(rounds.values()))


def _lists(values: Any) -> dict[str, Any]:
    """Return the lists by their names."""
    if isinstance(values, Mapping):
        return _named(values) or _refuse_empty("values", values)
    if isinstance(values, (str, Values)):
        values = [values]
    if not isinstance(values, (list, tuple)) or any(isinstance(v, (int, float)) for v in values):
        raise TypeError(
            f"values is {values!r}. Expected several lists, such as ['binary', [1, -1, 0.5, -0.5]]"
            ", with None for free floats, or a mapping of names to lists. Put a single list into "
            "another pair of brackets."
        )
    lists: dict[str, Any] = {}
    for rule in values:
        name = _name(rule)
        if name in lists:
            raise ValueError(
                f"values has two lists of the name {name!r}. Expected different names. Give a "
                "mapping of names to lists, such as {'first': [...], 'second': [...]}."
            )
        lists[name] = rule
    return lists or _refuse_empty("values", values)


def _named(values: Mapping[Any, Any]) -> dict[str, Any]:
    """Return lists by the user's names; free floats have a name of their own."""
    lists = {FREE if rule is None else str(name): rule for name, rule in values.items()}
    if lists.get(FREE) is not None:
        raise ValueError(
            f"values calls the list {lists[FREE]!r} {FREE!r}, the name of free floats. Expected "
            "another name."
        )
    return lists


def _name(rule: Any) -> str:
    """Return what a table calls a list or rules."""
    if rule is None:
        return FREE
    if isinstance(rule, str):
        return rule
    if isinstance(rule, Mapping):
        if "values" in rule:
            others = [f"{key} {value}" for key, value in rule.items() if key != "values"]
            return ", ".join([_name(rule["values"]), *others])
        return "; ".join(f"{pattern}: {_name(part)}" for pattern, part in rule.items())
    if callable(rule):
        return str(getattr(rule, "__name__", type(rule).__name__))
    numbers = Values.get(rule)
    learned = " learned" if numbers.learnable else ""
    noise = "" if numbers.noise is None else f" {noise_name(numbers.noise)}"
    if numbers.channels is None and len(numbers) <= MOST_NUMBERS:
        spelled = ", ".join(f"{number:.4g}" for number in numbers.tolist())
        return f"[{spelled}]{learned}{noise}"
    return f"{len(numbers)}{learned} values from {numbers.low:.4g} to {numbers.high:.4g}{noise}"


def _canonical(rule: Any, name: str) -> Any:
    """Return data that JSON can hold, the same for the same list or rules.

    Args:
        rule: The list or rules.
        name: Their name, which tells functions apart that are called alike, as lambdas are.
    """
    if rule is None or isinstance(rule, (str, int, float)):
        return rule
    if isinstance(rule, Mapping):
        return {str(key): _canonical(value, name) for key, value in rule.items()}
    if callable(rule):
        word = getattr(rule, "__qualname__", type(rule).__qualname__)
        return f"{name}: {getattr(rule, '__module__', '')}.{word}"
    if isinstance(rule, (Values, list, tuple, np.ndarray)):
        values = Values.get(rule)
        noise = [] if values.noise is None else [values.noise.tolist()]
        return [values.tolist(), values.learnable, values.axis, *noise]
    return repr(rule)


def _estimator_name(estimator: Any) -> str:
    parse(estimator)
    return estimator if isinstance(estimator, str) else repr(estimator)


def _rates(rates: Any) -> list[float]:
    numbers = _each("learning_rates", rates, (int, float, np.number))
    if not all(math.isfinite(rate) and rate > 0 for rate in numbers):
        raise ValueError(f"learning_rates is {rates!r}. Expected numbers above 0.")
    return [float(rate) for rate in numbers]


def _seeds(seeds: Any) -> list[int]:
    if isinstance(seeds, int):
        raise TypeError(
            f"seeds is {seeds!r}. Expected several whole numbers, such as (0, 1, 2). For this "
            f"seed alone give ({seeds},), for so many seeds range({seeds})."
        )
    numbers = _each("seeds", seeds, (int, np.integer))
    if any(isinstance(seed, bool) or not 0 <= seed < 2**32 for seed in numbers):
        raise ValueError(f"seeds is {seeds!r}. Expected whole numbers from 0 to 4,294,967,295.")
    return [int(seed) for seed in numbers]


def _each(argument: str, given: Any, kinds: tuple[type, ...]) -> list[Any]:
    """Return the different things that an argument lists; a single one is a list of one."""
    things = [given] if isinstance(given, kinds) else list(given) if _is_several(given) else [given]
    for thing in things:
        if not isinstance(thing, kinds):
            raise TypeError(
                f"{argument} holds {thing!r} of type {type(thing).__name__}. Expected "
                f"{' or '.join(kind.__name__ for kind in kinds[:2])}, several of them in a list."
            )
    if not things:
        _refuse_empty(argument, given)
    return list({repr(thing): thing for thing in things}.values())


def _is_several(given: Any) -> bool:
    return isinstance(given, Iterable) and not isinstance(given, (str, Mapping))


def _refuse_empty(argument: str, given: Any) -> Any:
    raise ValueError(f"{argument} is {given!r}. Expected at least one.")
