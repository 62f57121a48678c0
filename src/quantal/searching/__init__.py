"""The best vector for a loss: search over the codes of lists."""

import contextlib
import dataclasses
import math
import os
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from quantal.searching.autocorrelation import Autocorrelation as Autocorrelation
from quantal.searching.calling import Called
from quantal.searching.constraints import Constraints, Moves
from quantal.searching.descent import descended
from quantal.searching.detecting import detected
from quantal.searching.losses import Quadratic as Quadratic
from quantal.searching.losses import Sums as Sums
from quantal.searching.magnitude import Magnitude as Magnitude
from quantal.searching.minimax import Minimax as Minimax
from quantal.searching.population import Population
from quantal.searching.problem import Floats, Groups, Integers, Problem
from quantal.searching.record import Record, fingerprint, members_of, read, written
from quantal.searching.walking import OfQuadratic, OfSums, View, Walker, Whole

ENUMERATED = 2**17
"""So few vectors are all looked at; more, where half of the budget suffices."""
_BATCH = 4096
_CLIMBED, _SOLVED = 0.05, 0.6
"""Shares of the budget: what goes before an exact method, and what that may take of the rest."""


@dataclasses.dataclass(frozen=True)
class SearchResult:
    """The best vector that was found.

    Attributes:
        values: The vector, float64 or complex128, (n,).
        codes: The positions of its values in their lists, (n,).
        loss: Its loss.
        bound: No vector has a lower loss; None where nothing is known.
        proved: Whether no vector is better: all were looked at, or the bound is met.
        history: (seconds, loss) of each better vector.
        evaluations: How many losses or differences of losses were looked at.
    """

    values: Floats
    codes: Integers
    loss: float
    bound: float | None
    proved: bool
    history: list[tuple[float, float]]
    evaluations: int

    @property
    def gap(self) -> float | None:
        """How far the loss is above the bound; None where there is none."""
        return None if self.bound is None else self.loss - self.bound

    def __str__(self) -> str:
        told = "no bound" if self.bound is None else f"bound {self.bound:.9g}"
        told = "proved" if self.proved else told
        last = self.history[-1][0] if self.history else 0.0
        return (
            f"loss {self.loss:.9g} ({told}), found after {last:.2f} s, "
            f"{self.evaluations:,} evaluations"
        )


def search(
    loss: Callable[[Any], Any] | Quadratic | Sums,
    values: Any,
    n: int | None = None,
    budget: float | None = 10.0,
    seed: int = 0,
    *,
    start: ArrayLike | None = None,
    fixed: ArrayLike | None = None,
    groups: ArrayLike | None = None,
    total: complex | None = None,
    counts: Mapping[float, int] | None = None,
    evaluations: int | None = None,
    file: str | os.PathLike[str] | None = None,
    jobs: int = 1,
    verbose: int = 1,
) -> SearchResult:
    """The best vector for a loss, each element from its list.

    Use it where there is no model and no training set: ±1 codes, masks, taps of a filter,
    parts from a series. It does not need a gradient, and uses one where there is one. Losses
    with a structure are followed by exact differences, most in compiled loops: `Quadratic`,
    `Autocorrelation`, `Sums`, `Minimax`; the largest `Magnitude` is found exactly, and small
    `Quadratic` and `Minimax` problems are proved. Any other loss is called on batches of
    vectors; where it turns out to be quadratic (up to 512 elements), it is followed as such.
    Where there are few vectors, all are looked at.

    How: gradients through the choice of values where the loss has them, then tabu search, from
    vectors that have what two good ones agree in. Ctrl-C ends it with the best so far.

    Args:
        loss: One of quantal's losses; or a function of vectors (batch, n) to losses (batch,):
            in NumPy, given float64 or complex128, or in `keras.ops`, given float32 or
            complex64 (the first call is in this one, too).
        values: The list: numbers (complex ones, too, such as phases), a preset's name or
            `Values`; or a sequence of lists, one for each element.
        n: The length of the vector; with a list for each element it may be left out.
        budget: Seconds; None where `evaluations` are given.
        seed: Of the random numbers. The same seed draws the same numbers; how far it comes
            in some seconds depends on the machine, in some evaluations it does not.
        start: Codes to start from, (n,); None draws them. The loss never rises above theirs.
        fixed: Booleans (n,): elements that keep their code of `start`.
        groups: Labels (n,): elements of one label have one code, the position in their own
            list. For symmetry, `np.minimum(i, n - 1 - i)`; for antisymmetry, lists with the
            negative values in the same order besides.
        total: What the elements have to sum to.
        counts: How many elements have a value, for example `{1: 20}`.
        evaluations: How many losses, or differences of losses, are looked at; the search
            ends soon after.
        file: Where the good vectors are kept when it ends; if it is there, the search goes
            on from them.
        jobs: Processes that share each batch of a loss that is a function, by joblib; -1 for
            one a core. For losses that take milliseconds a vector.
        verbose: 1 shows a line of progress, 0 nothing.

    Returns:
        A `SearchResult`.

    Raises:
        ImportError: numba or scipy is not installed, for losses with compiled loops.
        ValueError: An argument has another shape, no vector keeps to the constraints, the
            file is of another search, or the loss is not a number anywhere.

    >>> import numpy as np
    >>> target = np.array([1, -1, 0.5])
    >>> found = search(lambda v: ((v - target) ** 2).sum(1), [1, -1, 0.5], n=3, verbose=0)
    >>> found.values, found.proved
    (array([ 1. , -1. ,  0.5]), True)
    """
    check_budget(budget, evaluations)
    structured = hasattr(loss, "__len__")
    n = len(loss) if n is None and structured else n  # type: ignore[arg-type]
    whole = Problem(values, n, start, fixed, seed)
    if structured and len(loss) != len(whole):  # type: ignore[arg-type]
        raise ValueError(
            f"The loss is of {len(loss)} elements, there are lists for {len(whole)}. Expected "  # type: ignore[arg-type]
            "as many. Give n as the loss has it."
        )
    if isinstance(loss, Quadratic) and np.iscomplexobj(whole.lists):
        raise ValueError(
            "The lists are complex, and the loss is a Quadratic. Expected real numbers for it. "
            "Give a function of the vectors."
        )
    grouped = Groups(whole, groups)
    problem = grouped.problem
    constraints = Constraints(grouped, whole.lists, total, counts)
    random = np.random.default_rng(seed)
    problem.start = constraints.repaired(problem.start, random)
    inner = loss if groups is None else _of_groups(loss, grouped)
    called: Any = loss if structured else Called(loss, jobs)
    record = Record(
        lambda codes: called(grouped.values(codes)), problem.start, budget, evaluations, verbose
    )
    named = fingerprint(whole.lists, grouped.members, whole.fixed, constraints.targets)
    starts = [problem.start]
    if file is not None and os.path.exists(file):
        held = read(file, named, {"members": (None, len(problem))})
        starts = [*members_of(problem, held), *starts]
    (first,) = record.losses(problem.start[None])
    if math.isnan(first):
        raise ValueError(
            "The loss of the first vector is NaN. Expected a number. Look at the loss with "
            f"{grouped.values(problem.start)[:9].tolist()}..."
        )
    record.better(problem.start, float(first))
    for codes in starts[:-1]:
        record.better(codes, float(record.losses(codes[None])[0]))
    known: Any = inner if structured else None
    population = Population(
        problem,
        known.mirrors(problem) if hasattr(known, "mirrors") else None,
        random,
        lambda codes: constraints.repaired(codes, random),
    )
    population.begin_with(starts)
    with contextlib.suppress(KeyboardInterrupt):
        if problem.choices <= ENUMERATED or _few(record, problem, known):
            _enumerate(record, problem, constraints)
        else:
            _improve(record, problem, known, called, constraints, population, grouped, seed)
    record.end()
    if file is not None:
        found = [record.best_codes, *(codes for _, codes in population.members)]
        written(file, fingerprint=np.array(named), members=np.stack(found))
    (least,) = record.losses(record.best_codes[None])
    bound = record.bound
    if bound is None and hasattr(known, "lower_bound"):
        bound = known.lower_bound(problem)
    met = bound is not None and bool(least - bound <= 1e-9 * max(1.0, abs(least)))
    bound = float(least) if met else bound
    return SearchResult(
        grouped.values(record.best_codes), grouped.codes(record.best_codes), float(least),
        bound, met, record.history, record.spent,
    )  # fmt: skip


def check_budget(budget: float | None, evaluations: int | None) -> None:
    """Raise a ValueError if there is none."""
    if budget is None and evaluations is None:
        raise ValueError(
            "budget and evaluations are None. Expected one of them. Give, say, budget=10 seconds."
        )
    for name, number in (("budget", budget), ("evaluations", evaluations)):
        if number is not None and not number > 0:
            raise ValueError(f"{name} is {number}. Expected a number above 0. Give, say, 10.")


def _of_groups(loss: Any, grouped: Groups) -> Any:
    """The loss of the groups' values; None where it is none of them alone."""
    if grouped.expansion is None or not hasattr(loss, "reduced"):
        return None
    return loss.reduced(grouped.expansion)


def _few(record: Record, problem: Problem, known: Any) -> bool:
    """Whether half of the budget suffices to look at every vector, of a loss without structure."""
    batches = problem.choices // _BATCH
    if known is not None or ENUMERATED == 0 or batches > 2**14 or not math.isfinite(record.left):
        return False
    rows = np.tile(problem.start, (_BATCH, 1))
    record.losses(rows)  # It may compile.
    began = time.perf_counter()
    record.losses(rows)
    return batches * (time.perf_counter() - began) * 1.5 < record.left / 2


def _enumerate(record: Record, problem: Problem, constraints: Constraints) -> None:
    """Look at every vector."""
    free = np.flatnonzero(~problem.fixed)
    sizes = problem.lengths[free]
    for begin in range(0, problem.choices, _BATCH):
        places = np.arange(begin, min(begin + _BATCH, problem.choices))
        codes = np.tile(problem.start, (len(places), 1))
        codes[:, free] = np.stack(np.unravel_index(places, sizes), axis=1) if len(free) else 0
        codes = codes[constraints.met(codes)]
        if len(codes):
            losses = record.losses(codes)
            losses = np.where(np.isnan(losses), np.inf, losses)
            best = int(losses.argmin())
            record.better(codes[best], float(losses[best]))
        if not record.goes_on() and begin + _BATCH < problem.choices:
            return
    record.bound = record.best


def _improve(
    record: Record,
    problem: Problem,
    known: Any,
    called: Any,
    constraints: Constraints,
    population: Population,
    grouped: Groups,
    seed: int,
) -> None:
    """Go on until nothing is left to spend, or the best is proved."""
    random = np.random.default_rng([seed, 1])
    if isinstance(called, Called):
        if not constraints:
            known = detected(record.losses, problem, record.goes_on)
        if known is None and grouped.expansion is not None and np.isrealobj(problem.lists):
            expansion = grouped.expansion

            def slopes(rows: Floats) -> Floats | None:
                found = called.slopes(rows @ expansion.T)
                return None if found is None else found @ expansion

            rows = descended(problem, slopes, random, record.goes_on)
            if len(rows):
                rows = np.stack([constraints.repaired(row, random) for row in rows])
                losses = record.losses(rows)
                order = np.argsort(losses)
                population.begin_with(rows[order[: len(order) // 2]])
                record.better(rows[order[0]], float(losses[order[0]]))
                climber: Any = _walker(record, problem, None, constraints, random, slopes)
                climb(record, climber, population, record.better)
                return
    if hasattr(known, "climber") and not constraints:
        climber = known.climber(problem, seed)
    else:
        climber = _walker(record, problem, known, constraints, random, None)
    if not isinstance(called, Called):
        record.begin()  # Compiling is no part of the search.
    exact = not constraints and hasattr(known, "solved")
    follow(record, problem, known if exact else None, climber, population, known is called)


def follow(
    record: Record,
    problem: Problem,
    solver: Any,
    climber: Any,
    population: Population,
    proves: bool,
    better: Callable[[Integers, float], None] | None = None,
) -> None:
    """Tabu searches, with an exact method near the beginning, until nothing is left.

    Args:
        record: What is found.
        problem: What is searched.
        solver: A loss that has the method `solved`; or None.
        climber: Searches from a vector.
        population: Vectors to search from.
        proves: Whether the solver's loss is the loss itself, and its bound one; where it is
            not, the search ends when the solver has come to its end.
        better: Is told better vectors; None for the record.
    """
    better = better or record.better
    if solver is not None and record.left < math.inf:
        share = 0 if getattr(solver, "at_once", False) else _CLIMBED
        climb(record, climber, population, better, until=(1 - share) * record.left)
        found = solver.solved(problem, _SOLVED * record.left, record.best_codes)
        if found is not None and found.codes is not None:
            (loss,) = record.losses(found.codes[None])
            record.better(found.codes, float(loss))
            population.begin_with([found.codes])
        if found is not None and found.bound is not None:
            if not proves:
                return  # What stands for the loss has no better vector.
            record.bound = found.bound
    climb(record, climber, population, better)


def _walker(
    record: Record,
    problem: Problem,
    known: Any,
    constraints: Constraints,
    random: np.random.Generator,
    slopes: Any,
) -> Walker:
    view: View
    if isinstance(known, Quadratic):
        view = OfQuadratic(known, problem)
    elif isinstance(known, Sums):
        view = OfSums(known, problem)
    else:
        view = Whole(record.losses, problem, slopes)
    return Walker(view, record.losses, Moves(problem, constraints), random)


def climb(
    record: Record,
    climber: Any,
    population: Population,
    better: Callable[[Integers, float], None],
    until: float = 0.0,
) -> None:
    """Tabu searches, each from what two good vectors agree in, until so much is left."""
    elsewhere, begun = record.elsewhere, climber.evaluations
    record.elsewhere = lambda: elsewhere() + climber.evaluations - begun

    def goes_on() -> bool:
        return record.goes_on() and record.left > until

    while goes_on():
        population.take(*climber.improved(population.child(), goes_on, better))
    record.evaluations += climber.evaluations - begun
    record.elsewhere = elsewhere
