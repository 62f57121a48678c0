"""`quantal.search` looks for the best vector for an objective, over the codes of lists."""

import contextlib
import math
import os
from collections.abc import Callable
from typing import Any

from numpy.typing import ArrayLike

from quantal._core.numbers.checks import checked_seed
from quantal._optimize.autosave import Autosave
from quantal._optimize.budget import Budget
from quantal._optimize.constraints import Constraints
from quantal._optimize.interruption import termination_as_interrupt
from quantal._optimize.methods.method import run_in_turn
from quantal._optimize.search.choice import choose_methods
from quantal._optimize.search.result import SearchResult, conclude
from quantal._optimize.search.task import Settings, Task, parse
from quantal.objectives._algorithms.solution import Solution
from quantal.objectives.objective import Objective


def search(
    objective: Callable[[Any], Any] | Objective,
    values: Any,
    n: int | None = None,
    budget: float | Budget = 10.0,
    seed: int = 0,
    *,
    start: ArrayLike | None = None,
    constraints: Constraints | None = None,
    file: str | os.PathLike[str] | None = None,
    jobs: int | None = None,
    verbose: int = 1,
    maximize: bool = False,
) -> SearchResult:
    """Search for the best vector of an objective, each element from its list.

    Use it where there is no model and no training set: ±1 codes, masks, taps of a filter,
    parts from a series. It does not need a gradient, and uses one where there is one. Objectives
    with a structure are evaluated by exact deltas, most in compiled loops: `Quadratic`,
    `Autocorrelation`, `Sums`, `Minimax`; the largest `Magnitude` is computed exactly, and small
    `Quadratic` and `Minimax` problems are proved. Any other objective is called on batches of
    vectors; where it turns out to be quadratic (up to 512 elements) or the magnitude of a sum,
    its square, reciprocal or logarithm, it is treated as such; so is a largest absolute value of
    sums, or a sum of them, for which it is called between the values of the lists, too.
    Small search spaces are enumerated.

    How: descents along the gradient where there is one, then tabu search from crossovers of
    good vectors. Ctrl-C ends it with the best so far, and so does SIGTERM, unless the program
    handles that signal itself.

    Args:
        objective: One of `quantal.objectives`; or a function of vectors (batch, n) to losses
            (batch,): in NumPy, given float64 or complex128, or in `keras.ops`, given float32
            or complex64 (the first call is in this one, too). NaN is worse than any number.
        values: The list: numbers (complex ones, too, such as phases), a preset's name or
            `Values`; or a sequence of lists, one for each element, or an array (n, K).
        n: The length of the vector; with a list for each element it may be left out.
        budget: Seconds; or a `quantal.Budget` of seconds, evaluations or both. Evaluations are
            losses and differences of losses; the search ends within a step of that number.
            Without seconds, exact methods that take long are not used.
        seed: The seed of the random numbers. The same seed draws the same numbers; how far a
            search comes in some seconds depends on the machine, in some evaluations it does
            not.
        start: The first assignment, codes (n,); None draws it. The loss never rises above its
            loss.
        constraints: A `quantal.Constraints`: a total, counts of values, groups that move
            together, fixed elements.
        file: The path of a checkpoint: the search writes good vectors to it, at once, at least
            every 30 seconds and when it ends; if the file exists, the search goes on from them.
            The place is tried before the first evaluation; what cannot be written later is
            a warning.
        jobs: The processes that share each batch of a function, by joblib; -1 for one a
            core. For functions that take milliseconds a vector. None for one process, or for those
            of `with joblib.parallel_config(backend="dask"):` or another backend around the call.
        verbose: 1 shows a line of progress, 0 nothing.
        maximize: Whether to look for the largest number instead of the smallest. All numbers of the
            result are the objective's own, and its bound lies above them.

    Returns:
        A `SearchResult`: the vector, its codes and loss, and what is proved of it.

    Raises:
        ImportError: numba or scipy is not installed, for objectives with compiled loops.
        TypeError: The objective is not callable, or the constraints are something else.
        ValueError: An argument has a wrong shape, no vector satisfies the constraints, the
            file is damaged, of another search or in a place that cannot be written, or no
            loss of the first vectors is a number.

    >>> import numpy as np
    >>> target = np.array([1, -1, 0.5])
    >>> result = search(lambda v: ((v - target) ** 2).sum(1), [1, -1, 0.5], n=3, verbose=0)
    >>> result.vector, result.proved
    (array([ 1. , -1. ,  0.5]), True)
    """
    settings = Settings(Budget.of(budget), checked_seed(seed), file, jobs, verbose, bool(maximize))
    return run(parse(objective, values, n, start, constraints, settings))


def run(task: Task) -> SearchResult:
    """Run the methods that a task needs, and conclude; Ctrl-C and SIGTERM end the methods."""
    incumbent, last = task.incumbent, Solution(None)
    # A budget of evaluations alone gives the same result on each machine: nothing is measured.
    measures = math.isfinite(task.spending.seconds_left)
    with termination_as_interrupt(), task.threads if measures else contextlib.nullcontext():
        with Autosave(task.checkpoint, task.snapshot) as autosave:
            task.spending.watch(autosave.warn)
            with contextlib.suppress(KeyboardInterrupt):
                for solution in run_in_turn(
                    choose_methods(task), incumbent, task.spending, incumbent.offer
                ):
                    last = solution
            task.progress.end()
        return conclude(task, last)
