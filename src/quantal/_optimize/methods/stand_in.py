"""A stand-in is an objective with a structure that agrees with a loss; the loss decides."""

import dataclasses

import numpy as np

from quantal._optimize.budget import Spendable
from quantal._optimize.evaluator import Evaluator
from quantal._optimize.linear_constraints import LinearConstraints
from quantal._optimize.methods.compiled_steps import CompiledSteps
from quantal._optimize.methods.exact import ExactMethod, restarts_with_exact
from quantal._optimize.methods.increasing import AS_IT_IS, Increasing
from quantal._optimize.methods.method import Method, OnImprovement, run_in_turn
from quantal._optimize.methods.population import Population
from quantal._optimize.methods.tabu import TabuSearch
from quantal._optimize.moves import Moves
from quantal.objectives._algorithms.solution import Solution
from quantal.objectives.groups import Groups
from quantal.objectives.objective import Objective
from quantal.objectives.problem import Floats, Integers, Problem


@dataclasses.dataclass(frozen=True)
class StandIn:
    """A stand-in agrees with an increasing function of a loss on the lists, up to a tolerance.

    `form(loss)` is `offset + slope * objective`.

    Attributes:
        objective: The objective, which has a compiled loop, or deltas.
        tolerance: By how much the two may differ.
        form: The increasing function.
        slope: A factor above 0.
        offset: A number.
    """

    objective: Objective
    tolerance: float
    form: Increasing = AS_IT_IS
    slope: float = 1.0
    offset: float = 0.0

    def number(self, vector: Floats) -> float:
        """Return what the stand-in gives for `form(loss)` of one vector (n,)."""
        return self.number_of(float(self.objective(vector[None])[0]))

    def number_of(self, loss: float) -> float:
        """Return what the stand-in gives where its objective has a loss."""
        return self.offset + self.slope * loss


@dataclasses.dataclass(frozen=True)
class StandInSearch:
    """A search minimizes a stand-in as long as it agrees with the loss.

    Attributes:
        problem: The lists, and which elements are fixed.
        evaluator: Evaluates the true loss.
        population: The good assignments.
        seed: The seed of the random numbers.
    """

    problem: Problem
    evaluator: Evaluator
    population: Population
    seed: int

    def run(self, stand_in: StandIn, budget: Spendable, on_improvement: OnImprovement) -> Solution:
        """Minimize the stand-in.

        The solution is complete if no vector is better by the stand-in, and both agree
        there. It is no proof, since the loss may differ elsewhere.
        """
        try:
            began = budget.seconds
            steps = self._steps(stand_in.objective)
            if steps is None:
                return Solution(None)
            budget.exclude_seconds(budget.seconds - began)
        except ImportError:  # Without the extra `search`, it is searched as any other loss.
            return Solution(None)
        incumbent, trusted = self.evaluator.incumbent, True

        def number_of(loss: float) -> float:
            return float(stand_in.form.function(np.array([loss]))[0])

        def check(codes: Integers, stand_in_loss: float) -> None:
            nonlocal trusted
            expected = stand_in.number_of(stand_in_loss)
            if expected < number_of(incumbent.loss):
                loss = self.evaluator.loss(codes)
                on_improvement(codes, loss)
                trusted = bool(abs(number_of(loss) - expected) <= stand_in.tolerance)

        limited = budget.limited(condition=lambda: trusted)
        exact = None
        if budget.seconds_left < np.inf:
            exact = ExactMethod(stand_in.objective, self.problem, self.evaluator, self.population)
        methods = restarts_with_exact(steps, exact, self.population)
        solutions = run_in_turn(methods, incumbent, limited, check)
        solution = [Solution(None), *solutions][-1]
        if not trusted:
            self.population.forget_members()  # Their losses are those of the stand-in.
        if solution.codes is None or not solution.proved:
            return Solution(None)
        check(
            solution.codes, float(stand_in.objective(self.problem.values(solution.codes)[None])[0])
        )
        return Solution(solution.codes, complete=trusted)

    def _steps(self, objective: Objective) -> Method | None:
        """Return what improves an assignment of the stand-in: a compiled loop, or tabu search."""
        loop = objective.compiled_loop(self.problem, self.seed)
        if loop is not None:
            return CompiledSteps(self.problem, loop, self.seed)
        deltas = objective.deltas(self.problem)
        if deltas is None:
            return None

        def losses(codes: Integers) -> Floats:
            return np.asarray(objective(self.problem.values(codes)))

        groups = Groups(self.problem, None)
        unconstrained = LinearConstraints(groups, self.problem.lists, None, None)
        moves = Moves(self.problem, unconstrained)
        return TabuSearch(losses, deltas, moves, np.random.default_rng(self.seed))
