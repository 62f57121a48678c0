"""Tabu search improves any loss by one move a step.

Each step evaluates a part of all moves, the most promising first where something is known
of them, and takes the best that is not tabu; it evaluates more while none is better.

Source: Glover, "Tabu Search", ORSA Journal on Computing 1989.
"""

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from quantal._optimize.budget import Spendable
from quantal._optimize.methods.method import OnImprovement
from quantal._optimize.moves import CandidateMoves, Moves
from quantal.objectives._algorithms.deltas import DeltaEvaluator
from quantal.objectives._algorithms.losses import checked_losses
from quantal.objectives._algorithms.solution import Solution
from quantal.objectives.problem import Floats, Integers

FEWEST_MOVES = 32
"""A step evaluates so many moves at least: a function computes them about as fast as one."""
_WIDENING, _NARROWING = 4, 2
"""A step without a better move is repeated with so many times the moves; after a better one they
become fewer again by this factor."""
_PATIENCE, _ELEMENTS_A_PATIENCE = 20, 4
"""The search stalls after 20 steps without a better loss, and one more for every 4 elements."""
_LARGEST_TENURE, _ELEMENTS_A_TENURE = 20, 4
"""The tabu tenure is a quarter of the elements, at most 20 steps."""
_RANDOM_TENURE = 10
"""Up to so many random steps are added to a tenure, so that the search does not cycle."""


class TabuSearch:
    """Tabu search moves to the best neighbour that is not tabu, until it stalls.

    Args:
        losses: Takes codes (batch, n) to losses (batch,); they are counted here.
        deltas: Evaluates moves; they are counted here.
        moves: The moves of an assignment.
        random: Draws.
        largest_share: The most moves that a step evaluates, as a share of all.
    """

    def __init__(
        self,
        losses: Callable[[Integers], Floats],
        deltas: DeltaEvaluator,
        moves: Moves,
        random: np.random.Generator,
        largest_share: float = 1.0,
    ) -> None:
        self._losses, self._deltas, self._moves, self._random = losses, deltas, moves, random
        most = min(moves.most, deltas.largest_batch)
        if largest_share < 1:
            most = min(most, max(2 * FEWEST_MOVES, int(largest_share * most)))
        self._most_moves = most

    def run(self, start: Integers, budget: Spendable, on_improvement: OnImprovement) -> Solution:
        """Move until the search stalls, or there is no budget or no move."""
        n, codes = len(start), start.copy()
        budget.count(1)
        (start_loss,) = self._losses(codes[None])
        loss = math.inf if np.isnan(start_loss) else float(start_loss)
        on_improvement(codes, loss)
        best_codes, best_loss = codes.copy(), loss
        tabu_until: NDArray[np.int64] = np.zeros(n, np.int64)
        patience = _PATIENCE + n // _ELEMENTS_A_PATIENCE
        tenure = min(_LARGEST_TENURE, n // _ELEMENTS_A_TENURE) + 1
        step, step_of_best, width = 0, 0, FEWEST_MOVES
        self._deltas.move_to(codes, loss)
        estimates = self._deltas.estimates()
        while step - step_of_best <= patience and budget.has_budget():
            moves = self._moves.candidates(codes, budget.capped(width), self._random, estimates)
            if not len(moves.positions):
                break
            budget.count(len(moves.positions))
            losses = checked_losses(self._deltas.losses_after(*moves), len(moves.positions))
            is_tabu = (tabu_until[moves.positions] > step).any(axis=1) & (losses >= best_loss)
            losses = np.where(np.isnan(losses) | is_tabu, np.inf, losses)
            chosen, neighbour = self._best_allowed(codes, moves, losses)
            if losses[chosen] >= loss and width < self._most_moves:
                width = min(_WIDENING * width, self._most_moves)
                continue
            if losses[chosen] < loss:
                width = max(FEWEST_MOVES, width // _NARROWING)
            step += 1
            if losses[chosen] == np.inf:  # All moves are tabu.
                continue
            codes, loss = neighbour, float(losses[chosen])
            until = step + tenure + self._random.integers(_RANDOM_TENURE)
            tabu_until[moves.positions[chosen]] = until
            self._deltas.move_to(codes, loss)
            estimates = self._deltas.estimates()
            if loss < best_loss:
                best_codes, best_loss, step_of_best = codes.copy(), loss, step
                on_improvement(codes, loss)
        return Solution(best_codes, best_loss)

    def _best_allowed(
        self, codes: Integers, moves: CandidateMoves, losses: Floats
    ) -> tuple[int, Integers]:
        """Return the best move that keeps the constraints, and where it leads.

        The losses of moves that do not keep them become infinity, in place. If no move is left,
        the loss of the one that is returned is infinity.
        """
        neighbour = codes.copy()
        chosen = int(losses.argmin())
        while losses[chosen] < np.inf:
            positions = moves.positions[chosen]
            neighbour[positions] = moves.codes[chosen]
            if self._moves.is_allowed(neighbour):
                break
            neighbour[positions], losses[chosen] = codes[positions], np.inf
            chosen = int(losses.argmin())
        return chosen, neighbour
