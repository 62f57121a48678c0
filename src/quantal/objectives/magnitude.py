"""The largest magnitude of a sum, each term from its list: exact."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from quantal.objectives._algorithms.solution import Solution
from quantal.objectives._algorithms.symmetry import negatives
from quantal.objectives.problem import Floats, Integers, Problem


class Magnitude:
    """The loss `-abs(constant + v @ vector)` of a vector `v`: the largest sum of all.

    Use it for antennas whose phases come from a list: `vector` holds the channel of each
    element of a reflecting surface or a phased array, `constant` the direct path.
    `quantal.search` finds the best vector and proves it, for any lists, in a time that
    grows as `N K log(N K)`; not where a total or counts are given, or groups whose lists
    are no multiples of each other.

    Args:
        vector: Real or complex numbers (n,).
        constant: A number.

    Raises:
        ValueError: The shape is another, or a number is not finite.

    >>> loss = Magnitude([1, 1j], constant=1)
    >>> loss([[1, 1j], [1, -1j], [-1, 1]])
    array([-1., -3., -1.])
    """

    at_once = True
    """Whether `solved` takes no longer than a few steps of a search."""

    def __init__(self, vector: ArrayLike, constant: complex = 0.0) -> None:
        self.vector = np.array(vector)
        if self.vector.dtype.kind != "c":
            self.vector = self.vector.astype(np.float64)
        if self.vector.ndim != 1:
            raise ValueError(
                f"vector has the shape {self.vector.shape}. Expected (n,). Give a number for each "
                "element."
            )
        self.constant = constant
        if not (np.isfinite(self.vector).all() and np.isfinite(constant)):
            raise ValueError(
                "vector or constant has a number that is not finite. Expected finite numbers. "
                "Look where they come from."
            )

    def __len__(self) -> int:
        return len(self.vector)

    def __call__(self, candidates: ArrayLike) -> Floats:
        """The losses (batch,) of vectors (batch, n), real or complex."""
        sums = self.constant + np.asarray(candidates) @ self.vector
        return -np.abs(sums).astype(np.float64)

    def mirrors(self, problem: Problem) -> Integers | None:
        """The code of each value's negative, (n, K), if a vector and its negative lose the same."""
        return None if self.constant else negatives(problem)

    def reduced(self, expansion: Any) -> "Magnitude":
        """The same loss of `u` with `v = expansion @ u`; expansion (n, m)."""
        return Magnitude(self.vector @ expansion, self.constant)

    def solved(
        self, problem: Problem, seconds: float, start_codes: Integers, found: Any
    ) -> Solution:
        """The best vector of all; the other arguments are not needed.

        The magnitude is the largest component of the sum over all directions. In a given
        direction, each element does best with the value whose product reaches farthest, a
        vertex of the convex hull of its products; another vertex takes over where the
        direction crosses the normal of an edge. So the choices of all elements change at
        the normals alone, and one walk around the circle meets the best vector.

        Source: Ren et al., arXiv:2211.04704; for other phases and gains arXiv:2406.16210.
        """
        codes = problem.start.copy()
        elements, befores, afters, angles = _crossings(self.vector, problem)
        products = problem.lists * self.vector[:, None]
        order = np.argsort(angles, kind="stable")
        elements, befores, afters = elements[order], befores[order], afters[order]
        # What the last crossings lead to holds before the first one.
        codes[elements] = afters
        sums = self._sum(problem, codes) + np.concatenate(
            [[0], np.cumsum(products[elements, afters] - products[elements, befores])]
        )
        place = int(np.argmax(np.abs(sums)))
        codes[elements[:place]] = afters[:place]
        # Towards its own direction again: heals an order that rounding changed.
        other = _farthest(products, self._sum(problem, codes), problem, codes)
        # One by one: a product of matrices may round otherwise.
        loss, healed = (float(self(problem.values(row)[None])[0]) for row in (codes, other))
        codes, loss = (codes, loss) if loss <= healed else (other, healed)
        return Solution(codes, loss, True)

    def _sum(self, problem: Problem, codes: Integers) -> complex:
        return complex(self.constant + problem.values(codes) @ self.vector)


def _crossings(
    vector: NDArray[Any], problem: Problem
) -> tuple[Integers, Integers, Integers, Floats]:
    """Where the best value of an element changes: the element, from, to, the angle in [0, 2 pi)."""
    known: dict[bytes, tuple[Integers, Integers, Floats]] = {}
    found = []
    for i in np.flatnonzero(~problem.fixed & (vector != 0)):
        row = problem.lists[i, : problem.lengths[i]]
        key = row.tobytes()
        if key not in known:
            known[key] = _edges(row)
        # A factor turns and scales the hull; it does not change which points are on it.
        befores, afters, angles = known[key]
        found.append((np.full(len(befores), i), befores, afters, angles + np.angle(vector[i])))
    if not found:
        return (*(np.zeros(0, np.int64) for _ in range(3)), np.zeros(0))  # type: ignore[return-value]
    elements, befores, afters, angles = (np.concatenate(part) for part in zip(*found, strict=True))
    return elements, befores, afters, np.mod(angles, 2 * np.pi)


def _edges(row: NDArray[Any]) -> tuple[Integers, Integers, Floats]:
    """The edges of the convex hull of a list, counterclockwise: codes from and to, normals.

    Andrew's monotone chain; without points inside an edge.
    """
    x, y = row.real.astype(np.float64), row.imag.astype(np.float64)
    _, first = np.unique(np.stack([x, y], axis=1), axis=0, return_index=True)
    lower = _chain(x, y, first)
    upper = _chain(x, y, first[::-1])
    befores = np.array(lower[:-1] + upper[:-1], np.int64)
    afters = np.array(lower[1:] + upper[1:], np.int64)
    down = np.arctan2(y[afters] - y[befores], x[afters] - x[befores])
    # Edges below go to the right, (-pi/2, pi/2], those above to the left.
    back = (np.arange(len(down)) >= len(lower) - 1) & (down <= -np.pi / 2)
    normals = np.where(back, down + 2 * np.pi, down) - np.pi / 2
    return befores, afters, np.maximum.accumulate(normals) if len(normals) else normals


def _chain(x: Floats, y: Floats, order: Integers) -> list[int]:
    """Points (codes) that turn left all the way."""
    chain: list[int] = []
    for point in order.tolist():
        while len(chain) > 1:
            one, two = chain[-2:]
            cross = (x[two] - x[one]) * (y[point] - y[one]) - (y[two] - y[one]) * (
                x[point] - x[one]
            )
            if cross > 0:
                break
            chain.pop()
        chain.append(point)
    return chain


def _farthest(
    products: NDArray[Any], direction: complex, problem: Problem, codes: Integers
) -> Integers:
    """The codes whose products reach farthest in a direction."""
    components = np.real(products * np.conj(direction))
    counted = np.arange(products.shape[1]) < problem.lengths[:, None]
    farthest = np.where(counted, components, -np.inf).argmax(axis=1)
    return np.where(problem.fixed, codes, farthest)
