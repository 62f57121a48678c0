"""A plain function that is a largest of sums, or a sum of absolute values, is searched as such."""

import numpy as np
import pytest

from quantal import Constraints
from quantal._optimize.budget import Budget, Spending
from quantal._optimize.methods.absolute_sum_fit import fit_absolute_sum
from quantal._optimize.methods.largest_fit import fit_largest, stand_in_of
from quantal._optimize.methods.surface import LONG_LINE, SHORT_LINE, Surface
from quantal.objectives import Minimax
from quantal.objectives.problem import Problem
from searches import search, search_by_ticks

pytestmark = pytest.mark.without_keras
N, ROWS = 24, 30
QUARTERS = np.exp(2j * np.pi / 4 * np.arange(4))
LISTS = {"signs": [1, -1], "uneven": [0.3, 2, -0.1], "large": [-1e3, 1e5], "phases": QUARTERS}
FORMS = {
    "itself": lambda x: x,
    "square": lambda x: x**2,
    "decibels": lambda x: 20 * np.log10(x),
    "logarithm": lambda x: np.log(x) - 3,
}


def normal(random, *shape):
    return random.normal(size=shape)


def complex_normal(random, *shape):
    return normal(random, *shape) + 1j * normal(random, *shape)


def surface_of(function, problem):
    spending = Spending(Budget(evaluations=10**7))
    return Surface(problem, function, lambda vectors: None, spending), spending


def fitted_largest(function, problem):
    """The pieces of a function, with the stand-in that they make."""
    surface, spending = surface_of(function, problem)
    random = np.random.default_rng(0)
    points = surface.probes(problem, random, SHORT_LINE)
    form = surface.looks_affine(points, surface.at(points))
    are_squares = form is None
    if are_squares:
        form = surface.looks_quadratic(surface.at(surface.probes(problem, random, LONG_LINE)))
    if form is None:
        return None
    surface.form = form
    pieces = fit_largest(surface, problem, are_squares, spending, 0.0)
    return None if pieces is None else stand_in_of(pieces, surface, problem)


def agree(stand_in, function, problem, share=1.0):
    """Assert that a stand-in gives what a function does, at most of some random vectors."""
    random = np.random.default_rng(5)
    vectors = problem.values(np.stack([problem.draw(random) for _ in range(100)]))
    numbers = stand_in.offset + stand_in.slope * stand_in.objective(vectors)
    near = np.abs(stand_in.form.function(function(vectors)) - numbers) <= stand_in.tolerance
    assert near.mean() >= share


@pytest.mark.parametrize("lists", LISTS.values(), ids=LISTS)
@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
@pytest.mark.product
def test_the_largest_magnitude_of_sums_is_recognized(form, lists, random):
    rows, constant = normal(random, ROWS, N), normal(random, ROWS)
    turned = complex_normal(random, ROWS, N)
    problem = Problem(lists, N)
    functions = [
        lambda v: form(np.abs((v @ rows.T).real + constant).max(axis=1)),
        lambda v: form(np.abs(v @ turned.T + 1).max(axis=1)),
    ]
    for function in functions:
        stand_in = fitted_largest(function, problem)
        agree(stand_in, function, problem, share=0.7)  # The others are completed in a search.
        assert stand_in.objective.matrix.shape[0] <= 2 * ROWS


@pytest.mark.parametrize("lists", LISTS.values(), ids=LISTS)
def test_a_largest_sum_that_is_not_absolute_is_recognized(lists, random):
    rows, problem = complex_normal(random, ROWS, N), Problem(lists, N)

    def function(v):
        return (v @ rows.T + 1).real.max(axis=1)

    stand_in = fitted_largest(function, problem)
    assert type(stand_in.objective).__name__ == "Sums"
    agree(stand_in, function, problem, share=0.7)


SUMS_OF_ABSOLUTES = {
    "sum": lambda s: np.abs(s).sum(axis=1),
    "mean and more": lambda s: np.abs(s[:, 3:]).mean(axis=1) + s[:, 0],
    "hinges": lambda s: np.maximum(1 - s, 0).sum(axis=1),
    "square": lambda s: np.abs(s).sum(axis=1) ** 2,
    "logarithm": lambda s: np.log(np.abs(s).sum(axis=1)),
}


@pytest.mark.parametrize("lists", LISTS.values(), ids=LISTS)
@pytest.mark.parametrize("form", SUMS_OF_ABSOLUTES.values(), ids=SUMS_OF_ABSOLUTES)
@pytest.mark.product
def test_a_sum_of_absolute_values_is_recognized(form, lists, random):
    rows = complex_normal(random, ROWS, N)
    rows[:5] = np.sign(rows[:5].real)  # Sums of signs are often zero at the lists' vectors.
    problem = Problem(lists, N)

    def function(v):
        return form((v @ rows.T).real)

    surface, spending = surface_of(function, problem)
    points = surface.probes(problem, np.random.default_rng(0), SHORT_LINE)
    surface.form = surface.looks_affine(points, surface.at(points))
    agree(fit_absolute_sum(surface, problem, spending, 0.0), function, problem)


OTHERS = {
    "quadratic": lambda s: np.square(s).sum(axis=1),
    "negative": lambda s: -np.abs(s).max(axis=1),
    "network": lambda s: np.maximum(s, 0) @ np.where(np.arange(ROWS) % 2, 1, -1),
    "counts": lambda s: (s > 0).sum(axis=1) * 1.0,
    "smooth": lambda s: np.tanh(s).sum(axis=1),
    "norm": lambda s: (s**4).sum(axis=1) ** 0.25,
    "constant": lambda s: np.ones(len(s)),
    "nan": lambda s: np.full(len(s), np.nan),
    "infinite": lambda s: np.full(len(s), np.inf),
}


@pytest.mark.parametrize("form", OTHERS.values(), ids=OTHERS)
def test_other_functions_are_neither(form, random):
    rows, problem = normal(random, ROWS, N), Problem([1, -1], N)

    def function(v):
        return form(v @ rows.T + 0.1)

    assert fitted_largest(function, problem) is None
    surface, spending = surface_of(function, problem)
    assert fit_absolute_sum(surface, problem, spending, 0.0) is None


def test_a_function_is_searched_as_the_objective_that_it_is(random):
    rows, constant = normal(random, ROWS, N), normal(random, ROWS)
    named = search(Minimax(rows, -constant), [1, -1], N, 100_000)
    result = search(lambda v: np.abs(v @ rows.T + constant).max(axis=1), [1, -1], N, 100_000)
    assert result.loss == pytest.approx(named.loss)
    assert "quantal.objectives.Minimax" in result.note
    result = search(lambda v: np.abs(v @ rows.T + constant).sum(axis=1), [1, -1], N, 50_000)
    assert f"quantal.objectives.Sums with {ROWS + 1} sums" in result.note


def test_what_is_proved_of_the_stand_in_ends_the_search(random):
    rows, target = np.diag(random.uniform(1, 2, 30)), normal(random, 30)
    rows[:, 0] += 1

    def function(v):
        return np.abs(v @ rows.T - target).max(axis=1)

    best = search_by_ticks(Minimax(rows, target), [-1, 1], 30, 20_000)
    assert best.proved
    result = search_by_ticks(function, [-1, 1], 30, 20_000)
    assert result.loss == pytest.approx(best.loss, rel=1e-5)
    assert not result.proved  # The function may differ elsewhere.


def test_groups_and_fixed_elements(random):
    rows = normal(random, ROWS, N)
    lists = [[-1.0, 1.0, 0.5]] * (N // 2) + [[-2.0, 2.0, 1.0]] * (N // 2)
    together = Constraints(groups=np.arange(N) % (N // 2), fixed=np.arange(N) % (N // 2) < 2)
    arguments = {"constraints": together, "start": np.zeros(N, int), "evaluations": 50_000}
    named = search(Minimax(rows, np.ones(ROWS)), lists, **arguments)
    result = search(lambda v: np.abs(v @ rows.T - 1).max(axis=1), lists, **arguments)
    assert result.loss <= named.loss * (1 + 1e-9)
    assert (result.codes[:2] == 0).all()


def test_pieces_that_random_vectors_do_not_show_are_added(random):
    """Good vectors are bounded by a row that is the largest at few random ones."""
    rows = normal(random, ROWS, N)
    hidden = np.full(N, 0.4)

    def function(v):
        return np.maximum(np.abs(v @ rows.T).max(axis=1), v @ hidden + 3)

    result = search(function, [1, -1], N, 60_000)
    assert result.loss == pytest.approx(function(result.vector[None])[0])
    rival = search(lambda v: function(np.sign(v)), [1, -1], N, 60_000)  # It has no slopes.
    assert result.loss <= rival.loss + 1e-9


def test_functions_that_raise_between_the_values_are_searched(random):
    rows = normal(random, ROWS, N)

    def function(v):
        if not np.isin(v, [1, -1]).all():
            raise RuntimeError("no sign")
        return np.abs(v @ rows.T).max(axis=1)

    result = search(function, [1, -1], N, 20_000)
    assert not result.note
    assert result.loss < 20


def test_notes_name_what_would_fit(random):
    rows = complex_normal(random, ROWS, N)
    result = search(lambda v: np.abs(v @ rows.T + 1).sum(axis=1), QUARTERS, N, 20_000)
    assert "norm of magnitudes of sums" in result.note
    signs = np.where(np.arange(ROWS) % 2, 1, -1)
    result = search(lambda v: np.maximum((v @ rows.T).real, 0) @ signs, [1, -1], N, 20_000)
    assert "affine in parts" in result.note
    assert "quantal.objectives.Sums" in result.note
