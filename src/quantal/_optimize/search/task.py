"""A task holds a search's arguments, checked and in the form that the methods need."""

import dataclasses
import math
import os
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from quantal._optimize.budget import Budget, Clock, Spending
from quantal._optimize.checkpoint import Checkpoint, distinct, fingerprint
from quantal._optimize.constraints import Constraints
from quantal._optimize.evaluator import Evaluator
from quantal._optimize.incumbent import Incumbent
from quantal._optimize.linear_constraints import LinearConstraints
from quantal._optimize.methods.population import Population
from quantal._optimize.progress import Progress
from quantal._optimize.search.blas_threads import BlasThreads
from quantal._optimize.search.negative import negative_of
from quantal._optimize.search.user_loss import UserLoss
from quantal.objectives._algorithms.losses import checked_losses
from quantal.objectives.groups import Groups
from quantal.objectives.objective import Objective
from quantal.objectives.problem import Floats, Integers, Problem
from quantal.objectives.quadratic import Quadratic

_DRAWN = 256
"""The random vectors that are tried for one whose loss is a number."""


@dataclasses.dataclass(frozen=True)
class Settings:
    """Settings say how a search runs; they are no part of the problem.

    Attributes:
        budget: What may be spent.
        seed: The seed of the random numbers.
        file: The path of the checkpoint; None for none.
        jobs: The processes that share each batch of a user's function; None for joblib's.
        verbose: 0 shows no progress.
        maximizes: Whether the objective is to be large, not small.
        clock: The clock that measures seconds.
    """

    budget: Budget
    seed: int = 0
    file: str | os.PathLike[str] | None = None
    jobs: int | None = None
    verbose: int = 0
    maximizes: bool = False
    clock: Clock = time.perf_counter


@dataclasses.dataclass(frozen=True)
class Task:
    """A task is what a search works on: the problem, and the state that all methods share.

    Attributes:
        objective: What is minimized, a function of all elements.
        structure: The objective as one of the groups; None where its structure is lost.
        groups: The elements that move together.
        problem: The problem of the groups.
        constraints: The sums that have to be met.
        population: The good assignments.
        evaluator: Evaluates assignments of the groups.
        threads: Limits threads while the objective is called.
        progress: The line of progress.
        checkpoint: The file.
        seed: The seed of the random numbers.
        values: The list of all elements; a list of lists where elements have their own.
        maximizes: Whether the user's numbers are the losses' negatives.
        notes: What the user could do for a faster search.
    """

    objective: Objective
    structure: Objective | None
    groups: Groups
    problem: Problem
    constraints: LinearConstraints
    population: Population
    evaluator: Evaluator
    threads: BlasThreads
    progress: Progress
    checkpoint: Checkpoint
    seed: int
    values: list[Any] = dataclasses.field(default_factory=list, kw_only=True)
    maximizes: bool = dataclasses.field(default=False, kw_only=True)
    notes: list[str] = dataclasses.field(default_factory=list, kw_only=True)

    @property
    def spending(self) -> Spending:
        """Return what is used of the budget."""
        return self.evaluator.spending

    @property
    def incumbent(self) -> Incumbent:
        """Return the best assignment so far."""
        return self.evaluator.incumbent

    @property
    def is_black_box(self) -> bool:
        """Return whether nothing is known of the objective's structure."""
        return self.objective.black_box or self.structure is None

    def snapshot(self) -> dict[str, NDArray[Any]]:
        """Return what the checkpoint keeps: the incumbent and the population, each once."""
        members = [member.codes for member in self.population.members]
        return {"members": distinct([self.incumbent.codes, *members, *self.population.starts])}


def parse(
    objective: Callable[[Any], Any] | Objective,
    values: Any,
    n: int | None,
    start: ArrayLike | None,
    constraints: Constraints | None,
    settings: Settings,
) -> Task:
    """Return the task of a search; the arguments are those of `search`."""
    given = _checked_constraints(constraints)
    if n is None and isinstance(objective, Objective):
        n = len(objective)
    whole = Problem(values, n, start, given.fixed, settings.seed)
    checked = _checked_objective(objective, whole, settings.jobs, settings.maximizes)
    groups = Groups(whole, given.groups)
    problem = groups.problem
    linear = LinearConstraints(groups, whole.lists, given.total, given.counts)
    random = np.random.default_rng(settings.seed)
    problem = problem.starting_at(linear.repaired(problem.start, random))
    structure: Objective | None = checked
    if given.groups is not None:
        structure = None if groups.factors is None else checked.reduced(groups)
    spending = Spending(settings.budget, settings.clock)
    incumbent = Incumbent(problem.start, spending)

    def losses(codes: Integers) -> Floats:
        # An objective of the user's may return anything.
        return checked_losses(threads.call(checked, groups.values(codes)), len(codes))

    threads = BlasThreads()
    evaluator = Evaluator(losses, spending, incumbent)

    def repaired(codes: Integers) -> Integers:
        try:
            return linear.repaired(codes, random)
        except ValueError:
            return incumbent.codes.copy()

    name = fingerprint(
        whole.lists, groups.members, whole.fixed, whole.start[whole.fixed], linear.targets,
        linear.terms,
    )  # fmt: skip
    checkpoint = Checkpoint(settings.file, name, {"members": (None, len(problem))})
    starts = _starts(
        evaluator, groups, problem, _members(problem, linear, checkpoint), repaired, random
    )
    problem = problem.starting_at(starts[-1])
    negatives = None if structure is None else structure.symmetry(problem)
    population = Population(problem, negatives, random, repaired)
    population.begin_with(starts)
    # 0 minus a number, for 0.0 has no other sign.
    state = (lambda: f"value {0.0 - incumbent.loss:.9g}") if settings.maximizes else None
    progress = Progress(spending, incumbent, settings.verbose, state=state)
    return Task(
        checked, structure, groups, problem, linear, population, evaluator, threads, progress,
        checkpoint, settings.seed, values=whole.lists_as_given(), maximizes=settings.maximizes,
    )  # fmt: skip


def _checked_constraints(constraints: Constraints | None) -> Constraints:
    if not isinstance(constraints, Constraints | None):
        raise TypeError(
            f"constraints is {constraints!r}. Expected quantal.Constraints(total=..., counts=..., "
            "groups=..., fixed=...), or None."
        )
    return constraints or Constraints()


def _checked_objective(
    objective: Callable[[Any], Any] | Objective, whole: Problem, jobs: int | None, maximizes: bool
) -> Objective:
    if not isinstance(objective, Objective):
        return UserLoss(objective, len(whole), jobs, maximizes)
    if len(objective) != len(whole):
        raise ValueError(
            f"The objective is of {len(objective)} elements, and there are lists for "
            f"{len(whole)}. Expected as many."
        )
    if isinstance(objective, Quadratic) and np.iscomplexobj(whole.lists):
        raise ValueError(
            "The lists are complex, and the objective is a Quadratic. Expected real numbers for "
            "it. Give a function of the vectors."
        )
    return negative_of(objective) if maximizes else objective


def _starts(
    evaluator: Evaluator,
    groups: Groups,
    problem: Problem,
    members: list[Integers],
    repaired: Callable[[Integers], Integers],
    random: np.random.Generator,
) -> list[Integers]:
    """Return the members of a checkpoint and the first assignment, evaluated."""
    start = problem.start
    loss = evaluator.loss(start)
    evaluator.incumbent.offer(start, loss)
    if math.isnan(loss):
        start = _first_number(evaluator, groups, problem, repaired, random)
    for codes in members:
        evaluator.consider(codes)
    return [*members, start]


def _members(
    problem: Problem, constraints: LinearConstraints, checkpoint: Checkpoint
) -> list[Integers]:
    """Return the assignments of a checkpoint that satisfy the constraints.

    Raises:
        ValueError: The file is damaged, of another problem, or has codes that are not in the
            lists or change fixed elements.
    """
    if not checkpoint.exists():
        return []
    rows = checkpoint.read()["members"]
    is_code = (rows >= 0) & (rows < problem.lengths)
    if not (is_code & (~problem.fixed | (rows == problem.start))).all():
        raise ValueError(
            f"{checkpoint} has codes that are not in the lists, or change fixed elements. Expected "
            "what search wrote. Delete it to begin anew."
        )
    return list(rows[constraints.satisfied(rows)])


def _first_number(
    evaluator: Evaluator,
    groups: Groups,
    problem: Problem,
    repaired: Callable[[Integers], Integers],
    random: np.random.Generator,
) -> Integers:
    """Draw assignments until one has a loss that is a number, and return it."""
    for _ in range(_DRAWN):
        codes = repaired(problem.draw(random))
        loss = evaluator.loss(codes)
        if not math.isnan(loss):
            evaluator.incumbent.offer(codes, loss)
            return codes
    raise ValueError(
        f"The loss of the first vector is NaN, and so are those of {_DRAWN} that were drawn. "
        "Expected a number. Look at the loss with "
        f"{groups.values(problem.start)[:9].tolist()}..., or give a start."
    )
