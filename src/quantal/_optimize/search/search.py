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

from quantal._optimize.constraints import Constraints, Moves
from quantal._optimize.incumbent import Record, check_place, fingerprint, members_of, read, written
from quantal._optimize.methods.gradient_starts import descended
from quantal._optimize.methods.population import Population
from quantal._optimize.methods.quadratic_fit import LARGEST, detected
from quantal._optimize.methods.tabu import OfQuadratic, OfSums, View, Walker, Whole
from quantal._optimize.search.user_loss import Called
from quantal.objectives._algorithms.solution import Solution
from quantal.objectives.autocorrelation import Autocorrelation as Autocorrelation
from quantal.objectives.losses import Quadratic as Quadratic
from quantal.objectives.losses import Sums as Sums
from quantal.objectives.magnitude import Magnitude as Magnitude
from quantal.objectives.minimax import Minimax as Minimax
from quantal.objectives.problem import Floats, Groups, Integers, Problem

ENUMERATED = 2**17
"""So few vectors are all looked at; more, where half of the budget suffices."""
_BATCH = 4096
_MOST_NUMBERS = 2**24
_MOMENT = 0.05  # Seconds of a batch, about, between two looks at the clock.
_DRAWN = 256  # Vectors that are looked at for one whose loss is a number.
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
        proved: Whether no vector is better: all were looked at, an exact method says so, or
            the bound is met. Of a mixed-integer program (`Minimax`): none is better by more
            than some millionths.
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
    loss: Callable[[Any], Any] | Quadratic | Sums | Autocorrelation | Magnitude,
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
            complex64 (the first call is in this one, too). NaN is worse than any number.
        values: The list: numbers (complex ones, too, such as phases), a preset's name or
            `Values`; or a sequence of lists, one for each element, or an array (n, K).
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
            ends soon after. Exact methods that take seconds are not used.
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
            file is damaged or of another search, or no loss of the first is a number.

    >>> import numpy as np
    >>> target = np.array([1, -1, 0.5])
    >>> found = search(lambda v: ((v - target) ** 2).sum(1), [1, -1, 0.5], n=3, verbose=0)
    >>> found.values, found.proved
    (array([ 1. , -1. ,  0.5]), True)
    """
    check_budget(budget, evaluations)
    check_place(file)
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

    def mended(codes: Integers) -> Integers:
        try:
            return constraints.repaired(codes, random)
        except ValueError:
            return record.best_codes.copy()

    named = fingerprint(
        whole.lists, grouped.members, whole.fixed, whole.start[whole.fixed],
        constraints.targets, constraints.adds,
    )  # fmt: skip
    (first,) = record.losses(problem.start[None])
    record.better(problem.start, float(first))
    if math.isnan(first):
        problem.start = _first(record, problem, mended, grouped, random)
    starts = [problem.start]
    if file is not None and os.path.exists(file):
        held = read(file, named, {"members": (None, len(problem))})
        starts = [*members_of(problem, held), *starts]
    for codes in starts[:-1]:
        record.look(codes)
    known: Any = inner if structured else None
    mirrors = known.mirrors(problem) if hasattr(known, "mirrors") else None
    population = Population(problem, mirrors, random, mended)
    population.begin_with(starts)
    with contextlib.suppress(KeyboardInterrupt):
        # Where evaluations count and no seconds, the clock says nothing.
        timed = known is None and math.isfinite(record.left)
        each = _seconds(record, problem) if timed else 0.0
        few = problem.choices <= (ENUMERATED if structured else ENUMERATED * 2**9)
        if few and record.affords(problem.choices, each):
            _enumerate(record, problem, constraints)
        else:
            _improve(record, problem, known, called, constraints, population, grouped, seed, each)
    record.end()
    if file is not None:
        found = [record.best_codes, *(codes for _, codes in population.members)]
        written(file, fingerprint=np.array(named), members=np.stack(found))
    (least,) = record.losses(record.best_codes[None])
    bound, proved = record.bound, record.proved
    if bound is None and not proved and hasattr(known, "lower_bound"):
        with contextlib.suppress(KeyboardInterrupt, ImportError):
            bound = known.lower_bound(problem)
    rounding = known.rounding(problem) if hasattr(known, "rounding") else 0.0
    proved = proved or bool(bound is not None and least - bound <= rounding)
    if proved:
        bound = float(least) if bound is None else min(bound, float(least))
    return SearchResult(
        grouped.values(record.best_codes), grouped.codes(record.best_codes), float(least),
        bound, proved, record.history, record.spent,
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
    if grouped.factors is None or not hasattr(loss, "reduced"):
        return None
    return loss.reduced(grouped.expansion(getattr(loss, "sparse", False)))


def _first(
    record: Record,
    problem: Problem,
    mended: Callable[[Integers], Integers],
    grouped: Groups,
    random: np.random.Generator,
) -> Integers:
    """A vector whose loss is a number."""
    for _ in range(_DRAWN):
        codes = mended(problem.drawn(random))
        (loss,) = record.losses(codes[None])
        if not math.isnan(loss):
            record.better(codes, float(loss))
            return codes
    raise ValueError(
        f"The loss of the first vector is NaN, and so are those of {_DRAWN} that were drawn. "
        "Expected a number. Look at the loss with "
        f"{grouped.values(problem.start)[:9].tolist()}..., or give a start."
    )


def _seconds(record: Record, problem: Problem) -> float:
    """That a loss takes, of many; of as few as tell."""
    most, count, seconds = _batch(problem), 8, 0.0
    while count < most and seconds < _MOMENT / 4:
        count = min(8 * count, most) if seconds else min(count, most)
        rows = np.tile(problem.start, (count, 1))
        record.losses(rows)  # It may compile.
        began = time.perf_counter()
        record.losses(rows)
        seconds = time.perf_counter() - began
    return seconds / count


def _batch(problem: Problem) -> int:
    return int(np.clip(_MOST_NUMBERS // len(problem), 1, _BATCH))


def _enumerate(record: Record, problem: Problem, constraints: Constraints) -> None:
    """Look at every vector."""
    free = np.flatnonzero(~problem.fixed & (problem.lengths > 1))
    sizes, most = problem.lengths[free], _batch(problem)
    begin, size = 0, min(64, most)
    while begin < problem.choices and (begin == 0 or record.goes_on()):
        began = time.perf_counter()
        end = min(begin + record.losses_left(size), problem.choices)
        codes = np.tile(problem.start, (end - begin, 1))
        if len(free):
            codes[:, free] = np.stack(np.unravel_index(np.arange(begin, end), sizes), axis=1)
        codes = codes[constraints.met(codes)]
        if len(codes):
            losses = record.losses(codes)
            losses = np.where(np.isnan(losses), np.inf, losses)
            best = int(losses.argmin())
            record.better(codes[best], float(losses[best]))
        if time.perf_counter() - began < _MOMENT:
            size = most
        begin = end
    record.proved = begin == problem.choices


def _improve(
    record: Record,
    problem: Problem,
    known: Any,
    called: Any,
    constraints: Constraints,
    population: Population,
    grouped: Groups,
    seed: int,
    each: float,
) -> None:
    """Go on until nothing is left to spend, or the best is proved."""
    random = np.random.default_rng([seed, 1])
    slopes = None
    if isinstance(called, Called):
        if not constraints and follow_as_quadratic(record, problem, population, seed, each):
            return
        if grouped.factors is not None and np.isrealobj(problem.lists):

            def slopes_of_groups(rows: Floats) -> Floats | None:
                found = called.slopes(grouped.spread(rows))
                return None if found is None else grouped.gathered(found)

            slopes = slopes_of_groups
            rows = descended(problem, slopes, random, record.goes_on)
            if len(rows):
                rows = np.stack([population.repaired(row) for row in rows])
                losses = record.losses(rows)
                order = np.argsort(losses)
                population.begin_with(rows[order[: len(order) // 2]])
                record.better(rows[order[0]], float(losses[order[0]]))
            else:
                slopes = None
    if hasattr(known, "climber") and not constraints:
        climber: Any = known.climber(problem, seed)
    else:
        climber = _walker(record, problem, known, constraints, random, slopes)
    if not isinstance(called, Called):
        record.begin()  # Compiling is no part of the search.
    exact = not constraints and hasattr(known, "solved")
    solver = known if exact else None
    _follow(record, problem, solver, climber, population, record.better, lambda: True, False)


def follow_as_quadratic(
    record: Record, problem: Problem, population: Population, seed: int, each: float
) -> bool:
    """Follow a loss that turns out to be quadratic by exact differences.

    They are those of a quadratic loss that stands for the true one; the latter says what is
    better.

    Args:
        record: What is found.
        problem: What is searched.
        population: Vectors to search from.
        seed: Of the random numbers.
        each: Seconds that a loss takes, about.

    Returns:
        Whether nothing is left: no vector is better by the loss that stands for the true
        one, and the two agree there.
    """
    count = len(problem) * (len(problem) + 5) // 2 + 100
    if len(problem) > LARGEST or not record.affords(2 * count, each):
        return False
    recognized = detected(record.losses, problem, record.goes_on)
    if recognized is None:
        return False
    stand_in, tolerance = recognized
    began = time.perf_counter()
    try:
        climber = stand_in.climber(problem, seed)
    except ImportError:  # Without the extra `search`, as any other loss.
        return False
    record.without(time.perf_counter() - began)
    trusted = True

    def better(codes: Integers, loss: float) -> None:
        nonlocal trusted
        if loss < record.best:
            (own,) = record.losses(codes[None])
            record.better(codes, float(own))
            trusted = bool(abs(own - loss) <= tolerance)

    found = _follow(record, problem, stand_in, climber, population, better, lambda: trusted, True)
    if not trusted:
        population.members.clear()  # Their losses are not true.
    if found is None or found.codes is None or not found.proved:
        return False
    better(found.codes, float(stand_in(problem.values(found.codes)[None])[0]))
    return trusted


def _follow(
    record: Record,
    problem: Problem,
    solver: Any,
    climber: Any,
    population: Population,
    better: Callable[[Integers, float], None],
    trusted: Callable[[], bool],
    stands_in: bool,
) -> Solution | None:
    """Tabu searches, with an exact method near the beginning, until nothing is left.

    Args:
        record: What is found.
        problem: What is searched.
        solver: A loss that has the method `solved`; or None.
        climber: Searches from a vector.
        population: Vectors to search from.
        better: Is told better vectors and their loss.
        trusted: Whether to go on.
        stands_in: Whether solver and climber have a loss that stands for the true one.

    Returns:
        What the exact method found; None where there was none.
    """
    at_once, found = getattr(solver, "at_once", False), None
    if solver is not None and (at_once or record.left < math.inf):
        share = 0 if at_once else _CLIMBED
        _climb(record, climber, population, better, trusted, until=(1 - share) * record.left)
        if record.goes_on() and trusted():
            seconds = _SOLVED * record.left
            found = solver.solved(problem, seconds, record.best_codes.copy(), record.look)
        if found is not None and found.codes is not None:
            record.look(found.codes)
            population.begin_with([found.codes])
        if found is not None and not stands_in:
            record.bound, record.proved = found.bound, found.proved
        if found is not None and found.proved:
            return found
    _climb(record, climber, population, better, trusted)
    return found


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


def _climb(
    record: Record,
    climber: Any,
    population: Population,
    better: Callable[[Integers, float], None],
    trusted: Callable[[], bool],
    until: float = 0.0,
) -> None:
    """Tabu searches, each from what two good vectors agree in, until so much is left."""
    elsewhere, begun = record.elsewhere, climber.evaluations
    record.elsewhere = lambda: elsewhere() + climber.evaluations - begun

    def goes_on() -> bool:
        return record.goes_on() and record.left > until and trusted()

    while goes_on():
        population.take(*climber.improved(population.child(), goes_on, better))
    record.evaluations += climber.evaluations - begun
    record.elsewhere = elsewhere
