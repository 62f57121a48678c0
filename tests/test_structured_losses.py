"""Losses with a structure: exact values, exact differences, exact methods."""

import itertools

import numpy as np
import pytest

from quantal.objectives.magnitude import Magnitude
from quantal.objectives.problem import Problem

pytestmark = pytest.mark.without_keras


def every_vector(problem):
    """The codes of all vectors that keep what is fixed."""
    ranges = [
        [start] if fixed else range(length)
        for start, fixed, length in zip(problem.start, problem.fixed, problem.lengths, strict=True)
    ]
    return np.array(list(itertools.product(*ranges)))


def random_problem(lists, random, share=0.25):
    """A problem where some elements are fixed."""
    start = np.array([random.integers(len(row)) for row in lists])
    return Problem(lists, None, start, random.random(len(lists)) < share, 0)


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
        problem = random_problem(lists, random)
        parts = [random.normal(size=4), random.integers(-1, 2, 4)]
        vector = parts[trial % 2] + 1j * (trial % 3) * random.normal(size=4)
        loss = Magnitude(vector, constant)
        found = loss.solved(problem, 1.0, problem.start, None)
        best = loss(problem.values(every_vector(problem))).min()
        assert found.bound == pytest.approx(best, abs=1e-12)
        assert loss(problem.values(found.codes)[None])[0] == found.bound
        assert (found.codes < problem.lengths).all()
        np.testing.assert_array_equal(found.codes[problem.fixed], problem.start[problem.fixed])


def test_magnitudes_of_many_terms(random):
    vector = random.normal(size=500) + 1j * random.normal(size=500)
    phases = np.exp(2j * np.pi * np.arange(64) / 64)
    loss = Magnitude(vector)
    problem = Problem(phases, 500, None, None, 0)
    found = loss.solved(problem, 1.0, problem.start, None)
    whole = np.abs(vector).sum()
    assert whole * np.cos(np.pi / 64) <= -found.bound <= whole
    assert loss.mirrors(problem)[3].tolist() == [*range(32, 64), *range(32)]
    assert Magnitude(vector, 1).mirrors(problem) is None


REFUSED = {
    "vector has the shape": lambda: Magnitude([[1.0]]),
    "not finite": lambda: Magnitude([1.0], np.inf),
}


@pytest.mark.parametrize("words", REFUSED)
def test_bad_input(words):
    with pytest.raises(ValueError, match=words):
        REFUSED[words]()
