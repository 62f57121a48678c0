"""A surface is a loss as a function of real coordinates, between the values of the lists too."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from quantal._optimize.budget import Spendable
from quantal._optimize.methods.increasing import AS_IT_IS, Increasing, powers
from quantal.objectives.problem import Floats, Problem

STEP = 1e-4
"""The step of a difference, as a part of a list's range: rounding leaves twelve digits of it."""
JITTER = 1e-2
"""Points are moved off the values of the lists by this part of their range: at the values
themselves, sums of small whole numbers are often the same."""
_TOLERANCE, _TOLERANCE_OF_SINGLE = 1e-6, 2e-5
"""How far numbers may be off, relative to the largest, in double and in single precision."""
_PROBES, _POINTS_OF_A_PROBE = 12, 4
"""So many lines say what a surface looks like nearby, with so many points on each."""
_FEWEST_PLAIN = 0.6
"""The share of the lines on which it has to look so: the others cross an edge."""
SHORT_LINE, LONG_LINE = 1e-4, 2e-3
"""The distance of the points on a line, as a part of a list's range: short lines cross few edges,
and on long ones third differences are above rounding."""
_FLAT = 1e-9
"""A difference below this part of the first differences is none."""
_FLAT_IN_SINGLE = 1e-5
"""The same for gradients in single precision."""
_NUMBERS_AT_ONCE = 2**20
"""The most numbers of the vectors in one call."""
_FRAMEWORKS_BATCH = 64
"""A framework's gradients come in batches of this size."""
_ROOT = Increasing("a square", np.sqrt)
_SQUARE = Increasing("a magnitude", np.square)


class Slopes(NamedTuple):
    """Slopes hold numbers of a surface at points, and its gradients there.

    Attributes:
        numbers: The numbers, (batch,).
        gradients: The gradients, (batch, d).
    """

    numbers: Floats
    gradients: Floats


class Surface:
    """A surface takes points of real coordinates to losses.

    A list of real numbers has one coordinate, from 0 to 1 or from 0 to -1 beginning at the
    element's first value, and a list of complex numbers has two, for the real and the
    imaginary part. Fixed elements have none. Losses of single precision are too coarse for
    differences: there the gradients have to come from a framework.

    Args:
        problem: The lists, and which elements are fixed.
        losses: Takes vectors (batch, n), of any numbers, to losses (batch,).
        gradients: Takes vectors (batch, n) to gradients (batch, n); or to None for none.
        budget: Counts evaluations.

    Attributes:
        size: The number of coordinates.
        form: An increasing function of the losses; the numbers of the surface are `form(loss)`.
    """

    def __init__(
        self,
        problem: Problem,
        losses: Callable[[Floats], Floats],
        gradients: Callable[[Floats], Floats | None],
        budget: Spendable,
    ) -> None:
        self._losses, self._gradients, self._budget = losses, gradients, budget
        self._base = problem.values(problem.start)
        self._lists = problem.lists
        ranges = np.abs(problem.lists - self._base[:, None]).max(axis=1)
        self._free = np.flatnonzero(~problem.fixed & (ranges > 0))
        self._units = ranges[self._free]
        self.is_complex = bool(np.iscomplexobj(problem.lists))
        self.size = len(self._free) * (2 if self.is_complex else 1)
        self.form = AS_IT_IS
        self.is_exact = True
        """Whether losses come in double precision."""

    @property
    def tolerance(self) -> float:
        """Return how far numbers may be off, relative to the largest of them."""
        return _TOLERANCE if self.is_exact else _TOLERANCE_OF_SINGLE

    def points(self, vectors: Floats) -> Floats:
        """Return the coordinates (batch, d) of vectors (batch, n)."""
        steps = (vectors - self._base)[:, self._free] / self._units
        return np.concatenate([steps.real, steps.imag], axis=1) if self.is_complex else steps

    def vectors(self, points: Floats) -> Floats:
        """Return the vectors (batch, n) of coordinates (batch, d)."""
        if self.is_complex:
            real, imaginary = np.split(points, 2, axis=1)
            points = real + 1j * imaginary
        vectors = np.tile(self._base, (len(points), 1))
        vectors[:, self._free] += points * self._units
        return vectors

    def rows_of_vectors(self, rows: Floats) -> Floats:
        """Return rows (k, n + 1) of which the real part takes a vector to an affine function.

        Args:
            rows: The coefficients of affine functions of the coordinates, (k, d + 1); the
                constant is the last.
        """
        coefficients, constants = rows[:, :-1], rows[:, -1]
        if self.is_complex:
            real, imaginary = np.split(coefficients, 2, axis=1)
            coefficients = real - 1j * imaginary
        result = np.zeros((len(rows), len(self._base) + 1), coefficients.dtype)
        result[:, self._free] = coefficients / self._units
        result[:, -1] = constants - (result[:, :-1] @ self._base).real
        return result

    @np.errstate(all="ignore")
    def at(self, points: Floats) -> Floats:
        """Return the numbers (batch,) at points (batch, d)."""
        if not len(points):
            return np.zeros(0)
        rows = max(1, _NUMBERS_AT_ONCE // len(self._base))
        parts = [
            self._losses(self.vectors(points[begin : begin + rows]))
            for begin in range(0, len(points), rows)
        ]
        self._budget.count(len(points))
        return self.form.function(np.concatenate(parts))

    def drawn(self, problem: Problem, count: int, random: np.random.Generator) -> Floats:
        """Return points (count, d) near random vectors of the lists."""
        codes = np.stack([problem.draw(random) for _ in range(count)])
        return self.jittered(self.points(problem.values(codes)), random)

    def jittered(self, points: Floats, random: np.random.Generator) -> Floats:
        """Return points a bit off some points."""
        return points + random.uniform(-JITTER, JITTER, points.shape)

    def slopes(self, points: Floats, step: float = STEP) -> Slopes:
        """Return the numbers at points (batch, d), and the gradients by central differences."""
        numbers = self.at(points)
        if not self.is_exact:
            gradients = self._frameworks_gradients(points)
            nothing = np.full(points.shape, np.nan)
            return Slopes(numbers, nothing if gradients is None else gradients)
        steps = step * np.concatenate([np.eye(self.size), -np.eye(self.size)])
        around = (points[:, None] + steps).reshape(-1, self.size)
        upper, lower = np.moveaxis(self.at(around).reshape(len(points), 2, self.size), 1, 0)
        return Slopes(numbers, (upper - lower) / (2 * step))

    def looks_affine(self, points: Floats, losses: Floats) -> Increasing | None:
        """Return the form in which the surface is affine nearby; None if it is in none.

        Args:
            points: The points that `probes` returns, (batch, d).
            losses: Their losses, (batch,).
        """
        if not np.isfinite(losses).all():
            return None
        if not self.is_exact:
            return AS_IT_IS if self._keeps_gradient(points) else None
        forms = [AS_IT_IS, *([_ROOT] if (losses >= 0).all() else []), *powers(losses)]
        return self._plain_form(losses, forms, 2)

    def looks_quadratic(self, losses: Floats) -> Increasing | None:
        """Return the form in which the surface is quadratic nearby; None if it is in none."""
        if not (self.is_exact and np.isfinite(losses).all()):
            return None
        if not (losses >= 0).all():
            forms = list(powers(losses))
        else:
            forms = [_SQUARE, AS_IT_IS, *powers(losses)]
        return self._plain_form(losses, forms, 3)

    def probes(self, problem: Problem, random: np.random.Generator, step: float) -> Floats:
        """Return points on lines near random vectors, for `looks_affine`."""
        points = self.drawn(problem, _PROBES, random)
        directions = step * random.normal(size=points.shape)
        along = np.arange(_POINTS_OF_A_PROBE)[:, None]
        return np.asarray((points[:, None] + along * directions[:, None]).reshape(-1, self.size))

    def _keeps_gradient(self, points: Floats) -> bool:
        """Return whether the gradient is the same along most of the lines."""
        gradients = self._frameworks_gradients(points)
        if gradients is None:
            return False
        lines = gradients.reshape(_PROBES, _POINTS_OF_A_PROBE, self.size)
        changes = np.abs(np.diff(lines, axis=1)).max(axis=(1, 2))
        sizes = np.abs(lines).max(axis=(1, 2))
        same = (changes <= _FLAT_IN_SINGLE * sizes) & (sizes > 0)
        return bool(same.mean() >= _FEWEST_PLAIN)

    def _frameworks_gradients(self, points: Floats) -> Floats | None:
        """Return the gradients (batch, d) that a framework computes; None where it has none."""
        if self.is_complex:
            return None
        self._budget.count(len(points))
        # A framework compiles anew for each shape.
        padded = np.pad(points, ((0, _FRAMEWORKS_BATCH - len(points) % _FRAMEWORKS_BATCH), (0, 0)))
        parts = []
        for begin in range(0, len(padded), _FRAMEWORKS_BATCH):
            gradients = self._gradients(self.vectors(padded[begin : begin + _FRAMEWORKS_BATCH]))
            if gradients is None:
                return None
            parts.append(gradients[:, self._free] * self._units)
        return np.concatenate(parts)[: len(points)]

    @np.errstate(all="ignore")
    def _plain_form(self, losses: Floats, forms: list[Increasing], order: int) -> Increasing | None:
        """Return the first form whose differences of an order vanish on most lines."""
        for form in forms:
            lines = form.function(losses).reshape(_PROBES, _POINTS_OF_A_PROBE)
            first = np.abs(np.diff(lines, axis=1)).max(axis=1)
            differences = np.abs(np.diff(lines, order, axis=1)).max(axis=1)
            rounding = 1e-13 * np.abs(lines).max(axis=1)
            plain = (differences <= _FLAT * first + rounding) & (first > 0)
            if np.isfinite(lines).all() and plain.mean() >= _FEWEST_PLAIN:
                return form
        return None
