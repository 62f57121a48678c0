"""The best vector for a loss: search over the codes of lists."""

import dataclasses
import math
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from quantal.searching.bounds import lower_bound
from quantal.searching.losses import Quadratic as Quadratic
from quantal.searching.population import Population
from quantal.searching.problem import Floats, Integers, Problem

ENUMERATED = 2**17
"""So few vectors are all looked at."""
_BATCH = 4096
_ROUNDING = 1e-9
_FEWEST = 32
_PATIENCE = 2  # Steps without a better loss, in elements.


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

    def __str__(self) -> str:
        told = "no bound" if self.bound is None else f"bound {self.bound:.9g}"
        told = "proved" if self.proved else told
        last = self.history[-1][0] if self.history else 0.0
        return (
            f"loss {self.loss:.9g} ({told}), found after {last:.2f} s, "
            f"{self.evaluations:,} evaluations"
        )


def search(
    loss: Callable[[Any], Any] | Quadratic,
    values: Any,
    n: int | None = None,
    budget: float = 10.0,
    seed: int = 0,
    *,
    start: ArrayLike | None = None,
    fixed: ArrayLike | None = None,
    verbose: int = 1,
) -> SearchResult:
    """The best vector for a loss, each element from its list.

    Use it where there is no model and no training set: ±1 codes, masks, taps of a filter,
    parts from a series. It does not need a gradient. A `quantal.Quadratic` is followed by
    exact differences in compiled loops (a change costs as much as a row of its matrix has
    entries); any other loss is called on batches of vectors that differ in one element.
    Tabu search from vectors that have what two good ones agree in; where there are few
    vectors, all of them.

    The loss never rises above that of `start`. The same seed draws the same numbers; how
    far it comes depends on the time.

    Args:
        loss: A `Quadratic`; or a function of vectors (batch, n) to losses (batch,), in
            NumPy or `keras.ops`, which is given float32, or complex64.
        values: The list: numbers (complex ones, too, such as phases), a preset's name or
            `Values`; or a sequence of lists, one for each element.
        n: The length of the vector; with a list for each element it may be left out.
        budget: Seconds.
        seed: Of the random numbers.
        start: Codes to start from, (n,); None draws them.
        fixed: Booleans (n,): elements that keep their code of `start`.
        verbose: 1 shows a line of progress, 0 nothing.

    Returns:
        A `SearchResult`.

    Raises:
        ImportError: numba or scipy is not installed, for a `Quadratic`.
        ValueError: An argument has another shape, or the loss is not a number anywhere.

    >>> import numpy as np
    >>> target = np.array([1, -1, 0.5])
    >>> found = search(lambda v: ((v - target) ** 2).sum(1), [1, -1, 0.5], n=3, verbose=0)
    >>> found.values, found.proved
    (array([ 1. , -1. ,  0.5]), True)
    """
    if n is None and isinstance(loss, Quadratic):
        n = len(loss)
    problem = Problem(values, n, start, fixed, seed)
    if isinstance(loss, Quadratic) and len(loss) != len(problem):
        raise ValueError(
            f"The loss is of {len(loss)} elements, there are lists for {len(problem)}. Expected "
            "as many. Give n as the matrix has it."
        )
    if isinstance(loss, Quadratic) and np.iscomplexobj(problem.lists):
        raise ValueError(
            "The lists are complex, and the loss is a Quadratic. Expected real numbers for it. "
            "Give a function of the vectors."
        )
    if not budget > 0:
        raise ValueError(f"budget is {budget}. Expected seconds, above 0. Give, say, 10.")
    record = _Record(problem, loss, budget, verbose)
    if problem.choices <= ENUMERATED:
        _enumerate(record)
    elif isinstance(loss, Quadratic):
        _follow(record, loss, seed)
    else:
        _walk(record, seed)
    return record.result()


class _Record:
    """The best so far, the clock, and the losses of vectors."""

    def __init__(self, problem: Problem, loss: Any, budget: float, verbose: int) -> None:
        self.problem, self._loss, self._budget = problem, loss, budget
        self.begin()
        self._compiles = False
        self.evaluations = 0
        self.history: list[tuple[float, float]] = []
        self.best_codes = problem.start.copy()
        self.best = math.inf
        self.complete = False
        self._progress = _progress(budget) if verbose else None
        (first,) = self.losses(problem.start[None])
        if math.isnan(first):
            raise ValueError(
                "The loss of the first vector is NaN. Expected a number. Look at the loss with "
                f"{problem.values(problem.start)[:9].tolist()}..."
            )
        self.better(problem.start, float(first))

    def begin(self) -> None:
        """Start the clock."""
        self._began = time.perf_counter()

    @property
    def seconds(self) -> float:
        """Since the beginning."""
        return time.perf_counter() - self._began

    @property
    def goes_on(self) -> bool:
        """Whether there is time left; shows how much."""
        if self._progress is not None:
            self._progress.update(min(self.seconds, self._budget), values=[("loss", self.best)])
        return self.seconds < self._budget

    def losses(self, codes: Integers) -> Floats:
        """The losses of vectors (batch, n)."""
        self.evaluations += len(codes)
        rows = self.problem.values(codes)
        if isinstance(self._loss, Quadratic):
            return self._loss(rows)
        kind = np.complex64 if np.iscomplexobj(rows) else np.float32
        if self._compiles:  # For each shape: to the next power of two.
            rows = np.pad(
                rows, ((0, (1 << (len(rows) - 1).bit_length()) - len(rows)), (0, 0)), "edge"
            )
        made = self._loss(rows.astype(kind))
        self._compiles = not isinstance(made, np.ndarray)
        found = np.asarray(_to_numpy(made), np.float64)
        found = found[: len(codes)] if found.shape == (len(rows),) else found
        if found.shape != (len(codes),):
            raise ValueError(
                f"The loss gave the shape {found.shape} for {len(codes)} vectors. Expected "
                f"({len(codes)},), a loss for each. Sum over the last axis alone."
            )
        return found

    def better(self, codes: Integers, loss: float) -> None:
        """Keep a vector if it is the best so far."""
        if loss < self.best:
            self.best, self.best_codes = loss, codes.copy()
            self.history.append((self.seconds, loss))

    def result(self) -> SearchResult:
        """What was found."""
        if self._progress is not None:
            self._progress.update(self._budget, values=[("loss", self.best)], finalize=True)
        loss, bound = self.best, self.best if self.complete else None
        if isinstance(self._loss, Quadratic) and not self.complete:
            bound = lower_bound(self._loss, self.problem)
        met = bound is not None and loss - bound <= _ROUNDING * max(1.0, abs(loss))
        return SearchResult(
            self.problem.values(self.best_codes), self.best_codes, loss, bound,
            met, self.history, self.evaluations,
        )  # fmt: skip


def _enumerate(record: _Record) -> None:
    """Look at every vector."""
    problem = record.problem
    free = np.flatnonzero(~problem.fixed)
    sizes = problem.lengths[free]
    for begin in range(0, problem.choices, _BATCH):
        places = np.arange(begin, min(begin + _BATCH, problem.choices))
        codes = np.tile(problem.start, (len(places), 1))
        codes[:, free] = np.stack(np.unravel_index(places, sizes), axis=1) if len(free) else 0
        losses = record.losses(codes)
        best = int(np.nanargmin(losses))
        record.better(codes[best], float(losses[best]))
        if not record.goes_on and begin + _BATCH < problem.choices:
            return
    record.complete = True


def _follow(record: _Record, loss: Quadratic, seed: int) -> None:
    """Tabu search by exact differences, in compiled loops of some tenths of a second."""
    try:
        from scipy.sparse import csr_array

        from quantal.searching.tabu import steps
    except ImportError as error:
        raise ImportError(
            f"{error.name} is not installed. Expected it to search a Quadratic. Run "
            "pip install 'quantal[search]'."
        ) from error
    problem = record.problem
    n, diagonal = len(problem), loss.diagonal
    matrix = csr_array(loss.matrix)
    # Without the diagonal: it belongs to the element's own change.
    matrix = csr_array(2 * (matrix - csr_array((diagonal, (range(n), range(n))), shape=(n, n))))
    matrix.eliminate_zeros()
    parts = matrix.indptr.astype(np.int64), matrix.indices.astype(np.int64), matrix.data
    random = np.random.default_rng(seed)
    free_at, count = np.zeros(n), 1000

    def go(count: int, codes: Integers, best_codes: Integers, numbers: Floats) -> None:
        # The gradient anew, so that roundings do not add up.
        values = problem.values(codes)
        (numbers[0],) = loss(values[None])
        steps(
            count, _PATIENCE * n, n // 25 + 3, int(random.integers(2**31)), *parts, diagonal,
            problem.lists, problem.lengths, problem.fixed, codes, loss.gradient(values), free_at,
            best_codes, numbers,
        )  # fmt: skip

    # Compiled now, or read from where numba keeps it: no part of the search.
    go(0, problem.start.copy(), problem.start.copy(), np.zeros(4))
    record.begin()

    def improved(codes: Integers) -> tuple[float, Integers]:
        """The best that tabu search finds from here, until it stalls."""
        nonlocal count
        best_codes = codes.copy()
        (exact,) = loss(problem.values(codes)[None])
        numbers = np.array([exact, exact, 0.0, 0.0])
        free_at[:] = 0
        while record.goes_on and numbers[2] - numbers[3] < _PATIENCE * n:
            began, before = time.perf_counter(), numbers[2]
            go(count, codes, best_codes, numbers)
            took, gone = time.perf_counter() - began, numbers[2] - before
            record.evaluations += int(gone * (problem.lengths - 1).sum())
            # Some tenths of a second between two looks at the clock.
            count = int(np.clip(gone * 0.1 / max(took, 1e-6), 100, 1e7))
            (exact,) = loss(problem.values(best_codes)[None])
            record.better(best_codes, float(exact))
        return float(exact), best_codes

    population = Population(problem, loss.mirrors(problem), random)
    while record.goes_on:
        population.take(*improved(population.child()))


def _walk(record: _Record, seed: int) -> None:
    """Tabu search by calls of the loss on vectors that differ in one element."""
    problem, random = record.problem, np.random.default_rng(seed)
    n = len(problem)
    places, others = _changes(problem)
    population = Population(problem, None, random)
    codes, free_at = population.child(), np.zeros(n)
    # The best since the last start, and when it was found.
    top, top_codes, step, last = record.best, codes, 0, 0
    loss, width, most = record.best, _FEWEST, min(len(places), _BATCH)
    while record.goes_on:
        # Few changes are looked at while they are enough to come down, all at the bottom.
        tried = random.permutation(len(places))[:width]
        rows = np.tile(codes, (len(tried), 1))
        at = places[tried]
        # A code counts from the element's own, so that none stays as it is.
        rows[np.arange(len(tried)), at] = (codes[at] + others[tried]) % problem.lengths[at]
        losses = record.losses(rows)
        losses = np.where(np.isnan(losses), np.inf, losses)
        losses = np.where((free_at[at] > step) & (losses >= top), np.inf, losses)
        best = int(np.argmin(losses))
        if losses[best] >= loss and width < most:
            width = min(4 * width, most)
            continue
        if losses[best] < loss:
            width = max(_FEWEST, width // 2)
        step += 1
        if losses[best] < np.inf:
            codes, loss = rows[best], float(losses[best])
            free_at[at[best]] = step + min(20, n // 4) + 1 + random.integers(10)
        if loss < top:
            record.better(codes, loss)
            top, top_codes, last = loss, codes, step
        elif step - last > 20 + n // 4:
            population.take(top, top_codes)
            codes = population.child()
            (loss,) = record.losses(codes[None])
            record.better(codes, float(loss))
            top, top_codes, last, width = float(loss), codes, step, _FEWEST
            free_at[:] = 0


def _changes(problem: Problem) -> tuple[Integers, Integers]:
    """Every change of one element: its place, and by how much its code moves on."""
    free = np.flatnonzero(~problem.fixed)
    places = np.repeat(free, problem.lengths[free] - 1)
    others = np.concatenate([np.arange(1, k) for k in problem.lengths[free]] or [np.zeros(0, int)])
    return places, others


def _to_numpy(losses: Any) -> NDArray[Any]:
    if isinstance(losses, np.ndarray):
        return losses
    import keras

    return keras.ops.convert_to_numpy(losses)  # type: ignore[no-any-return]


def _progress(budget: float) -> Any:
    import keras

    return keras.utils.Progbar(budget, stateful_metrics=["loss"], unit_name="second", interval=0.5)
