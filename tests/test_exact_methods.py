"""Exact methods return the best vector of all, and prove no more than they know."""

import numpy as np
import pytest

from quantal.objectives import Magnitude, Minimax, Quadratic, minimax
from quantal.objectives._algorithms import sphere_decoding
from quantal.objectives._algorithms.minimax_program import ProgramResult
from quantal.objectives.problem import Problem
from searches import every_vector

pytestmark = pytest.mark.without_keras


def ignore(codes):
    """Takes an improvement, and does nothing."""


def vectors_of(problem):
    """All vectors that keep what is fixed."""
    return every_vector(
        [
            [row[start]] if fixed else row[:length]
            for row, start, fixed, length in zip(
                problem.lists, problem.start, problem.fixed, problem.lengths, strict=True
            )
        ]
    )


@pytest.mark.parametrize("count", [2, 3, 4])
def test_the_closest_vector(count, random):
    for trial in range(60):
        n = int(random.integers(1, 6))
        lists = [np.sort(random.normal(size=count)) for _ in range(n)]
        root, target = random.normal(size=(n + 1, n)), 2 * random.normal(size=n + 1)
        matrix = root.T @ root
        if count == 2 and trial % 2:  # Two values need no convex loss.
            matrix = matrix - 2 * np.eye(n)
        loss = Quadratic(matrix, -2 * target @ root, 1.5)
        start = Problem(lists, seed=trial).start
        problem = Problem(lists, start=start, fixed=np.arange(n) < (n > 1))
        reported = [start]
        solution = loss.exact(
            problem, 5, start, lambda codes, all=reported: all.append(codes.copy())
        )
        np.testing.assert_array_equal(reported[-1], solution.codes)
        best = loss(vectors_of(problem)).min()
        assert solution.proved
        assert solution.bound == solution.loss == pytest.approx(best, abs=1e-8)
        np.testing.assert_allclose(loss(problem.values(solution.codes)[None]), best, atol=1e-8)
    concave, problem = Quadratic(-np.eye(3)), Problem([1, 2, 3], 3)
    assert concave.exact(problem, 1, problem.start, ignore) is None


def test_the_depth_first_search_alone(random, monkeypatch):
    monkeypatch.setattr(sphere_decoding, "WIDTHS", ())
    for trial in range(60):
        root, target = random.normal(size=(6, 5)), random.normal(size=6)
        loss = Quadratic(root.T @ root, -2 * target @ root)
        start = Problem([1, -1, 0.5, -0.5], 5, seed=trial).start
        problem = Problem([1, -1, 0.5, -0.5], 5, start, (np.arange(5) == 1) & (trial % 2 == 1))
        solution = loss.exact(problem, 5, start, ignore)
        assert solution.bound == pytest.approx(loss(vectors_of(problem)).min(), abs=1e-8)
        assert loss(problem.values(solution.codes)[None])[0] == solution.bound
        # Without time nothing is proved.
        stopped = loss.exact(problem, 0, start, ignore)
        assert stopped.bound is None
        assert not stopped.proved


LISTS = {
    "complex": lambda random, k: random.normal(size=k) + 1j * random.normal(size=k),
    "on a grid": lambda random, k: random.integers(-2, 3, k) + 1j * random.integers(-2, 3, k),
    "real": lambda random, k: random.normal(size=k),
    "integers": lambda random, k: random.integers(-2, 3, k).astype(float),
    "phases": lambda random, k: np.exp(2j * np.pi * np.arange(k) / k),
}


@pytest.mark.parametrize("kind", LISTS)
@pytest.mark.parametrize("constant", [0, 0.3, 1 + 1j])
def test_the_largest_magnitude_of_all(kind, constant, random):
    for trial in range(40):
        lists = [list(LISTS[kind](random, k)) for k in random.integers(1, 6, 4)]
        start = np.array([random.integers(len(row)) for row in lists])
        problem = Problem(lists, None, start, random.random(4) < 0.25)
        parts = [random.normal(size=4), random.integers(-1, 2, 4)]
        loss = Magnitude(parts[trial % 2] + 1j * (trial % 3) * random.normal(size=4), constant)
        solution = loss.exact(problem, 1.0, problem.start, ignore)
        assert solution.proved
        assert solution.bound == pytest.approx(loss(vectors_of(problem)).min(), abs=1e-12)
        assert loss(problem.values(solution.codes)[None])[0] == solution.bound
        assert (solution.codes < problem.lengths).all()
        np.testing.assert_array_equal(solution.codes[problem.fixed], start[problem.fixed])


def test_magnitudes_of_many_terms(random):
    vector = random.normal(size=500) + 1j * random.normal(size=500)
    problem = Problem(np.exp(2j * np.pi * np.arange(64) / 64), 500)
    solution = Magnitude(vector).exact(problem, 1.0, problem.start, ignore)
    whole = np.abs(vector).sum()
    assert whole * np.cos(np.pi / 64) <= -solution.bound <= whole


@pytest.fixture
def filters(random):
    lists = [[-1, 0.5, 2]] * 5 + [[1.0, 3.0]]
    loss = Minimax(random.normal(size=(20, 6)), random.normal(size=20), np.arange(20))
    return loss, Problem(lists)


def test_the_least_maximum(filters):
    loss, problem = filters
    best = loss(vectors_of(problem)).min()
    solution = loss.exact(problem, 60, problem.start, ignore)
    assert solution.proved
    assert solution.loss == pytest.approx(best)
    assert loss.bound(problem) <= best
    fixed = Problem([row[:k] for row, k in zip(problem.lists, problem.lengths, strict=True)],
                    None, problem.start, np.arange(6) < 3)  # fmt: skip
    solution = loss.exact(fixed, 60, fixed.start, ignore)
    assert solution.proved
    assert solution.bound == pytest.approx(loss(vectors_of(fixed)).min(), rel=1e-5)
    np.testing.assert_array_equal(solution.codes[:3], problem.start[:3])


def test_a_solver_that_stops_early_proves_nothing(filters, monkeypatch):
    loss, problem = filters
    best = loss.exact(problem, 60, problem.start, ignore)
    stopped = ProgramResult(best.codes, best.loss - 0.1)
    monkeypatch.setattr(minimax.minimax_program, "solve", lambda *_: stopped)
    solution = loss.exact(problem, 1, problem.start, ignore)
    assert solution.bound == best.loss - 0.1
    assert not solution.proved


def test_a_proof_is_as_exact_as_the_loss(monkeypatch):
    """However bad the vector was that it began from."""
    loss, problem = Minimax([[1.0]], [1.0]), Problem([0, 1, 1 + 1e-7], 1, [0])
    near = ProgramResult(np.array([2]), 0.0)
    monkeypatch.setattr(minimax.minimax_program, "solve", lambda *_: near)
    assert not loss.exact(problem, 1, problem.start, ignore).proved
