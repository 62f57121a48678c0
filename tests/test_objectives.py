"""An objective gives the right losses, deltas, bounds and symmetries, or says nothing."""

from types import SimpleNamespace

import numpy as np
import pytest
from scipy import optimize
from scipy.sparse import csr_array

from quantal._optimize.methods.full_deltas import FullDeltas
from quantal.objectives import Autocorrelation, Magnitude, Minimax, Objective, Quadratic, Sums
from quantal.objectives._algorithms.quadratic_form import QuadraticForm
from quantal.objectives.groups import Groups
from quantal.objectives.problem import Problem
from searches import LISTS, every_vector, random_quadratic

pytestmark = pytest.mark.without_keras


class Plain(Objective):
    """An objective of which nothing is known."""

    def __len__(self):
        return 3

    def __call__(self, vectors):
        return np.abs(vectors).sum(axis=1)


def test_nothing_is_known_by_default():
    problem, plain = Problem([1, -1], 3), Plain()
    assert plain.black_box
    assert not plain.exact_is_fast
    assert plain.gradients(np.ones((1, 3))) is None
    assert plain.deltas(problem) is None
    assert plain.compiled_loop(problem, 0) is None
    assert plain.symmetry(problem) is None
    assert plain.bound(problem) is None
    assert plain.exact(problem, 1.0, problem.start, lambda codes: None) is None
    assert plain.rounding(problem) == 0
    assert plain.reduced(Groups(problem, [0, 0, 1])) is None


def test_values_of_a_quadratic(random):
    matrix, vector = random.normal(size=(5, 5)), random.normal(size=5)
    rows = random.normal(size=(3, 5))
    expected = [row @ matrix @ row + vector @ row + 2 for row in rows]
    for form in (matrix, csr_array(matrix)):
        np.testing.assert_allclose(Quadratic(form, vector, 2)(rows), expected)
    loss = Quadratic(matrix, vector)
    step = 1e-6 * np.eye(5)
    slopes = (loss(rows[0] + step) - loss(rows[0] - step)) / 2e-6
    form = QuadraticForm(loss.matrix, loss.vector, loss.constant)
    np.testing.assert_allclose(form.gradient(rows[0]), slopes, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("periodic", [True, False])
@pytest.mark.parametrize("lists", [[1, -1], [1, -1, 0.5], [1, 1j, -1, -1j]], ids=str)
def test_values_of_autocorrelations(periodic, lists, random):
    row = random.choice(lists, 7)
    sums = [
        sum(row[i] * np.conj(row[(i + k) % 7]) for i in range(7) if periodic or i + k < 7)
        for k in range(1, 7)
    ]
    assert Autocorrelation(7, periodic)([row])[0] == pytest.approx(np.sum(np.abs(sums) ** 2))


def test_values_of_sums(random):
    matrix, target = random.normal(size=(6, 9)), random.normal(size=6)
    rows = random.normal(size=(5, 9))
    loss = Sums(matrix, lambda sums: np.abs(sums).sum(axis=1), -target)
    np.testing.assert_allclose(loss(rows), np.abs(rows @ matrix.T - target).sum(1))
    weights = random.uniform(size=6)
    largest = (weights * np.abs(rows @ matrix.T - target)).max(axis=1)
    np.testing.assert_allclose(Minimax(matrix, target, weights)(rows), largest)


@pytest.mark.parametrize("sparse", [False, True])
def test_deltas_are_those_of_whole_vectors(sparse, random):
    matrix = random.normal(size=(8, 8))
    objectives = [
        Quadratic(csr_array(matrix) if sparse else matrix, random.normal(size=8)),
        Sums(matrix[:3], lambda sums: np.abs(sums).max(axis=1)),
        Minimax(matrix[:5], random.normal(size=5)),
    ]
    problem = Problem([1, -1, 0.5], 8, seed=3)
    positions = random.integers(0, 8, (50, 2))
    positions[:5, 1] = positions[:5, 0]
    codes = random.integers(0, 3, (50, 2))
    same = positions[:, 0] == positions[:, 1]
    codes[same, 1] = codes[same, 0]
    for objective in objectives:
        whole = FullDeltas(lambda c, f=objective: f(problem.values(c)), problem, None)
        deltas = objective.deltas(problem)
        (loss,) = objective(problem.values(problem.start)[None])
        for evaluator in (whole, deltas):
            evaluator.move_to(problem.start, loss)
        for count in (1, 2):
            np.testing.assert_allclose(
                deltas.losses_after(positions[:, :count], codes[:, :count]),
                whole.losses_after(positions[:, :count], codes[:, :count]),
            )
    estimates = objectives[0].deltas(problem)
    estimates.move_to(problem.start, 0.0)
    (start,) = objectives[0](problem.values(problem.start)[None])
    after = problem.start.copy()
    after[2] = 1
    (changed,) = objectives[0](problem.values(after)[None])
    assert estimates.estimates()[2, 1] == pytest.approx(changed - start)


@pytest.mark.parametrize("lists", LISTS.values(), ids=LISTS)
def test_bounds_hold(lists, random):
    for _ in range(5):
        loss = random_quadratic(random, 6)
        free = Problem(lists, 6)
        fixed = Problem(lists, 6, free.start, np.arange(6) < 3)
        assert loss.bound(fixed) > loss.bound(free)
        assert loss.bound(free) <= loss(every_vector([lists] * 6)).min() + 1e-6
    # It is met where the loss is linear.
    linear = Quadratic(np.zeros((40, 40)), random.normal(size=40))
    least = np.minimum.reduce([linear.vector * value for value in lists]).sum()
    assert linear.bound(Problem(lists, 40)) == pytest.approx(least)


@pytest.mark.parametrize("lists", LISTS.values(), ids=LISTS)
def test_bounds_hold_wherever_the_solver_ends(lists, random, monkeypatch):
    monkeypatch.setattr(optimize, "minimize", lambda f, x, **named: SimpleNamespace(x=x))
    for _ in range(5):
        loss = random_quadratic(random, 6)
        problem = Problem(lists, 6, np.zeros(6, int), np.arange(6) < 2)
        vectors = every_vector([[lists[0]]] * 2 + [lists] * 4)
        assert loss.bound(problem) <= loss(vectors).min() + 1e-6


def test_sign_symmetry(random):
    signs = Problem([1, -1], 50)
    symmetric, other = Quadratic(np.eye(50)), Quadratic(np.eye(50), np.ones(50))
    np.testing.assert_array_equal(symmetric.symmetry(signs), np.tile([1, 0], (50, 1)))
    assert other.symmetry(signs) is None
    assert symmetric.symmetry(Problem([1, 0.5], 50)) is None
    assert symmetric.symmetry(Problem([1, -1], 50, signs.start, np.arange(50) < 1)) is None
    phases = Problem(np.exp(2j * np.pi * np.arange(64) / 64), 5)
    assert Magnitude(np.ones(5)).symmetry(phases)[3].tolist() == [*range(32, 64), *range(32)]
    assert Magnitude(np.ones(5), 1).symmetry(phases) is None


def test_an_objective_of_groups(random):
    labels = np.arange(6) % 3
    objectives = [
        Quadratic(random.normal(size=(6, 6)), random.normal(size=6), 0.3),
        Quadratic(csr_array(random.normal(size=(6, 6)))),
        Sums(random.normal(size=(4, 6)), lambda sums: np.abs(sums).sum(axis=1), 0.1),
        Minimax(random.normal(size=(4, 6)), random.normal(size=4)),
        Magnitude(random.normal(size=6) + 1j, 0.2),
    ]
    lists = [[1, -1, 0.5]] * 3 + [[-2, 2, -1]] * 3
    groups = Groups(Problem(lists, seed=1), labels)
    codes = random.integers(0, 3, (20, 3))
    for objective in objectives:
        reduced = objective.reduced(groups)
        assert type(reduced) is type(objective)
        np.testing.assert_allclose(
            reduced(groups.problem.values(codes)), objective(groups.values(codes))
        )
    turned = Groups(Problem([[1, 1j]] * 3 + [[1j, -1]] * 3, seed=1), labels)
    reduced = objectives[3].reduced(turned)
    assert type(reduced) is Sums
    np.testing.assert_allclose(
        reduced(turned.problem.values(codes % 2)), objectives[3](turned.values(codes % 2))
    )


REFUSED = {
    "matrix has the shape": lambda: Quadratic(np.zeros((2, 3))),
    "vector has the shape": lambda: Quadratic(np.zeros((2, 2)), [1]),
    "not finite": lambda: Quadratic([[np.nan]]),
    "n is 0": lambda: Autocorrelation(0),
    "target has the shape": lambda: Minimax(np.eye(2), [1]),
    r"matrix has the shape \(2,\)": lambda: Minimax([1.0, 2.0], [1, 0]),
    "or it, target or weights is complex": lambda: Minimax(1j * np.eye(2), [1, 0]),
    "target or weights is complex": lambda: Minimax(np.eye(2), [1, 0], [1j, 1]),
    "matrix, vector or constant is complex": lambda: Quadratic(1j * np.eye(2)),
    "or constant is complex. Expected real": lambda: Quadratic(csr_array(1j * np.eye(2))),
    "is complex. Expected real numbers. Of a Hermitian": lambda: Quadratic(np.eye(2), [1j, 0]),
    "The vectors are complex": lambda: Quadratic(np.eye(2))(1j * np.eye(2)),
    "weights has -1": lambda: Minimax(np.eye(2), [1, 1], [1, -1]),
    r"The function of sums .* gave the shape": lambda: Sums(np.eye(2), lambda sums: sums)(
        np.eye(2)
    ),
    "or a number that is not finite": lambda: Sums([[np.inf]], lambda sums: sums[:, 0]),
    r"vector has the shape \(1, 1\)": lambda: Magnitude([[1.0]]),
    "vector or constant has a number": lambda: Magnitude([1.0], np.inf),
}


@pytest.mark.parametrize("words", REFUSED)
def test_bad_input(words):
    with pytest.raises(ValueError, match=words):
        REFUSED[words]()
