"""Pieces are the affine or quadratic functions of which a surface is the largest."""

import dataclasses

import numpy as np
from numpy.typing import NDArray

from quantal._optimize.methods.surface import Surface
from quantal.objectives.problem import Floats

_STEP_OF_GRADIENTS, _STEP_OF_CHANGES = 1e-3, 3e-3
"""The steps of first and of second differences of squares, as a part of a list's range: those of a
quadratic function are exact for any step, and rounding is less for longer ones."""
DIRECTIONS = 4
"""Second differences are taken in so many directions: two are enough unless they are near to each
other in what they change."""
_NEIGHBOURS = 4
"""At so many points around, a piece has to be no larger than the surface, and the same at one."""
_SAME_ROW = 1e-5
"""Rows that differ by less, relative to the largest entry, are the same."""
_SMALLEST_EIGENVALUE = 1e-6
"""A second row is none where its square is below this part of the first one's."""


@dataclasses.dataclass
class Pieces:
    """Pieces are the functions of which a surface is the largest at each point.

    They are affine functions `first @ x`, or squares of magnitudes, `(first @ x)**2 +
    (second @ x)**2`, where `x` is a point with a one behind it.

    Attributes:
        size: The number of coordinates.
        are_squares: Whether they are squares of magnitudes.
        first: Rows, (k, d + 1).
        second: Rows, (k, d + 1); zeros for affine functions, and for squares of real numbers.
    """

    size: int
    are_squares: bool

    def __post_init__(self) -> None:
        self.first = np.zeros((0, self.size + 1))
        self.second = np.zeros((0, self.size + 1))

    def at(self, points: Floats) -> Floats:
        """Return the largest piece at each point, (batch,); minus infinity without pieces."""
        if not len(self.first):
            return np.full(len(points), -np.inf)
        return np.asarray(self.each_at(points).max(axis=1))

    def each_at(self, points: Floats) -> Floats:
        """Return each piece at each point, (batch, k)."""
        first = points @ self.first[:, :-1].T + self.first[:, -1]
        if not self.are_squares:
            return np.asarray(first)
        second = points @ self.second[:, :-1].T + self.second[:, -1]
        return np.asarray(first**2 + second**2)

    def without_negatives(self, rows: Floats) -> Floats:
        """Return rows (k, n + 1), one for each piece, without those whose negatives come later."""
        limits = _SAME_ROW * np.abs(self.first).max(axis=1)
        near = [
            (np.abs(self.first[i + 1 :] + row).max(axis=1, initial=0) <= limit).any()
            for i, (row, limit) in enumerate(zip(self.first, limits, strict=True))
        ]
        return np.asarray(rows[~np.array(near)])

    def add_from(self, surface: Surface, points: Floats) -> int:
        """Add the pieces that the surface has at points; return how many are new."""
        first, second = (
            _squares_at(surface, points) if self.are_squares else _affine_at(surface, points)
        )
        before = len(self.first)
        is_piece = self._agree(surface, points, first, second)
        for row, other in zip(first[is_piece], second[is_piece], strict=True):
            if not self._has(row, other):
                self.first = np.concatenate([self.first, row[None]])
                self.second = np.concatenate([self.second, other[None]])
        return len(self.first) - before

    def _agree(
        self, surface: Surface, points: Floats, first: Floats, second: Floats
    ) -> NDArray[np.bool_]:
        """Return which rows (batch, d + 1) are those of a piece: an edge may have been near."""
        random = np.random.default_rng(2)
        steps = _STEP_OF_GRADIENTS * random.uniform(-1, 1, (_NEIGHBOURS, surface.size))
        around = points[:, None] + steps
        numbers = surface.at(around.reshape(-1, surface.size)).reshape(around.shape[:2])
        ones = np.ones((*around.shape[:2], 1))
        pieces = np.einsum("bnd,bd->bn", np.concatenate([around, ones], axis=2), first)
        if self.are_squares:
            other = np.einsum("bnd,bd->bn", np.concatenate([around, ones], axis=2), second)
            pieces = pieces**2 + other**2
        limit = surface.tolerance * np.abs(numbers).max(axis=1, keepdims=True)
        is_bound = (pieces <= numbers + limit).all(axis=1)
        return np.asarray(is_bound & (np.abs(pieces - numbers) <= limit).any(axis=1))

    def _has(self, first: Floats, second: Floats) -> bool:
        if not self.are_squares:
            limit = _SAME_ROW * np.abs(first).max()
            return bool((np.abs(self.first - first).max(axis=1, initial=0) <= limit).any())
        # The two rows of a square may be turned: their products are the same.
        sizes = _diagonals(first, second)
        near = np.abs(_diagonals(self.first, self.second) - sizes).max(axis=1, initial=0)
        return bool((near <= _SAME_ROW * sizes.max()).any())


def _diagonals(first: Floats, second: Floats) -> Floats:
    """Return the squares that rows (..., d + 1) share however the two of a pair are turned."""
    return np.asarray(first**2 + second**2)


def _affine_at(surface: Surface, points: Floats) -> tuple[Floats, Floats]:
    """Return the affine functions (batch, d + 1) that a surface is near points, and zeros."""
    numbers, gradients = surface.slopes(points)
    constants = numbers - (gradients * points).sum(axis=1)
    rows = np.concatenate([gradients, constants[:, None]], axis=1)
    return rows, np.zeros_like(rows)


@np.errstate(all="ignore")
def _squares_at(surface: Surface, points: Floats) -> tuple[Floats, Floats]:
    """Return pairs of rows (batch, d + 1) whose squares add up to a surface near points.

    Formula: let the surface be `x @ H @ x + ...` with a matrix of rank two, and `D` some random
    directions, a column each. Then `Y = H @ D` comes from the gradients at a point more, and
    `H = Y @ pinv(D.T @ Y) @ Y.T`. With the two large eigenvalues `e` of `D.T @ Y` and their
    eigenvectors `V` the two rows are those of `V.T @ Y.T`, divided by the roots of `e`. Their
    numbers `r` at the point solve `2 * rows.T @ r = gradient`.
    """
    random = np.random.default_rng(1)
    directions = random.normal(size=(DIRECTIONS, surface.size))
    steps = _STEP_OF_CHANGES * np.concatenate([np.zeros((1, surface.size)), directions])
    around = (points[:, None] + steps).reshape(-1, surface.size)
    gradients = surface.slopes(around, _STEP_OF_GRADIENTS).gradients.reshape(
        len(points), 1 + DIRECTIONS, surface.size
    )
    changes = (gradients[:, 1:] - gradients[:, :1]) / (2 * _STEP_OF_CHANGES)
    first = np.full((len(points), surface.size + 1), np.nan)
    second = first.copy()
    for i, (change, gradient) in enumerate(zip(changes, gradients[:, 0], strict=True)):
        rows = _rows_of_square(change, directions @ change.T)
        if rows is None:
            continue
        numbers = np.linalg.lstsq(2 * rows.T, gradient, rcond=1e-9)[0]
        constants = numbers - rows @ points[i]
        second[i], first[i] = np.concatenate([rows, constants[:, None]], axis=1)
    return first, second


def _rows_of_square(changes: Floats, products: Floats) -> Floats | None:
    """Return the two rows (2, d) of a square; None where it is none."""
    if not np.isfinite(products).all():
        return None
    eigenvalues, vectors = np.linalg.eigh((products + products.T) / 2)
    if not eigenvalues[-1] > 0:
        return None
    rows = vectors[:, -2:].T @ changes / np.sqrt(np.abs(eigenvalues[-2:]))[:, None]
    if eigenvalues[-2] <= _SMALLEST_EIGENVALUE * eigenvalues[-1]:
        rows[0] = 0
    return rows
