"""Full-batch polishing makes blocks of moves, single moves, then anneals, on all data at once."""

import math

import numpy as np

from quantal._optimize.budget import Spendable, Spending
from quantal._optimize.evaluator import Evaluator
from quantal._optimize.methods.method import OnImprovement
from quantal._optimize.methods.population import Population
from quantal._optimize.methods.quadratic_fit import LARGEST_FITTED, QuadraticFit
from quantal._optimize.polish.annealing import Annealing
from quantal._optimize.polish.curvature import RankedMoves
from quantal._optimize.polish.state import PolishState
from quantal._optimize.polish.validation import Stages
from quantal.objectives._algorithms.solution import Solution
from quantal.objectives.problem import Integers

_GROWTH, _SHRINKAGE = 2, 4
"""By which factor the size of blocks grows when one lowers the loss, and shrinks when not."""
_AFTER_SINGLE = 4
"""The size of the block after a single move was taken: small blocks may fit again then."""
_SINGLES = 64
"""The best of so many promising single moves is taken."""
_MOST_CODES = 2**25
"""The most ranks that these candidates may have together: 256 MiB."""
_SHORTEST_CYCLE = 0.1
"""The least fraction of the budget that an annealing cycle takes."""
_CYCLES_LEFT = 4
"""A cycle takes at least what is left of the budget divided by this: long ones come first."""


class FullBatch:
    """Full-batch polishing follows the loss of all data until nothing lowers it.

    Blocks of ranked moves come first, then single ones. Where nothing is left, a quadratic loss of
    few elements is followed by exact deltas; elsewhere annealing leads out of the local optimum,
    again and again from the incumbent.

    Args:
        state: What the methods of polishing share.
    """

    def __init__(self, state: PolishState) -> None:
        self._state = state
        self._stages = Stages(state.spending)
        self._offers_in_stages = (
            state.selection.validation is not None or state.continuous is not None
        )

    def run(self, start: Integers, budget: Spending, on_improvement: OnImprovement) -> Solution:
        """Polish until the budget is used up, or the loss is solved exactly.

        Args:
            start: The assignment to begin with, (n,).
            budget: What polishing may spend.
            on_improvement: Is called with assignments and their monitored number.
        """
        state, incumbent = self._state, self._state.incumbent
        annealing = Annealing(state.objective, state.curvature, state.random)
        state.measure_curvature(start)
        self._descend(start.copy(), budget, on_improvement)
        self._train_continuous()
        while not state.monitors and self._follow_as_quadratic(budget, on_improvement):
            if not self._train_continuous():
                return Solution(incumbent.codes, incumbent.loss, complete=True)
        while budget.has_budget():
            state.selection.offer(incumbent.codes, incumbent.loss)
            state.train_continuous()
            begin = budget.fraction_used
            end = begin + max(_SHORTEST_CYCLE, (1 - begin) / _CYCLES_LEFT)

            def fraction_done(begin: float = begin, end: float = end) -> float:
                return (budget.fraction_used - begin) / (end - begin)

            ranks = annealing.cycle(
                incumbent.codes, fraction_done, budget.has_budget, on_improvement
            )
            self._descend(ranks, budget, on_improvement)
        return Solution(incumbent.codes, incumbent.loss)

    @property
    def reached(self) -> Integers:
        """Return the assignment that was reached last."""
        return self._state.incumbent.codes

    def offer_last(self) -> None:
        """Offer the incumbent for keeping."""
        incumbent, state = self._state.incumbent, self._state
        # An interrupt may have come between a continuous step and its new measures.
        loss = incumbent.loss if state.continuous is None else None
        state.selection.offer(incumbent.codes, loss)

    def _descend(self, ranks: Integers, budget: Spending, on_improvement: OnImprovement) -> None:
        """Take blocks of ranked moves while they lower the loss, then the best single moves."""
        state, objective = self._state, self._state.objective
        block = state.first_block()
        loss, _, gradient = objective.loss_and_gradient(ranks)
        while budget.has_budget():
            if self._offers_in_stages and self._stages.next_begun():
                state.selection.offer(ranks, None if state.monitors else loss)
                if state.train_continuous():
                    loss, _, gradient = objective.loss_and_gradient(ranks)
            moves = state.curvature.ranked_moves(ranks, gradient)
            count = moves.gains(block)
            blockwise = count > 1
            if blockwise:
                candidate = moves.applied(ranks, moves.order[:count])
            else:
                candidate = self._best_single_move(ranks, moves)
            new_loss, monitored, new_gradient = objective.loss_and_gradient(candidate)
            if new_loss < loss:
                ranks, loss, gradient = candidate, new_loss, new_gradient
                block = _GROWTH * count if blockwise else _AFTER_SINGLE
                on_improvement(ranks, monitored)
            elif blockwise:
                block = count // _SHRINKAGE
            else:
                return

    def _best_single_move(self, ranks: Integers, moves: RankedMoves) -> Integers:
        """Return the assignment after the best of some promising single moves."""
        elements = moves.order[: max(1, min(_SINGLES, _MOST_CODES // len(ranks)))]
        candidates = np.tile(ranks, (len(elements), 1))
        candidates[np.arange(len(elements)), elements] = moves.ranks[elements]
        losses = self._state.objective.losses(candidates)
        return candidates[int(np.where(np.isnan(losses), np.inf, losses).argmin())]

    def _train_continuous(self) -> bool:
        """Offer the incumbent, and train what is not on a list; return whether that helped."""
        state, incumbent = self._state, self._state.incumbent
        if state.continuous is None:
            return False
        state.selection.offer(incumbent.codes, incumbent.loss)
        return state.train_continuous()

    def _follow_as_quadratic(self, budget: Spending, on_improvement: OnImprovement) -> bool:
        """Follow a quadratic loss of few elements; return whether it was solved.

        Where there are continuous steps, it may take half of what is left of the budget.
        """
        state = self._state
        if len(state.objective) > LARGEST_FITTED:
            return False
        incumbent = state.incumbent
        problem = state.objective.lists.problem(incumbent.codes)
        population = Population(problem, None, state.random)
        population.begin_with([incumbent.codes])
        lists, model_loss = state.objective.lists, state.objective.model_loss
        limited: Spendable = budget
        if state.continuous is not None:
            until = (1 + budget.fraction_used) / 2
            limited = budget.limited(condition=lambda: budget.fraction_used < until)
        evaluator = Evaluator(lambda ranks: model_loss(lists.values(ranks)), budget, incumbent)
        fit = QuadraticFit(problem, evaluator, population, state.seed, self._seconds_each())
        return fit.run(incumbent.codes, limited, on_improvement).complete

    def _seconds_each(self) -> float:
        """Return the seconds that one loss takes among many at once."""
        state, spending = self._state, self._state.spending
        count = state.objective.model_loss.candidates
        if math.isinf(spending.seconds_left) or not spending.affords(2 * count):
            return 0.0  # Evaluations decide, and no seconds.
        rows = np.tile(state.incumbent.codes, (count, 1))
        state.objective.losses(rows)  # It may compile.
        began = spending.seconds
        state.objective.losses(rows)
        return (spending.seconds - began) / count
