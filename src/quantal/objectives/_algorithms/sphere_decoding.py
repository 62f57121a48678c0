"""The closest vector: convex quadratic losses, element by element from a triangular form.

With `M = R.T @ R` the loss is a sum of squares, of which the last has one element, the one
before two, and so on. A broad search keeps the best partial vectors at each level; a deep
one goes on with the nearest value first and turns back where the sum is too large already,
until nothing is left: then the best is proved.

Source: Schnorr and Euchner, "Lattice basis reduction", Mathematical Programming 1994;
Wübben et al., "Efficient algorithm for decoding layered space-time codes", Electronics
Letters 2001, for the order of the elements; Guo and Nilsson, "K-best sphere decoding",
IEEE JSAC 2006.
"""

import time
from collections.abc import Callable
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from quantal.objectives._algorithms.solution import Solution
from quantal.objectives.losses import Quadratic
from quantal.objectives.problem import Problem

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
_WIDTHS = (16, 256, 4096)
LARGEST = 300
"""The most elements."""
_FLAT = 1e-6
_NODES = 300_000  # Between two looks at the clock.


def solved(
    loss: Quadratic,
    problem: Problem,
    seconds: float,
    codes: Integers,
    better: Callable[[Integers], None],
) -> Solution | None:
    """The best vector, or a good one; None where the loss cannot be made convex.

    On two values `a` and `b`, `v**2` is `(a + b) v - a b`, so that any multiple of it may be
    added. Takes exponential time where values are close together for the loss; it ends then without
    a proof.

    Args:
        loss: The loss.
        problem: What is searched.
        seconds: When it ends.
        codes: A good vector.
        better: Is told better vectors.
    """
    end = time.perf_counter() + seconds
    if len(problem) > LARGEST:
        return None
    given, loss = loss, _convex(loss, problem)
    matrix = loss.matrix
    try:
        root = np.linalg.cholesky(matrix).T
    except np.linalg.LinAlgError:
        return None
    if np.diag(root).min() < _FLAT * np.diag(root).max():
        return None
    order, triangle, rotation = _sorted_triangle(root)
    # |root v - goal|^2 is the loss but for a constant.
    goal = rotation.T @ np.linalg.solve(root.T, -loss.vector / 2)
    lists = np.where(problem.fixed[:, None], problem.values(problem.start)[:, None], problem.lists)[
        order
    ]
    lengths = np.where(problem.fixed, 1, problem.lengths)[order]
    best = _squares(triangle, goal, problem.values(codes)[order])
    chosen = codes.copy()
    for width in _WIDTHS:
        if time.perf_counter() > end:
            break
        found, squares = _broad(triangle, goal, lists, lengths, width)
        if squares < best:
            best = squares
            chosen[order] = np.where(problem.fixed[order], codes[order], found)
            better(chosen)
    state = _State(triangle, goal, lists, lengths, best)
    while not state.ended and time.perf_counter() < end:
        state.go(_NODES)
        if state.best < best:
            best = state.best
            chosen[order] = np.where(problem.fixed[order], codes[order], state.codes)
            better(chosen)
    if not state.ended:
        return Solution(chosen, None)
    (least,) = given(problem.values(chosen)[None])
    return Solution(chosen, float(least), True)


def _convex(loss: Quadratic, problem: Problem) -> Quadratic:
    """The same loss on the lists, with a matrix whose eigenvalues are above zero if that can be."""
    matrix = loss.matrix.toarray() if loss.sparse else loss.matrix
    free = np.flatnonzero(~problem.fixed)
    eigenvalues = np.linalg.eigvalsh(matrix)
    flat = 4 * _FLAT * max(abs(eigenvalues[0]), eigenvalues[-1]) or 1.0
    if eigenvalues[0] > flat or (problem.lengths[free] > 2).any():
        return Quadratic(matrix, loss.vector, loss.constant)
    more = np.full(len(matrix), flat - eigenvalues[0])
    first, second = problem.lists[:, 0], problem.lists[np.arange(len(matrix)), problem.lengths - 1]
    held = problem.values(problem.start)
    first, second = (np.where(problem.fixed, held, ends) for ends in (first, second))
    return Quadratic(
        matrix + np.diag(more),
        loss.vector - more * (first + second),
        loss.constant + float(more @ (first * second)),
    )


def _sorted_triangle(root: Floats) -> tuple[Integers, Floats, Floats]:
    """An order of the columns, and R and Q of them: small diagonal entries come first."""
    left, order = root.copy(), np.arange(len(root))
    squares = np.square(left).sum(axis=0)
    for place in range(len(root)):
        least = place + int(squares[place:].argmin())
        for array in (left.T, order, squares):
            array[[place, least]] = array[[least, place]]
        unit = left[:, place] / np.linalg.norm(left[:, place])
        rest = left[:, place + 1 :]
        rest -= np.outer(unit, unit @ rest)
        squares[place + 1 :] = np.square(rest).sum(axis=0)
    rotation, triangle = np.linalg.qr(root[:, order])
    return order, triangle, rotation


def _squares(triangle: Floats, goal: Floats, values: Floats) -> float:
    return float(np.square(triangle @ values - goal).sum())


def _broad(
    triangle: Floats, goal: Floats, lists: Floats, lengths: Integers, width: int
) -> tuple[Integers, float]:
    """The best that is left of the best partial vectors at each level."""
    n = len(goal)
    sums, values = np.zeros(1), np.zeros((1, n))
    codes = np.zeros((1, n), np.int64)
    for level in range(n - 1, -1, -1):
        rest = goal[level] - values[:, level + 1 :] @ triangle[level, level + 1 :]
        own = lists[level, : lengths[level]]
        more = sums[:, None] + np.square(rest[:, None] - triangle[level, level] * own)
        flat = more.reshape(-1)
        kept = np.argpartition(flat, width)[:width] if len(flat) > width else np.arange(len(flat))
        parents, children = np.divmod(kept, len(own))
        sums, values, codes = flat[kept], values[parents], codes[parents]
        values[:, level], codes[:, level] = own[children], children
    best = int(sums.argmin())
    return codes[best], _squares(triangle, goal, values[best])


class _State:
    """Where the deep search stands."""

    def __init__(
        self, triangle: Floats, goal: Floats, lists: Floats, lengths: Integers, best: float
    ) -> None:
        n, most = lists.shape
        self._arguments = triangle, goal, lists, lengths
        self.codes = np.zeros(n, np.int64)
        # The best, the level; 1 at the end, -1 where the way leads down.
        self._numbers = np.array([best, n - 1, -1.0])
        self._stack = (
            np.zeros(n + 1), np.zeros(n), np.zeros((n, most), np.int64), np.zeros(n, np.int64),
        )  # fmt: skip

    @property
    def best(self) -> float:
        return float(self._numbers[0])

    @property
    def ended(self) -> bool:
        return bool(self._numbers[2] == 1)

    def go(self, nodes: int) -> None:
        """Look at some more partial vectors."""
        _deep(nodes, *self._arguments, *self._stack, self.codes, self._numbers)


@njit(cache=True)  # type: ignore[untyped-decorator]
def _deep(
    nodes: int,
    triangle: Any, goal: Any, lists: Any, lengths: Any,
    sums: Any, values: Any, nearest: Any, places: Any, codes: Any, numbers: Any,
) -> None:  # fmt: skip
    """Go on with the deep search, in place."""
    n = len(goal)
    level, down = int(numbers[1]), numbers[2] < 0
    for _ in range(nodes):
        if down:
            rest = goal[level]
            for other in range(level + 1, n):
                rest -= triangle[level, other] * values[other]
            # The values in the order of their distance, by insertion.
            for k in range(lengths[level]):
                own = abs(rest - triangle[level, level] * lists[level, k])
                at = k
                while at > 0:
                    before = nearest[level, at - 1]
                    if abs(rest - triangle[level, level] * lists[level, before]) <= own:
                        break
                    nearest[level, at] = before
                    at -= 1
                nearest[level, at] = k
            places[level] = 0
        else:
            level += 1
            if level == n:
                numbers[1], numbers[2] = n - 1, 1.0
                return
            # Back from below: what is left over, anew.
            rest = goal[level]
            for other in range(level + 1, n):
                rest -= triangle[level, other] * values[other]
            places[level] += 1
        down = False
        if places[level] >= lengths[level]:
            continue
        code = nearest[level, places[level]]
        apart = rest - triangle[level, level] * lists[level, code]
        total = sums[level + 1] + apart * apart
        if total >= numbers[0] * (1 - 1e-12):
            continue  # The others are further away.
        values[level] = lists[level, code]
        if level > 0:
            sums[level] = total
            level -= 1
            down = True
            continue
        numbers[0] = total
        for i in range(n):
            codes[i] = nearest[i, places[i]]
    numbers[1], numbers[2] = level, -1.0 if down else 0.0
