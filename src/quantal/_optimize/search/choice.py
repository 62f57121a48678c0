"""The choice of methods decides what a search runs, and in which order."""

import math
from collections.abc import Iterator

import numpy as np

from quantal._optimize.methods.autocorrelation_fit import AutocorrelationFit
from quantal._optimize.methods.compiled_steps import CompiledSteps
from quantal._optimize.methods.enumeration import LONGEST_CALL, Enumeration, largest_batch
from quantal._optimize.methods.exact import ExactMethod, restarts_with_exact
from quantal._optimize.methods.full_deltas import FullDeltas
from quantal._optimize.methods.gradient_starts import Gradients, GradientStarts
from quantal._optimize.methods.increasing import ThirdDifferences
from quantal._optimize.methods.magnitude_fit import MagnitudeFit
from quantal._optimize.methods.method import Method
from quantal._optimize.methods.piecewise_fit import PiecewiseFit
from quantal._optimize.methods.quadratic_fit import QuadraticFit
from quantal._optimize.methods.tabu import TabuSearch
from quantal._optimize.moves import Moves
from quantal._optimize.search.task import Task
from quantal.objectives._algorithms.losses import checked_losses
from quantal.objectives.problem import Floats

ENUMERATED = 2**17
"""Search spaces up to this size are enumerated, if that fits in half the budget."""
_ENUMERATED_OF_A_FUNCTION = 2**9
"""Search spaces of a user's function may be so many times as large: no method is much faster."""
_LARGEST_SHARE = 0.25
"""A step of tabu search evaluates at most this share of all moves by whole vectors."""
_SHARE_OF_NOTES = 50
"""Whether another objective fits is asked for this part of the budget at most."""
_RAYS, _FAR_AWAY, _SAME_GROWTH = 4, 1e4, 1e-2
"""On so many rays a norm is looked at, so many times as far away as the largest value; there, what
is constant in its sums is below this part of it."""
_FIRST_BATCH, _BATCH_GROWTH = 8, 8
"""The seconds of a loss are measured on batches of 8, 64, 512, ... vectors."""
_MEASURABLE = LONGEST_CALL / 4
"""The seconds from which a measurement is reliable."""
_SLOW = 1e-4
"""Losses of a function that take so many seconds each are remembered: looking one up is faster."""
_MARGIN, _LONGEST_ADVISED = 2.5, 3600.0
"""All vectors are evaluated where that takes up to half the budget; what a note advises is somewhat
more, for machines are not always as fast, and an hour at most."""
_MEASURING = 0.1
"""Measuring may take this share of the evaluations, where these are limited too."""


def choose_methods(task: Task) -> Iterator[Method]:
    """Yield the methods for a task, one after the other, until one is complete.

    A generator, because what comes next depends on what the last method learned: whether the
    loss has gradients, for example.
    """
    seconds_each = 0.0
    # With an evaluation budget, never decide by elapsed time.
    if task.is_black_box and math.isfinite(task.spending.seconds_left):
        seconds_each = _seconds_of_a_loss(task)
    black_box = task.objective.black_box
    largest = ENUMERATED * (_ENUMERATED_OF_A_FUNCTION if black_box else 1)
    assignments = task.problem.assignments
    if assignments <= largest and task.spending.affords(assignments, seconds_each):
        yield Enumeration(task.problem, task.evaluator.uncounted_losses, task.constraints.satisfied)
        return
    random = np.random.default_rng([task.seed, 1])
    gradients = None
    if seconds_each > _SLOW:
        task.evaluator.remember()
    if black_box:
        if not task.constraints:
            yield MagnitudeFit(task.problem, task.evaluator, task.population, seconds_each)
            yield QuadraticFit(
                task.problem, task.evaluator, task.population, task.seed, seconds_each
            )
            if len(task.problem) == len(task.objective):
                yield AutocorrelationFit(task.problem, task.evaluator, task.population, task.seed)
            if task.groups.factors is not None:
                yield _piecewise_fit(task, seconds_each)
        task.notes.extend(_notes(task, seconds_each))
        is_few = assignments <= min(largest, task.spending.evaluations_left)
        if seconds_each > _SLOW and is_few:
            task.notes.extend(_note_of_enumeration(assignments, seconds_each))
        descents = _gradient_starts(task, random)
        if descents is not None:
            yield descents
            gradients = _gradients_of_groups(task) if descents.available else None
    heuristic = _heuristic(task, random, gradients)
    if not black_box:
        task.spending.restart_clock()  # Compiling is no part of the search.
    yield from restarts_with_exact(
        heuristic, _exact_method(task), task.population, task.objective.exact_is_fast
    )


def _note_of_enumeration(assignments: int, seconds_each: float) -> Iterator[str]:
    """Yield the budget with which all assignments would be evaluated, unless it is very long."""
    seconds = _MARGIN * assignments * seconds_each
    if seconds <= _LONGEST_ADVISED:
        step = 10 ** (math.floor(math.log10(seconds)) - 1)
        yield (
            f"There are {assignments:,} vectors: with budget={math.ceil(seconds / step) * step:g} "
            "seconds all are evaluated, which proves the best one."
        )


def _notes(task: Task, seconds_each: float) -> Iterator[str]:
    """Yield which objective would fit a function that nothing was recognized in."""
    differences = ThirdDifferences(task.problem, np.random.default_rng(0))
    if not task.spending.affords(_SHARE_OF_NOTES * len(differences.codes), seconds_each):
        return
    codes = np.stack([task.population.repaired(row) for row in differences.codes])
    if (codes != differences.codes).any():
        return  # With a total or counts, elements do not change alone.
    forms = differences.quadratic_forms(task.evaluator.losses(codes))
    if forms:
        is_complex = np.iscomplexobj(task.problem.lists)
        other = "" if is_complex else "quantal.objectives.Quadratic, or, of few sums, "
        yield (
            f"The function looks like {forms[0].name} of sums with a term for each element. As "
            f"{other}quantal.objectives.Sums it is searched faster."
        )
    elif not task.notes and _grows_like_a_norm(task):
        yield (
            "The function looks like a sum or another norm of magnitudes of sums, with a term for "
            "each element. As quantal.objectives.Sums it is searched faster."
        )


def _grows_like_a_norm(task: Task) -> bool:
    """Return whether the loss grows with the distance, as much on both sides."""
    if task.groups.factors is None:
        return False
    random = np.random.default_rng(0)
    n, scale = len(task.problem), _FAR_AWAY * np.abs(task.problem.lists).max()
    rays = np.multiply.outer([1.0, -1.0, 2.0, -2.0], random.normal(size=(_RAYS, n)))
    vectors = task.problem.values(task.problem.start) + scale * rays.reshape(-1, n)
    try:
        losses = np.asarray(task.objective(task.groups.spread(vectors)), np.float64)
    except Exception:
        # A function need not be defined beyond its lists, and may raise anything there.
        return False
    task.spending.count(len(vectors))
    once, opposite, twice, twice_opposite = losses.reshape(4, _RAYS)
    return bool((once > 0).all()) and all(
        np.allclose(other, expected, rtol=_SAME_GROWTH, atol=0)
        for other, expected in ((opposite, once), (twice, 2 * once), (twice_opposite, twice))
    )


def _seconds_of_a_loss(task: Task) -> float:
    """Measure the seconds that one loss takes, by the smallest batch that gives a reliable time."""
    spending, most = task.spending, largest_batch(task.problem)
    count, larger, seconds = 1, min(_FIRST_BATCH, most), 0.0
    while (
        larger > count
        and seconds < _MEASURABLE
        and 2 * larger <= _MEASURING * spending.evaluations_left
    ):
        count, larger = larger, min(_BATCH_GROWTH * larger, most)
        codes = np.tile(task.problem.start, (count, 1))
        task.evaluator.losses(codes)  # It may compile.
        began = spending.seconds
        task.evaluator.losses(codes)
        seconds = spending.seconds - began
    return seconds / count


def _gradients_of_groups(task: Task) -> Gradients:
    """Return a function that takes the groups' values to the gradients of their losses."""

    def gradients(values: Floats) -> Floats | None:
        of_elements = task.objective.gradients(task.groups.spread(values))
        if of_elements is None:
            return None
        if np.shape(of_elements) != (len(values), len(task.objective)):
            raise ValueError(
                f"The objective's gradients have the shape {np.shape(of_elements)}. Expected that "
                f"of the vectors, {(len(values), len(task.objective))}, or None for no gradients."
            )
        return task.groups.gathered(of_elements)

    return gradients


def _piecewise_fit(task: Task, seconds_each: float) -> PiecewiseFit:
    def losses(values: Floats) -> Floats:
        vectors = task.groups.spread(values)
        return checked_losses(task.threads.call(task.objective, vectors), len(values))

    return PiecewiseFit(
        task.problem, losses, _gradients_of_groups(task), task.evaluator, task.population,
        task.seed, seconds_each, task.notes,
    )  # fmt: skip


def _gradient_starts(task: Task, random: np.random.Generator) -> GradientStarts | None:
    if task.groups.factors is None or np.iscomplexobj(task.problem.lists):
        return None
    return GradientStarts(
        task.problem, _gradients_of_groups(task), task.evaluator, task.population, random
    )


def _heuristic(task: Task, random: np.random.Generator, gradients: Gradients | None) -> Method:
    """Return what improves one assignment: a compiled loop, or tabu search."""
    problem, structure = task.problem, task.structure
    if structure is not None and not task.constraints:
        loop = structure.compiled_loop(problem, task.seed)
        if loop is not None:
            return CompiledSteps(problem, loop, task.seed)
    moves, losses = Moves(problem, task.constraints), task.evaluator.uncounted_losses
    deltas = None if structure is None else structure.deltas(problem)
    if deltas is not None:
        return TabuSearch(losses, deltas, moves, random)
    full = FullDeltas(losses, problem, gradients)
    return TabuSearch(losses, full, moves, random, _LARGEST_SHARE)


def _exact_method(task: Task) -> ExactMethod | None:
    """Return the objective's exact method where it applies.

    Without a limit of seconds only a fast one is used.
    """
    if task.structure is None or task.constraints:
        return None
    if not task.structure.exact_is_fast and math.isinf(task.spending.seconds_left):
        return None
    return ExactMethod(task.structure, task.problem, task.evaluator, task.population)
