"""Sphere decoding finds the closest vector, for convex quadratic losses.

With `M = R.T @ R` the loss is a sum of squares, of which the last has one element, the one
before two, and so on. A breadth-first search keeps the best partial vectors at each level; a
depth-first search takes the nearest value first and turns back where the sum is too large
already, until nothing is left: then the best is proved.

Source: Schnorr and Euchner, "Lattice basis reduction", Mathematical Programming 1994;
Wübben et al., "Efficient algorithm for decoding layered space-time codes", Electronics
Letters 2001, for the order of the elements; Guo and Nilsson, "K-best sphere decoding",
IEEE JSAC 2006.
"""

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from quantal.objectives._algorithms.compiling import compiled
from quantal.objectives._algorithms.quadratic_form import QuadraticForm
from quantal.objectives._algorithms.solution import Solution
from quantal.objectives.problem import Floats, Integers, Problem

WIDTHS = (16, 256, 4096)
"""The partial vectors that the breadth-first searches keep, one search after the other."""
_LARGEST_DECODED = 300
"""The most elements: the triangular form takes the cube of their number."""
_FLAT = 1e-6
"""Relative to the largest, a diagonal entry or eigenvalue below it counts as zero."""
_NODES = 300_000
"""The nodes that the depth-first search visits between two looks at the clock."""
_ROUNDING = 1e-12
"""A sum of squares has to be better by this part: less is rounding noise."""
_SMALLEST, _LEVEL, _STATUS = range(3)
"""The positions in `DepthFirstSearch.progress`."""
_GOES_UP, _GOES_DOWN, _ENDED = 0.0, -1.0, 1.0
"""The values of the status: where the search goes next, or that it is complete."""


class Triangle(NamedTuple):
    """A triangle gives a quadratic loss as the sum of squares `|triangle @ values - goal|**2`.

    Attributes:
        triangle: An upper triangular matrix (n, n).
        goal: Real numbers (n,).
        order: The element that stands at each position, (n,).
        lists: The values of each position, (n, K).
        lengths: The number of values of each position; 1 for fixed elements, (n,).
    """

    triangle: Floats
    goal: Floats
    order: Integers
    lists: Floats
    lengths: Integers

    @classmethod
    def of(cls, form: QuadraticForm, problem: Problem) -> "Triangle | None":
        """Return the triangular form; None where the loss cannot be made convex."""
        form = convex_form(form, problem)
        try:
            root = np.linalg.cholesky(form.matrix).T
        except np.linalg.LinAlgError:
            return None
        if np.diag(root).min() < _FLAT * np.diag(root).max():
            return None
        order = _order_of_columns(root)
        rotation, triangle = np.linalg.qr(root[:, order])
        # |root @ v - goal|**2 is the loss up to a constant.
        goal = rotation.T @ np.linalg.solve(root.T, -form.vector / 2)
        fixed_values = problem.values(problem.start)[:, None]
        lists = np.where(problem.fixed[:, None], fixed_values, problem.lists)[order]
        lengths = np.where(problem.fixed, 1, problem.lengths)[order]
        return cls(triangle, goal, order, lists, lengths)

    def squares(self, values: Floats) -> float:
        """Return the sum of squares of the values of all positions, (n,)."""
        return float(np.square(self.triangle @ values - self.goal).sum())


def closest_vector(
    form: QuadraticForm,
    problem: Problem,
    seconds: float,
    start: Integers,
    on_improvement: Callable[[Integers], None],
) -> Solution | None:
    """Return the best assignment, or a good one; None where the loss cannot be made convex.

    It takes exponential time where values are close together for the loss; it ends then
    without a proof.

    Args:
        form: The quadratic loss.
        problem: The lists, and which elements are fixed.
        seconds: When it has to end.
        start: A good assignment, (n,).
        on_improvement: Is called with better assignments.
    """
    end = time.perf_counter() + seconds
    if len(problem) > _LARGEST_DECODED:
        return None
    decoded = Triangle.of(form, problem)
    if decoded is None:
        return None
    smallest = decoded.squares(problem.values(start)[decoded.order])
    best_codes = start.copy()

    def keep(ordered_codes: Integers) -> None:
        order = decoded.order
        best_codes[order] = np.where(problem.fixed[order], start[order], ordered_codes)
        on_improvement(best_codes)

    for width in WIDTHS:
        if time.perf_counter() > end:
            break
        codes, squares = _breadth_first(decoded, width)
        if squares < smallest:
            smallest = squares
            keep(codes)
    search = DepthFirstSearch(decoded, smallest)
    while not search.ended and time.perf_counter() < end:
        search.visit(_NODES)
        if search.smallest < smallest:
            smallest = search.smallest
            keep(search.codes)
    loss = form.loss(problem.values(best_codes))
    if not search.ended:
        return Solution(best_codes, loss)
    return Solution(best_codes, loss, loss, True)


def convex_form(form: QuadraticForm, problem: Problem) -> QuadraticForm:
    """Return an equivalent form with a positive definite matrix, if one exists.

    On two values `a` and `b`, `v**2` is `(a + b) v - a b`, so that any multiple of it may be
    added. Where an element has more values, the form is returned as it is, in a dense matrix.
    """
    matrix = form.dense_matrix
    eigenvalues = np.linalg.eigvalsh(matrix)
    flat = 4 * _FLAT * max(abs(eigenvalues[0]), eigenvalues[-1]) or 1.0
    if eigenvalues[0] > flat or (problem.lengths[problem.free] > 2).any():
        return QuadraticForm(matrix, form.vector, form.constant)
    added = np.full(len(matrix), flat - eigenvalues[0])
    first = problem.lists[:, 0]
    second = problem.lists[np.arange(len(matrix)), problem.lengths - 1]
    fixed_values = problem.values(problem.start)
    first, second = (np.where(problem.fixed, fixed_values, ends) for ends in (first, second))
    return QuadraticForm(
        matrix + np.diag(added),
        form.vector - added * (first + second),
        form.constant + float(added @ (first * second)),
    )


def _order_of_columns(root: Floats) -> Integers:
    """Return an order of the columns in which small diagonal entries of R come first."""
    remaining, order = root.copy(), np.arange(len(root))
    squares = np.square(remaining).sum(axis=0)
    for i in range(len(root)):
        smallest = i + int(squares[i:].argmin())
        for array in (remaining.T, order, squares):
            array[[i, smallest]] = array[[smallest, i]]
        unit = remaining[:, i] / np.linalg.norm(remaining[:, i])
        later = remaining[:, i + 1 :]
        later -= np.outer(unit, unit @ later)
        squares[i + 1 :] = np.square(later).sum(axis=0)
    return order


def _breadth_first(decoded: Triangle, width: int) -> tuple[Integers, float]:
    """Return the best codes of a search that keeps the best partial vectors at each level."""
    triangle, goal, _, lists, lengths = decoded
    n = len(goal)
    sums, values = np.zeros(1), np.zeros((1, n))
    codes = np.zeros((1, n), np.int64)
    for level in range(n - 1, -1, -1):
        residual = goal[level] - values[:, level + 1 :] @ triangle[level, level + 1 :]
        choices = lists[level, : lengths[level]]
        squares = np.square(residual[:, None] - triangle[level, level] * choices)
        flat = (sums[:, None] + squares).reshape(-1)
        kept = np.argpartition(flat, width)[:width] if len(flat) > width else np.arange(len(flat))
        parents, children = np.divmod(kept, len(choices))
        sums, values, codes = flat[kept], values[parents], codes[parents]
        values[:, level], codes[:, level] = choices[children], children
    best = int(sums.argmin())
    return codes[best], decoded.squares(values[best])


class _Stack(NamedTuple):
    """A stack holds the partial vector of the depth-first search, and what is known of each level.

    Attributes:
        sums: The squares of all levels from this one on, (n + 1,).
        values: The values of the partial vector, (n,).
        nearest: The codes of each level, the nearest value first, (n, K).
        ranks: The position among these of the level's code, (n,).
    """

    sums: Floats
    values: Floats
    nearest: Integers
    ranks: Integers


class DepthFirstSearch:
    """A depth-first search visits partial vectors, and can be interrupted and resumed.

    Args:
        decoded: The loss as a sum of squares.
        smallest: The sum of squares that has to be improved on.

    Attributes:
        codes: The best codes, (n,), once `smallest` has become less.
    """

    def __init__(self, decoded: Triangle, smallest: float) -> None:
        n, longest = decoded.lists.shape
        self._decoded = decoded
        self.codes = np.zeros(n, np.int64)
        self._progress = np.array([smallest, n - 1, _GOES_DOWN])
        self._stack = _Stack(
            np.zeros(n + 1), np.zeros(n), np.zeros((n, longest), np.int64), np.zeros(n, np.int64)
        )

    @property
    def smallest(self) -> float:
        """Return the smallest sum of squares so far."""
        return float(self._progress[_SMALLEST])

    @property
    def ended(self) -> bool:
        """Return whether nothing is left to visit."""
        return bool(self._progress[_STATUS] == _ENDED)

    def visit(self, nodes: int) -> None:
        """Visit some more partial vectors."""
        _visit(nodes, self._decoded, self._stack, self.codes, self._progress)


@compiled()
def _visit(
    nodes: int, decoded: Triangle, stack: _Stack, codes: Any, progress: NDArray[Any]
) -> None:
    """Continue the depth-first search; stack, codes and progress change in place."""
    triangle, goal, _, lists, lengths = decoded
    sums, values, nearest, ranks = stack
    n = len(goal)
    level, goes_down = int(progress[_LEVEL]), progress[_STATUS] == _GOES_DOWN
    for _ in range(nodes):
        if not goes_down:
            level += 1
            if level == n:
                progress[_LEVEL], progress[_STATUS] = n - 1, _ENDED
                return
        residual = goal[level]
        for other in range(level + 1, n):
            residual -= triangle[level, other] * values[other]
        if goes_down:
            _sort_by_distance(residual, triangle[level, level], lists[level, : lengths[level]],
                              nearest[level])  # fmt: skip
            ranks[level] = 0
        else:
            ranks[level] += 1
        goes_down = False
        if ranks[level] >= lengths[level]:
            continue
        code = nearest[level, ranks[level]]
        difference = residual - triangle[level, level] * lists[level, code]
        total = sums[level + 1] + difference * difference
        if total >= progress[_SMALLEST] * (1 - _ROUNDING):
            continue  # The other values of this level are further away.
        values[level] = lists[level, code]
        if level > 0:
            sums[level] = total
            level -= 1
            goes_down = True
            continue
        progress[_SMALLEST] = total
        for i in range(n):
            codes[i] = nearest[i, ranks[i]]
    progress[_LEVEL], progress[_STATUS] = level, _GOES_DOWN if goes_down else _GOES_UP


@compiled()
def _sort_by_distance(residual: float, factor: float, choices: Any, nearest: Any) -> None:
    """Set the codes of a level in the order of their values' distance, by insertion."""
    for code in range(len(choices)):
        distance = abs(residual - factor * choices[code])
        rank = code
        while rank > 0:
            before = nearest[rank - 1]
            if abs(residual - factor * choices[before]) <= distance:
                break
            nearest[rank] = before
            rank -= 1
        nearest[rank] = code
