"""Search over the codes of a model that is trained: `quantal.polish`."""

import contextlib
import dataclasses
import math
import os
import time
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np

from quantal._core.parameter import Parameter, parameters_of
from quantal._models.model_loss import Objective
from quantal._optimize.incumbent import Record, check_place, fingerprint, read, written
from quantal._optimize.methods.population import Population
from quantal._optimize.methods.quadratic_fit import LARGEST
from quantal._optimize.polish.annealing import Tempering
from quantal._optimize.search.search import check_budget, follow_as_quadratic
from quantal.objectives.problem import Floats, Integers

_LOOKS = 40
"""How often, in shares of the budget, all data are looked at while only parts are followed."""
_SINGLES = 64
_CYCLE = 0.1
"""The least share of the budget that a cycle of drawn changes takes."""
_BLOCK = 0.002  # Of all elements, at first.
_TENURE = 100
"""Tries for which elements stay whose change was not better."""
_MOST_NUMBERS = 2**25
"""Codes that many candidates may have: 256 MiB."""


@dataclasses.dataclass(frozen=True)
class PolishReport:
    """What polishing changed.

    Attributes:
        loss_before: The loss on the data given, before.
        loss: After; never higher.
        validation_before: The loss on the validation data, before; None without these.
        validation: After.
        proved: Whether no choice has a lower loss, but for roundings of the model: known of
            quadratic losses of few elements alone, elsewhere there is no bound.
        changed: How many elements have another code.
        elements: How many there are.
        evaluations: How many losses on all or a part of the data were looked at.
        history: (seconds, loss) of each better choice, on all data given.
    """

    loss_before: float
    loss: float
    validation_before: float | None
    validation: float | None
    proved: bool
    changed: int
    elements: int
    evaluations: int
    history: list[tuple[float, float]]

    def __str__(self) -> str:
        told = f"loss {self.loss_before:.6g} -> {self.loss:.6g}" + " (proved)" * self.proved
        if self.validation is not None:
            told += f", validation {self.validation_before:.6g} -> {self.validation:.6g}"
        return (
            f"{told}; {self.changed:,} of {self.elements:,} elements changed, "
            f"{self.evaluations:,} evaluations"
        )


def polish(
    model: keras.Model,
    x: Any,
    y: Any = None,
    budget: float | None = 60.0,
    *,
    sample_weight: Any = None,
    validation_data: tuple[Any, ...] | None = None,
    monitor: Callable[[Any, Any], Any] | None = None,
    parameters: Sequence[Parameter] | None = None,
    batch_size: int = 8192,
    evaluations: int | None = None,
    seed: int = 0,
    file: str | os.PathLike[str] | None = None,
    verbose: int = 1,
) -> PolishReport:
    """Change the chosen values of a trained model wherever that lowers its loss.

    Use it after `fit`, where gradients have stopped: each choice is checked by the loss
    itself, computed as in inference. The other weights, scales and lists stay.

    How: up to 512 elements whose loss is quadratic are followed by exact differences
    (`quantal.search`). Else changes to neighbouring values are ranked by
    `gradient * step + curvature * step**2 / 2`, and taken in blocks whose size fits what the
    loss says, one by one in the end; then many are drawn at a temperature that falls, again
    and again from the best. More data than `batch_size` are followed in parts, a new one each
    few steps, and looked at as a whole from time to time; blocks that do not lower the loss,
    that of the validation data included, are tabu for a while. What is kept has the lowest
    loss on the validation data, or without these on the data given, and is never worse on the data
    given than what was there. Ctrl-C ends it with that. Memory grows with elements and
    samples, not with the list's length.

    The loss is what `evaluate` gives, in batches of `batch_size`: the compiled one with what
    layers add to it. Only penalties on latents are left out, which say nothing of values.

    Source of the drawn changes: Zhang, Liu and Liu, "A Langevin-like sampler for discrete
    distributions", ICML 2022, here with the curvature along the last step.

    Args:
        model: A built and compiled model with discrete layers. It is changed.
        x: Its inputs, arrays or structures of arrays, samples first.
        y: Its targets; None where the loss needs none.
        budget: Seconds; None where `evaluations` are given.
        sample_weight: How much each sample counts, as in `fit`; None for all alike.
        validation_data: Other samples `(x, y)` or `(x, y, sample_weight)`, which say what is
            kept; so that noise in the data is not learned.
        monitor: A function of targets and outputs to a number, lower is better, that says
            what is kept, for example the share of wrong answers; None for the loss. The
            search follows the loss, which has a gradient; in the report, what is called
            loss is this number.
        parameters: What is changed, of `parameters_of(model)`; None for all.
        batch_size: The most samples at once.
        evaluations: How many losses are looked at. With it and no budget, the same seed
            gives the same choice.
        seed: Of the random numbers.
        file: Where the best choice is kept, from time to time and in the end; if it is
            there, polishing goes on from it.
        verbose: 1 shows a line of progress, 0 nothing.

    Returns:
        A `PolishReport`.

    Raises:
        TypeError: It is not a Keras model.
        ValueError: The model is not compiled or has no discrete layers, the data are no
            arrays of one length, the loss is not a number, or the file is damaged or of
            another model.

    >>> import keras, numpy as np, quantal
    >>> x = np.random.default_rng(0).normal(size=(64, 8)).astype("float32")
    >>> y = x * [1, -1, 1, 1, -1, -1, 1, -1]
    >>> model = keras.Sequential([keras.Input((8,)), quantal.LearnableMultiplier()])
    >>> model.compile(loss="mse")
    >>> report = polish(model, x, y, budget=1, verbose=0)
    >>> print(round(report.loss, 6))
    0.0
    """
    check_budget(budget, evaluations)
    check_place(file)
    if batch_size < 1:
        raise ValueError(f"batch_size is {batch_size}. Expected 1 or more. Give, say, 8192.")
    chosen = parameters_of(model) if parameters is None else list(parameters)
    _check(model, chosen)
    objective = Objective(model, chosen, (x, y, sample_weight), batch_size, monitor)
    guard = None if validation_data is None else objective.on(_triple(validation_data))
    begun = objective.ranks()
    record = Record(objective.losses, begun, budget, evaluations, verbose)
    before = objective.measure(begun)
    validation_before = None if guard is None else guard.measure(begun)
    if len(begun) <= LARGEST:
        objective.losses(np.stack([begun, begun]))
    for name, loss in (("", before), (" of validation_data", validation_before)):
        if loss is not None and not np.isfinite(loss):
            raise ValueError(
                f"The loss{name} is {loss} before anything is changed. Expected a finite number. "
                "Train the model first, or look at its data."
            )
    record.begin()  # Compiling is no part of the search.
    record.better(begun, before)
    record.elsewhere = lambda: objective.gradients + objective.measured
    named = fingerprint(*(p.values.ascending for p in chosen), repr([p.shape for p in chosen]))

    def save(ranks: Integers) -> None:
        if file is not None:
            written(file, fingerprint=np.array(named), members=ranks[None])

    run = _Run(objective, guard, record, validation_before, seed, monitor is not None, save)
    if file is not None and os.path.exists(file):
        held = read(file, named, {"members": (None, len(begun))})["members"][:1]
        if ((held < 0) | (held >= objective.lengths)).any():
            raise ValueError(
                f"{os.fspath(file)!r} has codes that are not in the lists. Expected what polish "
                "wrote. Delete it to begin anew."
            )
        run.look(held[0].astype(begun.dtype))
    run.go()
    record.end()
    save(run.kept)
    objective.choose(run.kept)
    return PolishReport(
        before, run.kept_loss, validation_before, run.kept_validation, run.proved,
        int((run.kept != begun).sum()), len(begun), record.spent, record.history,
    )  # fmt: skip


class _Run:
    """One polishing: where it stands, and what is kept."""

    def __init__(
        self,
        objective: Objective,
        guard: Objective | None,
        record: Record,
        validation: float | None,
        seed: int,
        monitored: bool,
        save: Callable[[Integers], None],
    ) -> None:
        self._objective, self._guard, self._record = objective, guard, record
        self._monitored, self._seed, self._save = monitored, seed, save
        self._random = np.random.default_rng(seed)
        self._before = record.best
        self.kept, self.kept_loss, self.kept_validation = record.best_codes, record.best, validation
        self._reached: Integers | None = None
        self._looks, self._solved = 0, False
        self._held = validation

    def go(self) -> None:
        """Until nothing is left to spend, or Ctrl-C."""
        with contextlib.suppress(KeyboardInterrupt):
            if self._objective.parts > 1:
                self._in_parts()
            else:
                self._whole()
        if self._reached is None:
            self.look(self._record.best_codes, self._record.best)
        else:
            self.look(self._reached)

    def _holds(self, ranks: Integers) -> bool:
        """Whether the validation loss falls, too."""
        if self._guard is None or self._held is None:
            return True
        found = self._guard.measure(ranks)
        if not found < self._held:
            return False
        self._held = found
        return True

    @property
    def proved(self) -> bool:
        """Whether no choice has a lower loss than what is kept."""
        return self._solved and self.kept_loss <= self._record.best

    def look(self, ranks: Integers, loss: float | None = None) -> bool:
        """Keep a choice if it is better on what counts; whether it is.

        Args:
            ranks: The choice.
            loss: On all data given, if it is known.
        """
        validation = None
        if self._guard is not None and self.kept_validation is not None:
            validation = self._guard.measure(ranks)
            if not validation < self.kept_validation:
                return False
        if loss is None:
            loss = self._objective.measure(ranks)
        if not loss <= self._before or (self._guard is None and not loss < self.kept_loss):
            return False
        self.kept, self.kept_loss, self.kept_validation = ranks.copy(), loss, validation
        self._record.better(ranks, loss)
        self._save(self.kept)
        return True

    def _time_to_look(self) -> bool:
        """Whether the next part of the budget is gone."""
        now = int(_LOOKS * self._record.used)
        new, self._looks = now > self._looks, max(now, self._looks)
        return new

    def _whole(self) -> None:
        """On all data: a quadratic loss by exact differences; else blocks, then drawn changes."""
        record = self._record
        tempering = Tempering(self._objective, self._random)
        self._survey(record.best_codes)
        self._descend(record.best_codes.copy())
        self._solved = not self._monitored and self._quadratic()
        if self._solved:
            return
        while record.goes_on():
            self.look(record.best_codes, record.best)
            begun = record.used
            until = begun + max(_CYCLE, (1 - begun) / 4)

            def gone(begun: float = begun, until: float = until) -> float:
                return (record.used - begun) / (until - begun)

            ranks = tempering.cycle(record.best_codes, gone, record.goes_on, record.better)
            self._descend(ranks)

    def _quadratic(self) -> bool:
        """Follow a quadratic loss of few elements; whether nothing is left then."""
        objective, record = self._objective, self._record
        if len(objective) > LARGEST:
            return False
        problem = objective.problem(record.best_codes)
        population = Population(problem, None, self._random)
        population.begin_with([record.best_codes])
        return follow_as_quadratic(record, problem, population, self._seed, self._each())

    def _each(self) -> float:
        """Seconds that one of many losses takes."""
        if math.isinf(self._record.left):
            return 0.0  # Evaluations count, and no seconds.
        rows = np.tile(self._record.best_codes, (self._objective.width, 1))
        self._record.losses(rows)  # It may compile.
        began = time.perf_counter()
        self._record.losses(rows)
        return (time.perf_counter() - began) / len(rows)

    def _survey(self, ranks: Integers) -> None:
        """Learn the curvature, at a fifth of the budget at most."""
        record, objective = self._record, self._objective
        until = record.used + 0.2
        objective.survey(ranks, self._random, lambda: record.goes_on() and record.used < until)
        part = None if objective.parts == 1 else objective.part(self._random)
        objective.probe(ranks, objective.slopes(ranks, part)[1], self._random, part)

    def _descend(self, ranks: Integers) -> None:
        """Blocks of ranked changes while the loss of all data falls, then single ones."""
        objective, record = self._objective, self._record
        block = max(1, int(_BLOCK * len(ranks)))
        loss, slope = objective.slopes(ranks)
        while record.goes_on():
            if self._guard is not None and self._time_to_look():
                self.look(ranks, None if self._monitored else loss)
            order, moved, costs = objective.ranked(ranks, slope)
            many = min(block, int((costs < 0).sum()))
            if many > 1:
                tried = ranks.copy()
                tried[order[:many]] = moved[order[:many]]
                tried_loss, tried_slope = objective.slopes(tried)
                if tried_loss < loss:
                    ranks, loss, slope = tried, tried_loss, tried_slope
                    record.better(ranks, objective.monitored)
                    block = 2 * many
                else:
                    block = many // 4
                continue
            tried = self._single(ranks, order, moved)
            tried_loss, tried_slope = objective.slopes(tried)
            if not tried_loss < loss:
                return
            ranks, loss, slope, block = tried, tried_loss, tried_slope, 4
            record.better(ranks, objective.monitored)

    def _single(self, ranks: Integers, order: Integers, moved: Integers) -> Integers:
        """The best of some promising single changes."""
        at = order[: max(1, min(_SINGLES, _MOST_NUMBERS // len(ranks)))]
        tried = np.tile(ranks, (len(at), 1))
        tried[np.arange(len(at)), at] = moved[at]
        losses = self._record.losses(tried)
        return tried[int(np.where(np.isnan(losses), np.inf, losses).argmin())]

    def _in_parts(self) -> None:
        """Blocks of ranked changes on parts of the data, with looks at all of them.

        A block is taken where it lowers the loss of the part and that of the validation
        data. Else its elements are tabu for some tries, and the next ones are tried.
        """
        objective, record = self._objective, self._record
        ranks, block = record.best_codes.copy(), max(1, int(_BLOCK * len(record.best_codes)))
        mean: Floats | None = None
        # When each element may change again, in tries.
        free_at, tries, tenure = np.zeros(len(ranks), np.int64), 0, min(_TENURE, len(ranks) // 4)
        self._survey(ranks)
        while record.goes_on():
            part = objective.part(self._random)
            loss, slope = objective.slopes(ranks, part)
            # Changes are ranked by what several parts say.
            mean = slope if mean is None else 0.8 * mean + 0.2 * slope
            for _ in range(4):
                order, moved, costs = objective.ranked(ranks, mean, free_at > tries)
                many = min(block, int((costs < 0).sum()))
                tries += 1
                if many == 0 or not record.goes_on():
                    break
                tried = ranks.copy()
                tried[order[:many]] = moved[order[:many]]
                tried_loss, tried_slope = objective.slopes(tried, part)
                if tried_loss < loss and self._holds(tried):
                    mean = mean + tried_slope - slope
                    ranks, loss, slope = tried, tried_loss, tried_slope
                    block = min(2 * many, len(ranks))
                else:
                    free_at[order[:many]] = tries + tenure
                    block = max(1, many // 2)
            self._reached = ranks
            if self._time_to_look() and not self.look(ranks) and self._guard is not None:
                # What was learned since does not hold elsewhere.
                ranks, mean, self._held = self.kept.copy(), None, self.kept_validation


def _triple(data: Any) -> tuple[Any, Any, Any]:
    if not isinstance(data, (tuple, list)) or len(data) not in (2, 3):
        raise ValueError(
            f"validation_data is {type(data).__name__}. Expected inputs and targets, and weights "
            "where samples have them. Give (x, y) or (x, y, sample_weight)."
        )
    return keras.utils.unpack_x_y_sample_weight(tuple(data))  # type: ignore[no-any-return]


def _check(model: Any, parameters: Sequence[Parameter]) -> None:
    if not isinstance(model, keras.Model):
        raise TypeError(
            f"model is {model!r} of type {type(model).__name__}. Expected a Keras model. Give the "
            "model itself, compiled."
        )
    if not model.compiled:
        raise ValueError(
            f"The model {model.name!r} is not compiled. Expected one with a loss. Call "
            "model.compile(loss=...) first."
        )
    if not parameters:
        raise ValueError(
            f"The model {model.name!r} has no discrete parameters. Expected some to polish. Make "
            "some with quantal.discretize or quantal.Discrete."
        )
    if len({id(p.latent) for p in parameters}) < len(parameters):
        raise ValueError(
            "parameters has one of them twice. Expected each once. Take them from "
            "quantal.parameters_of(model)."
        )
    unknown = [p for p in parameters if all(p is not own for own in parameters_of(model))]
    if unknown:
        raise ValueError(
            f"parameters has {unknown[0]!r}, which is not in the model. Expected some of "
            "quantal.parameters_of(model). Take them from this model."
        )
