"""Tabu search for any loss, one change or one pair of changes a step.

Each step looks at a part of all changes, the most promising first where something is known
of them, and takes the best that is not tabu; it looks at more while none is better.

Source: Glover, "Tabu Search", ORSA Journal on Computing 1989.
"""

import math
from collections.abc import Callable
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from quantal._optimize.constraints import Moves
from quantal.objectives.losses import Quadratic, Sums
from quantal.objectives.problem import Floats, Integers, Problem

_FEWEST = 32
_DENSE = 4000
_SHARE = 0.25
"""Of all changes of a loss that is called: no step looks at more."""
_FADING = 0.9
"""What a change did counts less with each step, so that it is looked at again."""
_UNSEEN = 1e300


class View(Protocol):
    """A loss seen from where the search stands."""

    batch: int
    """The most changes that are looked at in a step."""

    def stand(self, codes: Integers, loss: float) -> None:
        """Look from here."""

    def ranks(self) -> Floats | None:
        """About how the loss changes with each code of an element, (n, K); None if unknown."""

    def losses(self, places: Integers, codes: Integers) -> Floats:
        """The losses (batch,) after changes at places (batch, 1 or 2) to codes."""


class Whole:
    """Any loss, by vectors that differ in what is changed."""

    batch = 4096

    def __init__(
        self,
        losses: Callable[[Integers], Floats],
        problem: Problem,
        slopes: Callable[[Floats], Floats | None] | None,
    ) -> None:
        self._losses, self._problem, self._slopes = losses, problem, slopes
        drawn = np.random.default_rng(0).random(problem.lists.shape)
        self._seen: Floats | None = -_UNSEEN * drawn

    def stand(self, codes: Integers, loss: float) -> None:
        """Look from here."""
        self._codes, self._now = codes.copy(), loss
        if self._seen is not None:
            self._seen *= _FADING

    def ranks(self) -> Floats | None:
        """The gradient times the step; or what each change did when it was looked at last."""
        if self._slopes is None:
            return self._seen
        here = self._problem.values(self._codes)
        slope = self._slopes(here[None])
        return None if slope is None else slope[0][:, None] * (self._problem.lists - here[:, None])

    def losses(self, places: Integers, codes: Integers) -> Floats:
        """The losses (batch,) after changes."""
        rows = np.tile(self._codes, (len(places), 1))
        rows[np.arange(len(places))[:, None], places] = codes
        found = self._losses(rows)
        if places.shape[1] == 2:
            self._seen = None
        elif self._seen is not None:
            known = np.isfinite(found) & np.isfinite(self._now)
            change = np.where(known, found, 0) - np.where(known, self._now, 0)
            self._seen[places[:, 0], codes[:, 0]] = change
        return found


class OfQuadratic:
    """A quadratic loss, by its gradient and the elements of its matrix."""

    batch = 65536

    def __init__(self, loss: Quadratic, problem: Problem) -> None:
        self._loss, self._problem = loss, problem
        small = loss.sparse and len(loss) <= _DENSE
        self._matrix = loss.matrix.toarray() if small else loss.matrix

    def stand(self, codes: Integers, loss: float) -> None:
        """Look from here."""
        self._here = self._problem.values(codes)
        (self._now,) = self._loss(self._here[None])
        self._slope = self._loss.gradient(self._here)

    def ranks(self) -> Floats:
        """Exact, for one element."""
        apart = self._problem.lists - self._here[:, None]
        return apart * (self._slope[:, None] + apart * self._loss.diagonal[:, None])

    def losses(self, places: Integers, codes: Integers) -> Floats:
        """The losses (batch,) after changes."""
        apart = self._problem.lists[places, codes] - self._here[places]
        if places.shape[1] == 2:
            apart[:, 1] = np.where(places[:, 0] == places[:, 1], 0, apart[:, 1])
        own = apart * (self._slope[places] + apart * self._loss.diagonal[places])
        found: Floats = self._now + own.sum(axis=1)
        if places.shape[1] == 2:
            i, j = places.T
            found += 2 * np.asarray(self._matrix[i, j]).reshape(-1) * apart.prod(axis=1)
        return found


class OfSums:
    """A loss of sums, by what a change adds to each."""

    def __init__(self, loss: Sums, problem: Problem) -> None:
        self._loss, self._problem = loss, problem
        self._columns = np.ascontiguousarray(loss.matrix.T)
        self.batch = int(np.clip(2**24 // max(1, self._columns.shape[1]), 1, 4096))

    def stand(self, codes: Integers, loss: float) -> None:
        """Look from here."""
        self._here = self._problem.values(codes)
        self._sums = self._loss.sums(self._here)

    def ranks(self) -> None:
        """Nothing is known."""

    def losses(self, places: Integers, codes: Integers) -> Floats:
        """The losses (batch,) after changes."""
        apart = self._problem.lists[places, codes] - self._here[places]
        sums = self._sums + apart[:, :1] * self._columns[places[:, 0]]
        if places.shape[1] == 2:
            twice = places[:, 0] == places[:, 1]
            sums += np.where(twice, 0, apart[:, 1])[:, None] * self._columns[places[:, 1]]
        return self._loss.of_sums(sums)


class Walker:
    """Tabu search by a view of the loss, until it stalls.

    Args:
        view: Of the loss.
        losses: The losses of whole vectors' codes.
        moves: What may change in a step.
        random: Draws.
    """

    def __init__(
        self,
        view: View,
        losses: Callable[[Integers], Floats],
        moves: Moves,
        random: np.random.Generator,
    ) -> None:
        self._view, self._losses, self._moves, self._random = view, losses, moves, random
        self._counts = not isinstance(view, Whole)
        self.evaluations = 0
        """Differences that were looked at; whole losses are counted where they are called."""

    def improved(
        self,
        codes: Integers,
        goes_on: Callable[[], bool],
        better: Callable[[Integers, float], None],
    ) -> tuple[float, Integers]:
        """The best that is found from here: its loss and codes.

        Args:
            codes: Where to begin, (n,).
            goes_on: Whether there is time left.
            better: Is told a better vector, and its loss.
        """
        n = len(codes)
        (start,) = self._losses(codes[None])
        codes, loss = codes.copy(), math.inf if np.isnan(start) else float(start)
        better(codes, loss)
        top, top_codes, last, step = loss, codes.copy(), 0, 0
        free_at: NDArray[np.int64] = np.zeros(n, np.int64)
        width, most = _FEWEST, min(self._moves.most, self._view.batch)
        if not self._counts:
            most = min(most, max(2 * _FEWEST, int(_SHARE * most)))
        self._view.stand(codes, loss)
        ranks = self._view.ranks()
        while step - last <= 20 + n // 4 and goes_on():
            places, others = self._moves.drawn(codes, width, self._random, ranks)
            if not len(places):
                break
            losses = self._view.losses(places, others)
            self.evaluations += self._counts * len(losses)
            tabu = (free_at[places] > step).any(axis=1) & (losses >= top)
            losses = np.where(np.isnan(losses) | tabu, np.inf, losses)
            best = int(losses.argmin())
            after = codes.copy()
            while losses[best] < np.inf:
                after[places[best]] = others[best]
                if self._moves.keep(after):
                    break
                after[places[best]], losses[best] = codes[places[best]], np.inf
                best = int(losses.argmin())
            if losses[best] >= loss and width < most:
                width = min(4 * width, most)
                continue
            if losses[best] < loss:
                width = max(_FEWEST, width // 2)
            step += 1
            if losses[best] == np.inf:  # All are tabu.
                continue
            codes, loss = after, float(losses[best])
            free_at[places[best]] = step + min(20, n // 4) + 1 + self._random.integers(10)
            self._view.stand(codes, loss)
            ranks = self._view.ranks()
            if loss < top:
                top, top_codes, last = loss, codes.copy(), step
                better(codes, loss)
        return top, top_codes
