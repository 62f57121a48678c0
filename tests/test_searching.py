"""Search finds the best vector where it is known, and says what it knows."""

import itertools

import keras
import numpy as np
import pytest
from scipy.sparse import csr_array

import quantal
from conftest import on_one_backend
from quantal import Quadratic, searching
from quantal.searching import bounds, population, problem

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
        bound = bounds.lower_bound(loss, problem.Problem(lists, 6, None, None, 0))
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
def test_a_vector_and_its_negative_are_one(random):
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
