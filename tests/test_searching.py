"""Search finds the best vector where it is known, and says what it knows."""

import itertools
import math
import time
import tracemalloc
from types import SimpleNamespace

import keras
import numpy as np
import pytest
from scipy import optimize
from scipy.sparse import csr_array

import quantal
from conftest import on_one_backend
from quantal._optimize import constraints
from quantal._optimize.methods import gradient_starts as descent
from quantal._optimize.methods import population
from quantal._optimize.methods import quadratic_fit as detecting
from quantal._optimize.methods import tabu as walking
from quantal._optimize.search import search as searching
from quantal._optimize.search import user_loss as calling
from quantal.objectives import Quadratic, Sums, minimax, problem
from quantal.objectives._algorithms import autocorrelation_steps
from quantal.objectives._algorithms import relaxation_bound as bounds
from quantal.objectives._algorithms import sphere_decoding as spheres

ALL = pytest.mark.parametrize("lists", [[1, -1], [1, 0, -1], [1, -1, 0.5, -0.5], [0.3, 2]])


def random_loss(random, n=9):
    return Quadratic(random.normal(size=(n, n)), random.normal(size=n), 0.7)


def best_of_all(loss, lists, n):
    vectors = np.array(list(itertools.product(lists, repeat=n)), float)
    return loss(vectors).min()


def search(loss, *arguments, **named):
    return quantal.search(loss, *arguments, **{"budget": 1, "verbose": 0, **named})


def test_a_quadratic_loss(random):
    matrix, vector = random.normal(size=(5, 5)), random.normal(size=5)
    rows = random.normal(size=(3, 5))
    expected = [row @ matrix @ row + vector @ row + 2 for row in rows]
    for form in (matrix, csr_array(matrix)):
        np.testing.assert_allclose(Quadratic(form, vector, 2)(rows), expected)
    loss = Quadratic(matrix, vector)
    step = 1e-6 * np.eye(5)
    slopes = (loss(rows[0] + step) - loss(rows[0] - step)) / 2e-6
    np.testing.assert_allclose(loss.gradient(rows[0]), slopes, rtol=1e-5, atol=1e-6)


@on_one_backend
@ALL
def test_all_vectors_are_looked_at_where_they_are_few(lists, random):
    loss = random_loss(random, 7)
    found = search(loss, lists)
    assert found.proved
    assert found.loss == found.bound == pytest.approx(best_of_all(loss, lists, 7))
    np.testing.assert_allclose(loss(found.values[None]), [found.loss])
    np.testing.assert_array_equal(np.array(lists)[found.codes], found.values)


@on_one_backend
def test_nothing_is_proved_where_some_were_not_looked_at(random):
    loss = random_loss(random, 14)
    found = search(loss.__call__, [1, -1], n=14, budget=None, evaluations=5000)
    assert found.evaluations < 2**14
    assert found.bound is None
    assert not found.proved
    # Nor where it ended early.
    given = problem.Problem([1, -1], 14, None, None, 0)
    free = constraints.Constraints(problem.Groups(given, None), given.lists, None, None)
    for most in (5000, 2**14):
        record = searching.Record(lambda c: loss(given.values(c)), given.start, None, most, 0)
        searching._enumerate(record, given, free)
        assert record.proved == (most == 2**14)
        assert record.spent <= most


@on_one_backend
@ALL
@pytest.mark.parametrize("known", [True, False])
def test_the_best_is_found_by_steps(lists, known, random, monkeypatch):
    monkeypatch.setattr(searching, "ENUMERATED", 0)
    loss = random_loss(random)
    found = search(loss if known else loss.__call__, lists, n=9)
    assert found.loss == pytest.approx(best_of_all(loss, lists, 9), rel=1e-5)
    np.testing.assert_allclose(loss(found.values[None]), [found.loss], rtol=1e-5)
    assert [row[1] for row in found.history] == sorted(row[1] for row in found.history)[::-1]
    assert (found.bound is not None) == known


@on_one_backend
def test_differences_stay_exact_over_many_steps(random, monkeypatch):
    loss = Quadratic(random.normal(size=(60, 60)))
    found = search(loss, [1, -1, 0.5], budget=0.5)
    np.testing.assert_allclose(loss(found.values[None]), [found.loss], rtol=1e-12)
    # No single change is better: the last descent came to its end.
    for i, value in itertools.product(range(60), [1, -1, 0.5]):
        other = found.values.copy()
        other[i] = value
        assert loss(other[None])[0] >= found.loss - 1e-9


@on_one_backend
@pytest.mark.parametrize("enumerated", [0, 2**17])
@pytest.mark.parametrize("known", [True, False])
def test_what_is_fixed_stays(enumerated, known, random, monkeypatch):
    monkeypatch.setattr(searching, "ENUMERATED", enumerated)
    loss, fixed = random_loss(random), np.arange(9) < 4
    start = random.integers(0, 3, 9)
    found = search(loss if known else loss.__call__, [1, 0, -1], n=9, start=start, fixed=fixed)
    np.testing.assert_array_equal(found.codes[fixed], start[fixed])
    rows = np.array(list(itertools.product([1, 0, -1], repeat=5)))
    head = np.tile(np.array([1, 0, -1])[start[:4]], (len(rows), 1))
    assert found.loss == pytest.approx(loss(np.hstack([head, rows])).min(), rel=1e-5)


def test_a_list_for_each_element_in_keras(monkeypatch):
    monkeypatch.setattr(searching, "ENUMERATED", 0)
    lists = [[1, 2, 3], [10, 20], [0.5]]

    def loss(v):
        return keras.ops.square(keras.ops.sum(v, axis=1) - 22.5)

    found = search(loss, lists, budget=2)
    assert found.values.tolist() == [2, 20, 0.5]
    assert found.loss == 0


@on_one_backend
def test_phases(random, monkeypatch):
    monkeypatch.setattr(searching, "ENUMERATED", 0)
    channel = random.normal(size=5) + 1j * random.normal(size=5)
    phases = np.exp(2j * np.pi * np.arange(4) / 4)

    def loss(v):
        return -np.abs(v @ channel)

    found = search(loss, phases, n=5)
    rows = np.array(list(itertools.product(phases, repeat=5)))
    assert found.loss == pytest.approx(loss(rows).min(), rel=1e-5)
    assert np.iscomplexobj(found.values)
    with pytest.raises(ValueError, match="The lists are complex"):
        search(Quadratic(np.eye(5)), phases)


@on_one_backend
def test_never_worse_than_the_start(random):
    loss = Quadratic(random.normal(size=(300, 300)))
    start = random.integers(0, 2, 300)
    first = search(loss, [1, -1], start=start, budget=1e-9)
    assert first.loss <= loss(np.array([1, -1])[start][None])[0]
    later = search(loss, [1, -1], start=first.codes, budget=0.2)
    assert later.loss <= first.loss


@on_one_backend
@ALL
def test_bounds_hold(lists, random):
    for _ in range(5):
        loss = random_loss(random, 6)
        free = problem.Problem(lists, 6, None, None, 0)
        bound = bounds.lower_bound(loss, free)
        fixed = problem.Problem(lists, 6, free.start, np.arange(6) < 3, 0)
        assert bounds.lower_bound(loss, fixed) > bound
        assert bound <= best_of_all(loss, lists, 6) + 1e-6
    # It is met where the loss is linear.
    linear = Quadratic(np.zeros((40, 40)), random.normal(size=40))
    found = search(linear, lists, budget=0.2)
    assert found.proved
    assert "proved" in str(found)
    assert bounds.lower_bound(linear, problem.Problem(lists, 40, None, None, 0)) == pytest.approx(
        found.loss
    )


@on_one_backend
@ALL
def test_bounds_hold_wherever_the_solver_ends(lists, random, monkeypatch):
    monkeypatch.setattr(optimize, "minimize", lambda f, x, **named: SimpleNamespace(x=x))
    for _ in range(5):
        loss = random_loss(random, 6)
        given = problem.Problem(lists, 6, np.zeros(6, int), np.arange(6) < 2, 0)
        held = np.array(list(itertools.product(lists, repeat=4)), float)
        vectors = np.concatenate([np.full((len(held), 2), lists[0]), held], axis=1)
        assert bounds.lower_bound(loss, given) <= loss(vectors).min() + 1e-6


@on_one_backend
def test_a_vector_and_its_negative_are_one(random, monkeypatch):
    signs = problem.Problem([1, -1], 50, None, None, 0)
    symmetric, other = Quadratic(np.eye(50)), Quadratic(np.eye(50), np.ones(50))
    np.testing.assert_array_equal(symmetric.mirrors(signs), np.tile([1, 0], (50, 1)))
    assert other.mirrors(signs) is None
    assert symmetric.mirrors(problem.Problem([1, 0.5], 50, None, None, 0)) is None
    members = population.Population(signs, symmetric.mirrors(signs), random)
    codes = members.child()
    members.take(1.0, codes)
    members.take(0.5, 1 - codes)
    assert len(members.members) == 1
    members.take(2.0, (codes + np.arange(50)) % 2)
    assert [loss for loss, _ in members.members] == [0.5, 2.0]
    # Where all are alike, it begins again but for the best.
    monkeypatch.setattr(population, "SIZE", 2)
    members.members[1] = 2.0, members.members[0][1].copy()
    assert (members.child() != members.members[0][1]).sum() > 10
    assert [loss for loss, _ in members.members] == [0.5]
    # As where many were not kept.
    monkeypatch.setattr(population, "PATIENCE", 3)
    half = (codes + np.arange(50)) % 2
    for loss, kept in ((2, [0.5, 2]), (3, [0.5, 2]), (3, [0.5, 2]), (3, [0.5])):
        members.take(loss, half)
        assert [own for own, _ in members.members] == kept


@on_one_backend
def test_progress_is_shown(capsys, random):
    search(Quadratic(random.normal(size=(200, 200))), [1, -1], budget=0.3, verbose=1)
    assert "loss" in capsys.readouterr().out


REFUSED = {
    "matrix has the shape": lambda: Quadratic(np.zeros((2, 3))),
    "vector has the shape": lambda: Quadratic(np.zeros((2, 2)), [1]),
    "not finite": lambda: Quadratic([[np.nan]]),
    "n is None with one list": lambda: search(len, [1, -1]),
    "but there are 2 lists": lambda: search(len, [[1, 2], [3]], n=3),
    "The loss is of 2 elements": lambda: search(Quadratic(np.eye(2)), [1, -1], n=3),
    "budget is 0": lambda: search(Quadratic(np.eye(2)), [1, -1], budget=0),
    "start has the shape": lambda: search(Quadratic(np.eye(2)), [1, -1], start=[0]),
    "fixed has the shape": lambda: search(Quadratic(np.eye(1)), [1], start=[0], fixed=[True] * 2),
    "fixed is given without start": lambda: search(Quadratic(np.eye(1)), [1], fixed=[True]),
    "The loss of the first vector is NaN": lambda: search(lambda v: v[:, 0] * np.nan, [1, 2], n=2),
    "The loss gave the shape": lambda: search(lambda v: v, [1, 2], n=2),
    "A list is": lambda: search(len, [1, np.nan], n=2),
}


@on_one_backend
@pytest.mark.parametrize("words", REFUSED)
def test_bad_input(words):
    with pytest.raises(ValueError, match=words):
        REFUSED[words]()


def every(lists):
    return np.array(list(itertools.product(*lists)), float)


@on_one_backend
@pytest.mark.parametrize("enumerated", [0, 2**17])
@pytest.mark.parametrize("known", [True, False])
def test_sums_and_counts(enumerated, known, random, monkeypatch):
    monkeypatch.setattr(searching, "ENUMERATED", enumerated)
    loss = random_loss(random, 8)
    given = loss if known else loss.__call__
    rows = every([[-1, 0, 2]] * 8)
    for named, kept in (
        ({"counts": {2: 3}}, (rows == 2).sum(1) == 3),
        ({"total": 3}, rows.sum(1) == 3),
        ({"total": 3, "counts": {0: 2, 2: 3}}, (rows.sum(1) == 3) & ((rows == 0).sum(1) == 2)),
    ):
        found = search(given, [-1, 0, 2], n=8, budget=0.4, **named)
        assert found.loss == pytest.approx(loss(rows[kept]).min(), rel=1e-5)
        assert (found.values[None] == rows[kept]).all(axis=1).any()
    # One element could go up and down by as much.
    rows = every([[-1, 0, 1]] * 8)
    for total in (0, 5):
        found = search(given, [-1, 0, 1], n=8, budget=0.4, total=total)
        assert found.values.sum() == total
        assert found.loss == pytest.approx(loss(rows[rows.sum(1) == total]).min(), rel=1e-5)


@on_one_backend
def test_constraints_that_nothing_keeps_to(random):
    with pytest.raises(ValueError, match="No vector was found whose total"):
        search(random_loss(random, 8), [1, -1], total=3)
    with pytest.raises(ValueError, match="which is in no list"):
        search(random_loss(random, 8), [1, -1], counts={0.5: 3})


@on_one_backend
@pytest.mark.parametrize("known", [True, False])
def test_groups_move_together(known, random, monkeypatch):
    monkeypatch.setattr(searching, "ENUMERATED", 0)
    loss, place = random_loss(random, 8), np.arange(8)
    labels = np.minimum(place, 7 - place)
    given = loss if known else lambda v: loss(v) + 0 * v[:, 0]
    half = every([[-1, 0.5, 2]] * 4)
    found = search(given, [-1, 0.5, 2], n=8, groups=labels, budget=0.3)
    both = np.hstack([half, half[:, ::-1]])
    np.testing.assert_array_equal(found.values, found.values[::-1])
    assert found.loss == pytest.approx(loss(both).min(), rel=1e-5)
    # Antisymmetry: the negative values in the same order.
    lists = [[-1, 0.5, 2]] * 4 + [[1, -0.5, -2]] * 4
    found = search(given, lists, groups=labels, budget=0.3)
    np.testing.assert_array_equal(found.values, -found.values[::-1])
    assert found.loss == pytest.approx(loss(np.hstack([half, -half[:, ::-1]])).min(), rel=1e-5)
    # Lists that are no multiples of each other.
    lists = [[-1, 0.5, 2]] * 4 + [[3, 1, 0]] * 4
    found = search(given, lists, groups=labels, budget=0.3)
    other = np.select([half == -1, half == 0.5], [3, 1], 0)
    assert found.loss == pytest.approx(loss(np.hstack([half, other[:, ::-1]])).min(), rel=1e-5)
    with pytest.raises(ValueError, match="moves together with"):
        search(given, [[1, 2]] * 7 + [[1, 2, 3]], groups=labels)
    with pytest.raises(ValueError, match="groups has the shape"):
        search(given, [1, 2], n=8, groups=[1])


@on_one_backend
@ALL
def test_a_quadratic_loss_is_recognized(lists, random):
    loss = random_loss(random, 12)
    start = random.integers(0, len(lists), 12)
    fixed = np.arange(12) < 2
    given = problem.Problem(lists, 12, start, fixed, 0)

    def losses(codes):
        return loss(given.values(codes)).astype(np.float32).astype(float)

    found, tolerance = detecting.detected(losses, given, lambda: True)
    assert 0 < tolerance < 1e-3 * np.ptp(losses(random.integers(0, len(lists), (50, 12))))
    codes = np.where(fixed, start, random.integers(0, len(lists), (50, 12)))
    np.testing.assert_allclose(
        found(given.values(codes)), loss(given.values(codes)), rtol=1e-3, atol=1e-3
    )
    assert detecting.detected(lambda c: np.abs(losses(c)) ** 1.5, given, lambda: True) is None


@on_one_backend
def test_other_losses_are_not_taken_for_quadratic():
    given, looked = problem.Problem([1, -1, 2, 4], 100, None, None, 0), []

    def separable(codes):  # Three values of each element agree with a square.
        return (given.values(codes) ** 4).sum(axis=1)

    def other(codes):
        looked.append(len(codes))
        return np.cbrt(given.values(codes).sum(axis=1))

    assert detecting.detected(separable, given, lambda: True) is None
    assert detecting.detected(other, given, lambda: True) is None
    assert sum(looked) < 100  # Few vectors tell.


@on_one_backend
def test_sums_are_followed(random, monkeypatch):
    monkeypatch.setattr(searching, "ENUMERATED", 0)
    matrix, wanted = random.normal(size=(6, 9)), random.normal(size=6)
    loss = Sums(matrix, lambda sums: np.abs(sums).sum(axis=1), -wanted)
    rows = every([[1, 0, -1]] * 9)
    np.testing.assert_allclose(loss(rows[:5]), np.abs(rows[:5] @ matrix.T - wanted).sum(1))
    found = search(loss, [1, 0, -1])
    assert found.loss == pytest.approx(loss(rows).min())
    pairs = search(loss, [1, 0, -1], counts={1: 4})
    assert pairs.loss == pytest.approx(loss(rows[(rows == 1).sum(1) == 4]).min())
    with pytest.raises(ValueError, match="The function gave the shape"):
        search(Sums(matrix, lambda sums: sums), [1, 0, -1])


def test_gradients_where_there_are_some(random):
    matrix = random.normal(size=(30, 40)).astype("float32")
    hidden = random.choice([1.0, -1.0, 0.5], 40)
    wanted = (matrix @ hidden).astype("float32")

    def loss(v):
        apart = keras.ops.subtract(keras.ops.matmul(v, matrix.T), wanted)
        return keras.ops.sum(keras.ops.log(keras.ops.cosh(apart)), axis=1)

    called = calling.Called(loss, 1)
    rows = random.normal(size=(3, 40))
    called(rows)
    slopes = called.slopes(rows)
    expected = np.tanh(rows @ matrix.T - wanted) @ matrix
    np.testing.assert_allclose(slopes, expected, rtol=1e-3, atol=1e-3)
    given = problem.Problem([1, -1, 0.5], 40, None, None, 0)
    found = descent.descended(given, called.slopes, random, lambda: True)
    drawn = np.stack([given.drawn(random) for _ in range(100)])
    assert called(given.values(found)).min() < called(given.values(drawn)).min()
    held = problem.Problem([1, -1, 0.5], 40, given.start, np.arange(40) < 9, 0)
    found = descent.descended(held, called.slopes, random, lambda: True)
    assert (found[:, :9] == given.start[:9]).all()
    # NumPy's functions have none.
    plain = calling.Called(lambda v: np.abs(v).sum(axis=1), 1)
    plain(rows)
    assert plain.slopes(rows) is None


@on_one_backend
def test_functions_in_numpy_have_float64_after_the_first_call(random):
    kinds = []

    def loss(v):
        kinds.append(v.dtype)
        return np.abs(v.sum(axis=1))

    search(loss, [1.0, -1.0], n=25, budget=0.05)
    assert kinds[0] == np.float32
    assert set(kinds[1:]) == {np.dtype(np.float64)}


@on_one_backend
@pytest.mark.parametrize("count", [2, 3, 4])
def test_the_closest_vector(count, random):
    for trial in range(60):
        n = int(random.integers(1, 6))
        lists = [np.sort(random.normal(size=count)) for _ in range(n)]
        root, wanted = random.normal(size=(n + 1, n)), 2 * random.normal(size=n + 1)
        matrix = root.T @ root
        if count == 2 and trial % 2:  # Two values need no convex loss.
            matrix = matrix - 2 * np.eye(n)
        loss = Quadratic(matrix, -2 * wanted @ root, 1.5)
        given = problem.Problem(lists, None, None, None, trial)
        given.fixed[0] = n > 1
        told = [given.start]
        solution = spheres.solved(
            loss, given, 5, given.start, lambda codes, told=told: told.append(codes.copy())
        )
        np.testing.assert_array_equal(told[-1], solution.codes)
        held = [[lists[0][given.start[0]]] if n > 1 else lists[0], *lists[1:]]
        best = loss(every(held)).min()
        assert solution.bound == pytest.approx(best, abs=1e-8)
        np.testing.assert_allclose(loss(given.values(solution.codes)[None]), best, atol=1e-8)
    assert spheres.solved(Quadratic(-np.eye(3)), problem.Problem([1, 2, 3], 3, None, None, 0),
                          1, np.zeros(3, int), None) is None  # fmt: skip


@on_one_backend
def test_a_linear_loss_is_proved(random):
    vector = random.normal(size=30)
    found = search(Quadratic(np.zeros((30, 30)), vector), [1, -1], budget=5)
    assert found.proved
    assert found.loss == pytest.approx(-np.abs(vector).sum())
    assert found.history[-1][0] < 4


@on_one_backend
def test_the_deep_search_alone(random, monkeypatch):
    monkeypatch.setattr(spheres, "_WIDTHS", ())
    for trial in range(60):
        root, wanted = random.normal(size=(6, 5)), random.normal(size=6)
        loss = Quadratic(root.T @ root, -2 * wanted @ root)
        given = problem.Problem([1, -1, 0.5, -0.5], 5, None, None, trial)
        given.fixed[1] = trial % 2
        solution = spheres.solved(loss, given, 5, given.start, lambda _: None)
        rows = every([given.lists[0]] * 5)
        rows = rows[rows[:, 1] == given.values(given.start)[1]] if given.fixed[1] else rows
        assert solution.bound == pytest.approx(loss(rows).min(), abs=1e-8)
        assert loss(given.values(solution.codes)[None])[0] == solution.bound
        # Without time nothing is proved.
        assert spheres.solved(loss, given, 0, given.start, None).bound is None


@on_one_backend
def test_small_problems_are_proved(random, monkeypatch):
    monkeypatch.setattr(searching, "ENUMERATED", 0)
    couplings = random.normal(size=(24, 24))
    found = search(Quadratic(couplings), [1, -1], budget=10)
    assert found.proved
    assert found.loss == pytest.approx(found.bound)
    assert found.gap == 0


@on_one_backend
def test_minimax_is_proved(random, monkeypatch):
    monkeypatch.setattr(searching, "ENUMERATED", 0)
    lists = [[-1, 0.5, 2]] * 5 + [[1.0, 3.0]]
    loss = quantal.objectives.Minimax(
        random.normal(size=(20, 6)), random.normal(size=20), np.arange(20)
    )
    best = loss(every(lists)).min()
    found = search(loss, lists, budget=20)
    assert found.proved
    assert found.loss == pytest.approx(best)
    given = problem.Problem(lists, None, None, None, 0)
    assert loss.lower_bound(given) <= best
    (unit,) = loss(given.values(given.start)[None])
    found = loss._program(unit, given.lists, *minimax._ends(given), np.inf, given.lengths)
    stopped = SimpleNamespace(x=found.x, mip_dual_bound=best / unit - 0.1)
    monkeypatch.setattr(loss, "_program", lambda *_: stopped)
    solution = loss.solved(given, 1, given.start, None)
    assert solution.bound == pytest.approx(best - 0.1 * unit, rel=1e-4)
    assert not solution.proved
    monkeypatch.undo()
    # A proof is as exact as the loss itself, however bad the vector was that it began from.
    near = quantal.objectives.Minimax([[1.0]], [1.0])
    one = problem.Problem([0, 1, 1 + 1e-7], 1, np.zeros(1, int), None, 0)
    stopped = SimpleNamespace(x=np.array([1.0, 0, 0, 0, 1]), mip_dual_bound=0.0)
    monkeypatch.setattr(near, "_program", lambda *_: stopped)
    assert not near.solved(one, 1, one.start, None).proved
    monkeypatch.undo()
    given.fixed[:3] = True
    held = [[row[at]] if place < 3 else row
            for place, (row, at) in enumerate(zip(lists, given.start, strict=True))]  # fmt: skip
    solution = loss.solved(given, 20, given.start, None)
    assert solution.proved
    assert solution.bound == pytest.approx(loss(every(held)).min(), rel=1e-5)
    np.testing.assert_array_equal(solution.codes[:3], given.start[:3])
    with pytest.raises(ValueError, match="target has the shape"):
        quantal.objectives.Minimax(np.eye(2), [1])
    with pytest.raises(ValueError, match="matrix has the shape"):
        quantal.objectives.Minimax([1.0, 2.0], [1, 0])
    with pytest.raises(ValueError, match="or it or target is complex"):
        quantal.objectives.Minimax(1j * np.eye(2), [1, 0])
    with pytest.raises(ValueError, match="weights has -1"):
        quantal.objectives.Minimax(np.eye(2), [1, 1], [1, -1])


@on_one_backend
@pytest.mark.parametrize("periodic", [True, False])
@pytest.mark.parametrize("lists", [[1, -1], [1, -1, 0.5], [1, 1j, -1, -1j]], ids=str)
def test_autocorrelations(periodic, lists, random, monkeypatch):
    monkeypatch.setattr(searching, "ENUMERATED", 0)
    loss = quantal.objectives.Autocorrelation(7, periodic)
    row = random.choice(lists, 7)
    sums = [
        sum(row[i] * np.conj(row[(i + k) % 7]) for i in range(7) if periodic or i + k < 7)
        for k in range(1, 7)
    ]
    assert loss([row])[0] == pytest.approx(np.sum(np.abs(sums) ** 2))
    rows = np.array(list(itertools.product(lists, repeat=7)))
    found = search(loss, lists, budget=0.5)
    assert found.loss == pytest.approx(loss(rows).min(), abs=1e-9)
    start = np.ones(7, int)
    held = search(loss, lists, budget=0.2, start=start, fixed=np.arange(7) < 3)
    assert (held.codes[:3] == 1).all()
    assert held.loss == pytest.approx(loss(rows[(rows[:, :3] == lists[1]).all(1)]).min(), abs=1e-9)


@on_one_backend
def test_single_precision_where_it_is_exact():
    ones = np.array([[1.0, -1.0]])
    assert quantal.objectives.Autocorrelation(64)._exact(ones).dtype == np.float32
    assert quantal.objectives.Autocorrelation(3000)._exact(ones).dtype == np.float64
    assert quantal.objectives.Autocorrelation(64)._exact(ones / 3).dtype == np.float64
    assert quantal.objectives.Autocorrelation(64)._exact(1000 * ones).dtype == np.float64
    assert quantal.objectives.Autocorrelation(64)._exact(1j * ones).dtype == np.complex128


@on_one_backend
@pytest.mark.parametrize("periodic", [True, False])
@pytest.mark.parametrize("lists", [[1, -1], [0.3, 1, -1], [1, 1j, -1j]], ids=str)
def test_walks_never_come_back(periodic, lists, random):
    n, length = 12, 30
    loss, lists = quantal.objectives.Autocorrelation(n, periodic), np.array([lists] * n).T
    lists = lists.astype(complex) if np.iscomplexobj(lists) else lists.astype(np.float64)
    held = np.arange(n) % 4 == 1
    barred = np.where(held, np.inf, np.zeros(lists.shape))
    keys = random.integers(2**62, size=lists.shape)
    (visited, owners), place = np.zeros((2, 64), np.int64), np.array([1, 0])
    start = random.integers(len(lists), size=n)
    (best,) = loss(lists[start, np.arange(n)][None])
    codes, best_codes, numbers = start.copy(), start.copy(), np.array([best, best, 0, 0])
    walks = {}
    for step in range(100):
        autocorrelation_steps.walks(
            1, length, 1e-9, step, periodic, lists, np.where(held, 1, len(lists)), barred, keys,
            visited, owners, place, codes, best_codes, numbers,
        )  # fmt: skip
        walks.setdefault(int(place[0]), []).append(tuple(codes))
        (exact,) = loss(lists[codes, np.arange(n)][None])
        assert numbers[0] == pytest.approx(exact, abs=1e-9)
        best = min(best, exact)
    assert len(walks) >= 4
    for walk in walks.values():
        assert len(set(walk)) == len(walk) <= length
    assert numbers[1] == pytest.approx(best, abs=1e-9)
    np.testing.assert_array_equal(codes[held], start[held])


@on_one_backend
def test_evaluations_and_a_file(random, tmp_path):
    loss, path = Quadratic(random.normal(size=(350, 350))), tmp_path / "good.npz"
    few = {"budget": None, "evaluations": 2_000_000, "seed": 5}
    first, second = search(loss, [1, -1], file=path, **few), search(loss, [1, -1], **few)
    np.testing.assert_array_equal(first.codes, second.codes)
    assert first.evaluations == second.evaluations < 40_000_000
    later = search(loss, [1, -1], budget=None, evaluations=1, seed=6, file=path)
    assert later.loss <= first.loss
    with pytest.raises(ValueError, match="of another search"):
        search(loss, [1, 0], file=path)
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(ValueError, match="not readable"):
        search(loss, [1, -1], file=path)
    with pytest.raises(ValueError, match="budget and evaluations are None"):
        search(loss, [1, -1], budget=None)


@on_one_backend
def test_an_interrupt_gives_the_best():
    calls = iter(range(100))

    def loss(v):
        if next(calls) == 30:
            raise KeyboardInterrupt
        return np.abs(v.sum(axis=1)) ** 1.5 + v[:, 0]

    found = search(loss, [1, -1, 3], n=40, budget=30)
    assert found.loss <= found.history[0][1]


@on_one_backend
def test_a_called_loss_is_ranked_by_what_changes_did():
    given = problem.Problem([1, -1, 2], 4, np.zeros(4, int), None, 0)
    weights = np.array([3.0, -1.0, 2.0, np.inf])

    def losses(codes):
        with np.errstate(invalid="ignore"):
            return np.nan_to_num(weights * (codes > 0), nan=0, posinf=np.inf).sum(axis=1)

    view = walking.Whole(losses, given, None)
    view.stand(given.start, 0.0)
    assert (view.ranks() <= 0).all()  # What is not known comes first.
    view.losses(np.arange(4)[:, None], np.ones((4, 1), int))
    np.testing.assert_array_equal(view.ranks()[:, 1], [3, -1, 2, 0])
    view.stand(given.start, 0.0)
    assert (np.abs(view.ranks()[:3, 1]) < [3, 1, 2]).all()
    view.losses(np.array([[0, 1]]), np.array([[1, 1]]))
    assert view.ranks() is None  # Two at once say nothing of one.


@on_one_backend
def test_steps_lead_out_of_a_local_optimum(random):
    given = problem.Problem([0, 1], 3, None, None, 0)

    def losses(codes):
        return np.array([0.0, 1, 2, -1])[codes.sum(axis=1)]

    moves = constraints.Moves(given, constraints.Constraints(problem.Groups(given, None),
                                                             given.lists, None, None))  # fmt: skip
    walker = walking.Walker(walking.Whole(losses, given, None), losses, moves, random)
    found, codes = walker.improved(np.zeros(3, int), lambda: True, lambda *_: None)
    assert found == -1
    assert codes.sum() == 3


@on_one_backend
def test_processes_share_a_batch(random):
    rows = random.normal(size=(7, 3))
    # A lambda is sent as it is, and needs no import of these tests.
    shared = calling.Called(lambda v: np.abs(v).sum(axis=1) ** 1.5, 2)
    shared(rows[:1])
    np.testing.assert_allclose(shared(rows), np.abs(rows).sum(axis=1) ** 1.5)


@on_one_backend
@pytest.mark.parametrize("unit", [1e-20, 1.0, 1e13])
def test_nothing_is_proved_by_roundings(unit, random):
    """A loss in another unit is searched and proved alike."""
    matrix = random.normal(size=(60, 60))
    one = {"budget": None, "evaluations": 100_000}
    found = search(Quadratic(unit * matrix), [1, -1], **one)
    again = search(Quadratic(unit * matrix, constant=1e6 * unit), [1, -1], **one)
    assert not found.proved
    assert not again.proved
    assert found.bound < 1.05 * found.loss < 0
    other = search(Quadratic(matrix), [1, -1], **one)
    assert found.loss == pytest.approx(unit * other.loss, rel=1e-9, abs=0)
    rows, wanted = random.normal(size=(30, 14)), random.normal(size=30)
    filters = quantal.objectives.Minimax(unit * rows, unit * wanted)
    found = search(filters, [1, -1, 0.5], budget=30)
    assert found.proved
    vectors = np.array(list(itertools.product([1, -1], repeat=14)), float)
    assert found.bound <= filters(vectors).min() * (1 + 1e-12)
    assert found.loss - found.bound <= 1e-5 * found.loss
    codes = search(quantal.objectives.Autocorrelation(18), [unit, -unit], **one)
    assert codes.loss == pytest.approx(25 * unit**4, rel=1e-9, abs=0)


@on_one_backend
def test_a_relaxed_bound_that_is_met_proves(random):
    """The linear term decides: the relaxed optimum is a vector of the list."""
    vector = random.choice([-4.0, 4.1], 400)
    found = search(Quadratic(np.eye(400), vector), [0, 1, -1], budget=1)
    assert found.proved
    np.testing.assert_array_equal(found.values, -np.sign(vector))


@on_one_backend
def test_a_file_of_other_constraints_is_another_search(tmp_path, random):
    loss, path = random_loss(random, 30), tmp_path / "good.npz"
    fixed = np.arange(30) < 3
    search(loss, [1, -1], start=np.zeros(30, int), fixed=fixed, budget=0.1, file=path)
    with pytest.raises(ValueError, match="of another search"):
        search(loss, [1, -1], start=np.ones(30, int), fixed=fixed, budget=0.1, file=path)
    path.unlink()
    search(loss, [1, -1, 3], total=10, budget=0.1, file=path)
    with pytest.raises(ValueError, match="of another search"):
        search(loss, [1, -1, 3], counts={1: 10}, budget=0.1, file=path)
    with pytest.raises(ValueError, match="no folder"):
        search(loss, [1, -1], file=tmp_path / "none" / "good.npz")


@on_one_backend
def test_what_stands_for_a_loss_does_not_decide(random, monkeypatch):
    """Quadratic but for a rare penalty, which 64 random vectors do not meet."""
    loss = Quadratic(np.zeros((30, 30)), random.uniform(1, 2, 30))

    def penalized(v):
        return loss(v) + 1e6 * (v[:, :14] == -1).all(axis=1)

    taken, detected = [], searching.detected
    monkeypatch.setattr(searching, "detected", lambda *a: taken.append(detected(*a)) or taken[0])
    found = search(penalized, [1, -1], n=30, budget=1, start=np.zeros(30, int))
    assert taken[0] is not None
    best = loss.vector.sum() - 2 * (loss.vector.sum() - loss.vector[:14].min())
    assert found.loss == pytest.approx(best)
    assert min(one for _, one in found.history) == pytest.approx(best)


@on_one_backend
def test_a_total_of_uneven_values_is_kept(random):
    loss = random_loss(random, 100)
    found = search(loss, [1, 2, 3, 1e7], total=150, budget=0.5)
    assert found.values.sum() == 150
    # Sums of such numbers have a rounding of 10; small steps do not lead beyond it.
    found = search(loss, [1, 2, 3, 1e13], total=150, budget=0.5)
    assert abs(found.values.sum() - 150) <= 10


@on_one_backend
def test_the_best_in_float64(random):
    found = search(lambda v: v.sum(axis=1), [0.7, 0.69999999], n=1, start=[0])
    assert found.values == 0.69999999
    assert found.proved


@on_one_backend
def test_groups_are_proved_too(random, monkeypatch):
    monkeypatch.setattr(searching, "ENUMERATED", 0)
    labels = np.minimum(np.arange(12), 11 - np.arange(12))
    half = every([[1, -1, 0.5]] * 6)
    rows = half[:, labels]
    losses = {
        "minimax": quantal.objectives.Minimax(random.normal(size=(20, 12)), random.normal(size=20)),
        "magnitude": quantal.objectives.Magnitude(random.normal(size=12) + 1j, 0.3),
        "quadratic": Quadratic(np.diag(random.uniform(1, 2, 12)), random.normal(size=12)),
        "sparse": Quadratic(csr_array(np.diag(random.uniform(1, 2, 12))), random.normal(size=12)),
    }
    for loss in losses.values():
        found = search(loss, [1, -1, 0.5], groups=labels, budget=10)
        assert found.proved
        assert found.loss == pytest.approx(loss(rows).min())
        assert found.bound <= found.loss


@on_one_backend
def test_losses_that_are_not_numbers_everywhere(random, monkeypatch):
    monkeypatch.setattr(searching, "ENUMERATED", 0)

    def loss(v):
        return np.where(v[:, 0] > 0, np.abs(v.sum(axis=1)) ** 1.5, np.nan)

    found = search(loss, [1, -1], n=11, budget=0.3, start=np.ones(11, int))
    assert found.loss == 1
    with pytest.raises(ValueError, match="so are those of 256"):
        search(lambda v: np.nan * v[:, 0], [1, -1], n=11)


@on_one_backend
def test_walks_from_a_nan_tell_what_they_find(random):
    given = problem.Problem([0, 1], 3, None, None, 0)

    def losses(codes):
        return np.array([np.nan, 1.0, 2, -1])[codes.sum(axis=1)]

    moves = constraints.Moves(given, constraints.Constraints(problem.Groups(given, None),
                                                             given.lists, None, None))  # fmt: skip
    walker, told = walking.Walker(walking.Whole(losses, given, None), losses, moves, random), []
    found, _ = walker.improved(np.zeros(3, int), lambda: True, lambda _, loss: told.append(loss))
    assert found == told[-1] == -1


@on_one_backend
def test_a_climber_tells_a_good_start():
    loss = Quadratic(np.eye(9), np.ones(9))  # 1 and -1: the start is the best.
    given = problem.Problem([1, -1], 9, np.ones(9, int), None, 0)
    told = []
    loss.climber(given, 0).improved(given.start, lambda: False, lambda _, own: told.append(own))
    assert told == [0]


@on_one_backend
def test_constraints_that_few_vectors_meet(random):
    """None of those that are drawn is repaired: the start is what there is to go on from."""
    lists = [list(row) for row in random.normal(size=(40, 3))]
    start = random.integers(0, 3, 40)
    total = sum(row[code] for row, code in zip(lists, start, strict=True))
    loss = Quadratic(random.normal(size=(40, 40)))
    found = search(loss, lists, start=start, total=total, budget=0.3)
    np.testing.assert_array_equal(found.codes, start)


@on_one_backend
def test_many_elements_are_repaired_at_once(random):
    given = problem.Problem([1, -1], 3000, None, None, 0)
    held = constraints.Constraints(problem.Groups(given, None), given.lists, None, {1: 100})
    effects, calls = held.effects, []
    held.effects = lambda codes: calls.append(1) or effects(codes)
    codes = held.repaired(given.start, random)
    assert (codes == 0).sum() == 100
    assert len(calls) < 20


@on_one_backend
@pytest.mark.parametrize("n", [12, 17, 60])
def test_slow_losses_keep_to_the_budget(n):
    def slow(v):
        time.sleep(0.005 * len(v))
        return fast(v)

    def fast(v):  # One after the other, these change last.
        return np.sinh(v[:, :4].sum(axis=1))

    began = time.perf_counter()
    ones = np.zeros(n, int)
    found = search(slow, [1, -1], n=n, budget=0.6, start=ones)
    assert time.perf_counter() - began < 1.8
    assert found.loss < 1
    found = search(fast, [1, -1], n=n, budget=None, evaluations=150, start=ones)
    assert found.evaluations < 400
    assert found.loss < 1


@on_one_backend
def test_many_elements_take_memory_for_themselves_alone():
    n = 100_000
    ring = csr_array((np.ones(n), (np.arange(n), (np.arange(n) + 1) % n)), (n, n))
    tracemalloc.start()
    search(Quadratic(ring), [1, -1], budget=None, evaluations=1000)
    search(lambda v: v.sum(axis=1), [1, -1], n=n, budget=None, evaluations=10)
    phases = np.exp(2j * np.pi * np.arange(8000) / 8000)
    found = search(quantal.objectives.Magnitude(np.ones(9)), phases, budget=None, evaluations=1000)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert found.proved  # It needs no seconds.
    assert peak < 2**29


@on_one_backend
def test_lists_of_many_forms(random):
    loss = lambda v: (v * [1, 2]).sum(axis=1)  # noqa: E731
    for lists in (["binary", "ternary"], [quantal.Values([1, -1]), quantal.Values("ternary")]):
        np.testing.assert_array_equal(search(loss, lists).values, [-1, -1])
    found = search(loss, np.array([[1, 0.5], [3, 2]]))
    np.testing.assert_array_equal(found.values, [0.5, 2])
    # More elements of one value than an array has axes.
    ones = search(lambda v: v.sum(axis=1), [[1]] * 70 + [[1, 2]] * 3, budget=math.inf, verbose=1)
    assert ones.proved
    assert ones.loss == 73
    with pytest.raises(ValueError, match="A list is"):
        search(loss, [quantal.Values([[1, 2], [3, 4]], axis=0), [1]])
    for total in (np.nan, 1j):
        with pytest.raises(ValueError, match="Expected finite numbers"):
            search(loss, [1, -1], n=2, total=total)
    with pytest.raises(ValueError, match="No vector was found"):
        search(loss, [1, -1], n=2, total=2, start=[0, 1], fixed=[True, True])
    with pytest.raises(ValueError, match="jobs is 0"):
        search(loss, [1, -1], n=2, jobs=0)


@on_one_backend
def test_complex_groups_of_the_largest_error(random, monkeypatch):
    monkeypatch.setattr(searching, "ENUMERATED", 0)
    loss, phases = (
        quantal.objectives.Minimax(random.normal(size=(5, 6)), np.ones(5)),
        [1, 1j, -1, -1j],
    )
    lists = [phases] * 3 + [[1j * value for value in phases]] * 3
    labels = np.arange(6) % 3
    found = search(loss, lists, groups=labels, budget=0.5)
    half = np.array(list(itertools.product(phases, repeat=3)))
    rows = np.hstack([half, 1j * half])
    assert found.loss == pytest.approx(loss(rows).min())
    assert found.bound is None
    assert search(loss, phases, budget=0.1).bound is None
