"""Each method of search does its part, and counts what it spends."""

import numpy as np
import pytest

from quantal._optimize.budget import Budget, Spending
from quantal._optimize.evaluator import Evaluator
from quantal._optimize.incumbent import Incumbent
from quantal._optimize.linear_constraints import LinearConstraints
from quantal._optimize.methods import population, quadratic_fit
from quantal._optimize.methods.autocorrelation_fit import fit_autocorrelation
from quantal._optimize.methods.compiled_steps import CompiledSteps
from quantal._optimize.methods.enumeration import Enumeration
from quantal._optimize.methods.full_deltas import FullDeltas
from quantal._optimize.methods.gradient_starts import descend
from quantal._optimize.methods.quadratic_fit import fit_quadratic
from quantal._optimize.methods.tabu import TabuSearch
from quantal._optimize.moves import Moves
from quantal.objectives import Autocorrelation, Quadratic
from quantal.objectives._algorithms import autocorrelation_steps
from quantal.objectives._algorithms.compiled_loop import BEST_LOSS, LOSS, LoopState
from quantal.objectives.groups import Groups
from quantal.objectives.problem import Problem
from searches import LISTS, random_quadratic, search

pytestmark = pytest.mark.without_keras
ALL = pytest.mark.parametrize("lists", LISTS.values(), ids=LISTS)


def unconstrained(problem):
    return LinearConstraints(Groups(problem, None), problem.lists, None, None)


def tabu_search(losses, problem, random):
    moves = Moves(problem, unconstrained(problem))
    return TabuSearch(losses, FullDeltas(losses, problem, None), moves, random)


@pytest.mark.parametrize("evaluations", [5000, 2**14])
def test_an_enumeration_proves_what_it_ended(evaluations, random):
    loss, problem = random_quadratic(random, 14), Problem([1, -1], 14)
    spending = Spending(Budget(evaluations=evaluations))
    enumeration = Enumeration(
        problem, lambda codes: loss(problem.values(codes)), unconstrained(problem).satisfied
    )
    solution = enumeration.run(problem.start, spending, lambda *_: None)
    assert solution.proved == (evaluations == 2**14)
    assert spending.evaluations <= evaluations


def test_a_vector_and_its_negative_are_one(random, monkeypatch):
    signs = Problem([1, -1], 50)
    negatives = Quadratic(np.eye(50)).symmetry(signs)
    members = population.Population(signs, negatives, random)
    codes = members.crossover()
    members.offer(1.0, codes)
    members.offer(0.5, 1 - codes)
    assert len(members.members) == 1
    members.offer(2.0, (codes + np.arange(50)) % 2)
    assert [loss for loss, _ in members.members] == [0.5, 2.0]
    # After many rejections only the best is left.
    monkeypatch.setattr(population, "SIZE", 2)
    monkeypatch.setattr(population, "PATIENCE", 3)
    half = (codes + np.arange(50)) % 2
    for loss, kept in ((2, [0.5, 2]), (3, [0.5, 2]), (3, [0.5])):
        members.offer(loss, half)
        assert [member.loss for member in members.members] == kept


def test_a_population_that_has_converged_begins_anew(random, monkeypatch):
    monkeypatch.setattr(population, "SIZE", 2)
    members = population.Population(Problem([1, -1], 300), None, random)
    best = members.crossover()
    near = best.copy()
    near[:4] = 1 - near[:4]
    members.offer(0.5, best)
    members.offer(2.0, near)
    assert len(members.members) == 2
    assert (members.crossover() != best).sum() > 10
    assert [member.loss for member in members.members] == [0.5]


@ALL
def test_a_quadratic_loss_is_recognized(lists, random):
    loss = random_quadratic(random, 12)
    start = random.integers(0, len(lists), 12)
    problem = Problem(lists, 12, start, np.arange(12) < 2)

    def losses(codes):
        return loss(problem.values(codes)).astype(np.float32).astype(float)

    fitted = fit_quadratic(losses, problem, lambda: True)
    some = losses(random.integers(0, len(lists), (50, 12)))
    assert 0 < fitted.tolerance < 1e-3 * np.ptp(some)
    codes = np.where(problem.fixed, start, random.integers(0, len(lists), (50, 12)))
    np.testing.assert_allclose(
        fitted.objective(problem.values(codes)), loss(problem.values(codes)), rtol=1e-3, atol=1e-3
    )
    assert fit_quadratic(lambda c: np.abs(losses(c)) ** 1.5, problem, lambda: True) is None
    assert fit_quadratic(losses, problem, lambda: False) is None


def test_other_losses_are_not_taken_for_quadratic():
    problem, evaluated = Problem([1, -1, 2, 4], 100), []

    def separable(codes):  # Three values of each element agree with a square.
        return (problem.values(codes) ** 4).sum(axis=1)

    def other(codes):
        evaluated.append(len(codes))
        return np.cbrt(problem.values(codes).sum(axis=1))

    assert fit_quadratic(separable, problem, lambda: True) is None
    assert fit_quadratic(other, problem, lambda: True) is None
    assert 0 < sum(evaluated) < 100  # Few vectors reject it.


@pytest.mark.parametrize(
    "form",
    [
        np.sqrt,
        lambda x: 3 * np.sqrt(x) - 1,
        lambda x: 10 * np.log10(x),
        np.log,
        lambda x: -1 / x,
        np.cbrt,
    ],
    ids=["norm", "constants", "decibels", "logarithm", "reciprocal", "no known form"],
)
def test_an_increasing_function_of_a_quadratic_loss_is_recognized(form, random):
    matrix, target = random.normal(size=(40, 20)), 3 * random.normal(size=40)
    problem = Problem([1, -1, 0.5, -0.5], 20)

    def losses(codes):
        return form(((problem.values(codes) @ matrix.T - target) ** 2).sum(axis=1))

    spending = Spending(Budget(evaluations=3000))
    evaluator = Evaluator(losses, spending, Incumbent(problem.start, spending))
    members = population.Population(problem, None, random)
    fit = quadratic_fit.QuadraticFit(problem, evaluator, members, 0, 0.0)
    stand_in = fit._fit(spending)
    if form is np.cbrt:
        assert stand_in is None
        return
    drawn = random.integers(0, 4, (9, 20))
    numbers = [stand_in.number(problem.values(codes)) for codes in drawn]
    np.testing.assert_allclose(numbers, stand_in.form.function(losses(drawn)), rtol=1e-6)
    assert (np.argsort(numbers) == np.argsort(losses(drawn))).all()


def by_transform(periodic, v):
    """The energies by Fourier transforms, as users write them."""
    n = v.shape[1]
    spectra = np.abs(np.fft.fft(v, n if periodic else 2 * n, axis=1)) ** 2
    return (np.abs(np.fft.ifft(spectra, axis=1)[:, 1:n]) ** 2).sum(axis=1)


@pytest.mark.parametrize("periodic", [False, True])
@pytest.mark.parametrize("lists", [[1, -1], [1, 1j, -1, -1j]], ids=["signs", "phases"])
def test_energies_of_autocorrelations_are_recognized(lists, periodic, random):
    problem = Problem(lists, 30)
    forms = [
        lambda energies: energies,
        lambda energies: 3 * energies + 1,
        np.sqrt,
        lambda energies: -900 / (2 * energies),  # the merit factor, negative
        lambda energies: 10 * np.log10(energies / 900),
    ]
    drawn = random.integers(0, len(lists), (9, 30))
    for form in forms:

        def losses(codes, form=form):
            return form(by_transform(periodic, problem.values(codes)))

        stand_in = fit_autocorrelation(losses, problem)
        assert stand_in.objective.periodic == periodic
        numbers = [stand_in.number(problem.values(codes)) for codes in drawn]
        np.testing.assert_allclose(numbers, stand_in.form.function(losses(drawn)))
    for other in (lambda e: -e, lambda e: np.sin(e), lambda e: 0 * e):
        assert fit_autocorrelation(lambda c, f=other: f(losses(c)), problem) is None


def test_a_plain_function_of_autocorrelations_is_searched_as_such():
    result = search(lambda v: by_transform(False, v), [1, -1], 27, 3_000_000)
    assert result.loss == pytest.approx(37)
    # All but a few evaluations are differences of a compiled loop.
    calls = []
    search(lambda v: calls.append(len(v)) or by_transform(False, v), [1, -1], 27, 3_000_000)
    assert sum(calls) < 500


def test_what_stands_for_a_loss_does_not_decide(random, monkeypatch):
    """Quadratic but for a rare penalty, which 64 random vectors do not meet."""
    loss = Quadratic(np.zeros((30, 30)), random.uniform(1, 2, 30))

    def penalized(v):
        return loss(v) + 1e6 * (v[:, :14] == -1).all(axis=1)

    fits, fit = [], fit_quadratic
    monkeypatch.setattr(
        quadratic_fit, "fit_quadratic", lambda *args: fits.append(fit(*args)) or fits[0]
    )
    result = search(penalized, [1, -1], 30, 100_000, start=np.zeros(30, int))
    assert fits[0] is not None
    best = loss.vector.sum() - 2 * (loss.vector.sum() - loss.vector[:14].min())
    assert result.loss == pytest.approx(best)
    assert min(loss for _, loss in result.history) == pytest.approx(best)


def test_descents_end_on_the_lists(random):
    matrix, problem = random.normal(size=(30, 40)), Problem([1, -1, 0.5], 40)
    target = matrix @ random.choice([1.0, -1.0, 0.5], 40)

    def loss(v):
        return np.square(v @ matrix.T - target).sum(axis=1)

    def gradients(v):
        return 2 * (v @ matrix.T - target) @ matrix

    spending = Spending(Budget(evaluations=1))
    ends = descend(problem, gradients, random, spending)
    drawn = np.stack([problem.draw(random) for _ in range(100)])
    assert loss(problem.values(ends)).min() < loss(problem.values(drawn)).min() / 2
    fixed = Problem([1, -1, 0.5], 40, problem.start, np.arange(40) < 9)
    ends = descend(fixed, gradients, random, spending)
    assert (ends[:, :9] == problem.start[:9]).all()
    assert descend(problem, lambda v: None, random, spending) is None


def test_moves_are_ranked_by_what_they_did():
    problem = Problem([1, -1, 2], 4, np.zeros(4, int))
    weights = np.array([3.0, -1.0, 2.0, np.inf])

    def losses(codes):
        with np.errstate(invalid="ignore"):
            return np.nan_to_num(weights * (codes > 0), nan=0, posinf=np.inf).sum(axis=1)

    deltas = FullDeltas(losses, problem, None)
    deltas.move_to(problem.start, 0.0)
    assert (deltas.estimates() <= 0).all()  # What is not known comes first.
    deltas.losses_after(np.arange(4)[:, None], np.ones((4, 1), int))
    np.testing.assert_array_equal(deltas.estimates()[:, 1], [3, -1, 2, 0])
    deltas.move_to(problem.start, 0.0)
    assert (np.abs(deltas.estimates()[:3, 1]) < [3, 1, 2]).all()
    deltas.losses_after(np.array([[0, 1]]), np.array([[1, 1]]))
    assert deltas.estimates() is None  # Two at once say nothing of one.


def test_tabu_search_leads_out_of_a_local_optimum(random):
    problem = Problem([0, 1], 3)

    def losses(codes):
        return np.array([0.0, 1, 2, -1])[codes.sum(axis=1)]

    tabu = tabu_search(losses, problem, random)
    spending = Spending(Budget(evaluations=1000))
    solution = tabu.run(np.zeros(3, int), spending, lambda *_: None)
    assert solution.loss == -1
    assert solution.codes.sum() == 3
    assert 0 < spending.evaluations <= 1000


def test_tabu_search_from_a_nan_reports_what_it_reaches(random):
    problem, reported = Problem([0, 1], 3), []

    def losses(codes):
        return np.array([np.nan, 1.0, 2, -1])[codes.sum(axis=1)]

    solution = tabu_search(losses, problem, random).run(
        np.zeros(3, int), Spending(Budget(evaluations=1000)), lambda _, loss: reported.append(loss)
    )
    assert solution.loss == reported[-1] == -1


def test_compiled_steps_report_a_good_start():
    loss = Quadratic(np.eye(9), np.ones(9))  # 1 and -1: the start is the best.
    problem, reported = Problem([1, -1], 9, np.ones(9, int)), []
    steps = CompiledSteps(problem, loss.compiled_loop(problem, 0), 0)
    spending = Spending(Budget(evaluations=1))
    spending.count(1)
    steps.run(problem.start, spending, lambda _, loss: reported.append(loss))
    assert reported == [0]


def test_an_evaluator_counts_and_offers():
    spending = Spending(Budget(evaluations=10))
    incumbent = Incumbent(np.zeros(2, int), spending)
    evaluator = Evaluator(lambda codes: codes.sum(axis=1).astype(float), spending, incumbent)
    evaluator.consider(np.array([2, 1]))
    evaluator.consider(np.array([0, 1]))
    evaluator.consider(np.array([5, 5]))
    assert spending.evaluations == 3
    assert (incumbent.loss, incumbent.codes.tolist()) == (1.0, [0, 1])


def test_single_precision_where_it_is_exact():
    def kind(n, values):
        return autocorrelation_steps.exact_lists(Problem(values, n).lists).dtype

    assert kind(64, [1.0, -1.0]) == np.float32
    assert kind(3000, [1.0, -1.0]) == np.float64
    assert kind(64, [1 / 3, -1 / 3]) == np.float64
    assert kind(64, [1000.0, -1000.0]) == np.float64
    assert kind(64, [1j, -1j]) == np.complex128


@pytest.mark.parametrize("periodic", [True, False])
@pytest.mark.parametrize("lists", [[1, -1], [0.3, 1, -1], [1, 1j, -1j]], ids=str)
def test_walks_never_come_back(periodic, lists, random):
    n, length, loss = 12, 30, Autocorrelation(12, periodic)
    start = random.integers(len(lists), size=n)
    problem = Problem(lists, n, start, np.arange(n) % 4 == 1)
    arrays = autocorrelation_steps.WalkArrays.of(problem, 0)
    arrays = arrays._replace(
        lists=np.ascontiguousarray(problem.lists.T), barred=arrays.barred.astype(float)
    )
    visited = autocorrelation_steps.VisitedVectors.of(length)
    (best,) = loss(problem.values(start)[None])
    state = LoopState.of(start, best)
    walks = {}
    for step in range(100):
        autocorrelation_steps.walk(1, length, 1e-9, step, periodic, arrays, visited, state)
        walks.setdefault(int(visited.counters[0]), []).append(tuple(state.codes))
        (exact,) = loss(problem.values(state.codes)[None])
        assert state.progress[LOSS] == pytest.approx(exact, abs=1e-9)
        best = min(best, exact)
    assert len(walks) >= 4
    for walk in walks.values():
        assert len(set(walk)) == len(walk) <= length
    assert state.progress[BEST_LOSS] == pytest.approx(best, abs=1e-9)
    np.testing.assert_array_equal(state.codes[problem.fixed], start[problem.fixed])
