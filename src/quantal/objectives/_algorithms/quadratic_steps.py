"""Compiled tabu search lowers a quadratic loss by exact deltas.

Each step takes the best change of one element that is not tabu, better or not; the element is
then tabu for some steps, unless its change gives the best loss so far.

Source: Glover, "Tabu Search", ORSA Journal on Computing 1989.
"""

from typing import Any, NamedTuple

import numpy as np
from scipy.sparse import csr_array

from quantal.objectives._algorithms.compiled_loop import (
    BEST_LOSS,
    LOSS,
    STEP,
    STEP_OF_BEST,
    CompiledLoop,
    LoopState,
)
from quantal.objectives._algorithms.compiling import compiled
from quantal.objectives._algorithms.quadratic_form import QuadraticForm
from quantal.objectives.problem import Floats, Integers, Problem

_PATIENCE = 2
"""The steps without a better loss until it stalls, in multiples of the elements."""
_LEAST_TENURE, _ELEMENTS_A_TENURE = 3, 25
"""The tabu tenure is 3 steps and one for every 25 elements."""
_RANDOM_TENURE = 10
"""Up to so many random steps are added to a tenure, so that the loop does not cycle."""
_OVERHEAD = 10
"""The operations of a step besides those on lists and on the matrix."""


class QuadraticArrays(NamedTuple):
    """Quadratic arrays hold a quadratic problem as compiled code takes it.

    Attributes:
        starts: The position in `columns` and `entries` where each row begins, (n + 1,).
        columns: The column of each entry.
        entries: Twice the symmetric matrix without its diagonal.
        diagonal: The matrix's diagonal, (n,).
        lists: The values, (n, K).
        lengths: The number of values of each element, (n,).
        fixed: Whether each element keeps its code, (n,).
    """

    starts: Integers
    columns: Integers
    entries: Floats
    diagonal: Floats
    lists: Floats
    lengths: Integers
    fixed: Any

    @classmethod
    def of(cls, form: QuadraticForm, problem: Problem) -> "QuadraticArrays":
        """Return the arrays of a quadratic form on lists."""
        n, diagonal = len(problem), form.diagonal
        on_diagonal = csr_array((diagonal, (range(n), range(n))), shape=(n, n))
        # The diagonal belongs to an element's delta and not to those of its neighbours.
        doubled = csr_array(2 * (csr_array(form.matrix) - on_diagonal))
        doubled.eliminate_zeros()
        return cls(
            doubled.indptr.astype(np.int64), doubled.indices.astype(np.int64), doubled.data,
            diagonal, problem.lists, problem.lengths, problem.fixed,
        )  # fmt: skip


def quadratic_loop(form: QuadraticForm, problem: Problem) -> CompiledLoop:
    """Return the compiled tabu search for a quadratic form on the lists of a problem."""
    n = len(problem)
    arrays = QuadraticArrays.of(form, problem)
    patience, rounding = _PATIENCE * n, form.rounding(problem)
    tenure = n // _ELEMENTS_A_TENURE + _LEAST_TENURE

    def advance(count: int, seed: int, state: LoopState) -> None:
        # Loss and gradient are computed anew, so that rounding errors do not add up.
        values = problem.values(state.codes)
        state.progress[LOSS] = form.loss(values)
        _advance(count, patience, tenure, rounding, seed, arrays, form.gradient(values), state)

    operations = float((problem.lengths - 1).sum()) + len(arrays.entries) / n + _OVERHEAD
    return CompiledLoop(form.loss, advance, operations, patience)


@compiled()
def _advance(
    count: int, patience: int, tenure: int, rounding: float, seed: int,
    arrays: QuadraticArrays, gradient: Any, state: LoopState,
) -> None:  # fmt: skip
    """Make some steps, or until the search stalls; `gradient` and `state` change in place.

    Args:
        count: The number of steps.
        patience: The steps without a better loss after which it ends.
        tenure: The least number of steps for which a changed element is tabu.
        rounding: Improvements smaller than this are rounding noise.
        seed: The seed of the random numbers.
        arrays: The problem.
        gradient: The loss's gradient at the current values, (n,).
        state: Where the search stands.
    """
    np.random.seed(seed)
    codes, tabu_until, best_codes, progress = state
    for _ in range(count):
        i, code = _best_change(arrays, gradient, state, rounding)
        step = progress[STEP]
        progress[STEP] += 1
        if i < 0:  # All changes are tabu.
            continue
        progress[LOSS] += _change(i, code, arrays, gradient, codes)
        tabu_until[i] = step + tenure + np.random.randint(_RANDOM_TENURE)
        if progress[LOSS] < progress[BEST_LOSS] - rounding:
            progress[BEST_LOSS], progress[STEP_OF_BEST] = progress[LOSS], progress[STEP]
            best_codes[:] = codes
        elif progress[STEP] - progress[STEP_OF_BEST] >= patience:
            return


@compiled()
def _best_change(arrays: QuadraticArrays, gradient: Any, state: LoopState, rounding: float) -> Any:
    """Return the element and the code of the best change that is allowed; -1 if none is.

    Ties are broken at random. A tabu change is allowed if it gives the best loss so far.
    """
    lists, lengths, fixed, diagonal = arrays.lists, arrays.lengths, arrays.fixed, arrays.diagonal
    codes, tabu_until, _, progress = state
    loss, best_loss, step = progress[LOSS], progress[BEST_LOSS], progress[STEP]
    best_i, best_code, best_delta, ties = -1, -1, np.inf, 0
    for i in range(len(codes)):
        if fixed[i]:
            continue
        value = lists[i, codes[i]]
        for code in range(lengths[i]):
            if code == codes[i]:
                continue
            change = lists[i, code] - value
            delta = change * (gradient[i] + change * diagonal[i])
            if delta > best_delta:
                continue
            if tabu_until[i] > step and loss + delta >= best_loss - rounding:
                continue
            if delta < best_delta:
                best_i, best_code, best_delta, ties = i, code, delta, 1
            else:
                ties += 1
                if np.random.randint(ties) == 0:
                    best_i, best_code = i, code
    return best_i, best_code


@compiled()
def _change(i: int, code: int, arrays: QuadraticArrays, gradient: Any, codes: Any) -> float:
    """Give an element another code, update the gradient, and return the loss's change."""
    starts, columns, entries = arrays.starts, arrays.columns, arrays.entries
    diagonal, lists = arrays.diagonal, arrays.lists
    change = lists[i, code] - lists[i, codes[i]]
    delta = change * (gradient[i] + change * diagonal[i])
    codes[i] = code
    gradient[i] += 2.0 * change * diagonal[i]
    for entry in range(starts[i], starts[i + 1]):
        gradient[columns[entry]] += change * entries[entry]
    return delta
