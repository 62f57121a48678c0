"""A plain function that is the magnitude of a sum is recognized, and solved as `Magnitude` is."""

import numpy as np
import pytest

from quantal import Constraints
from quantal._optimize.methods.increasing import ThirdDifferences
from quantal._optimize.methods.magnitude_fit import fit_magnitude
from quantal.objectives import Magnitude
from quantal.objectives.problem import Problem
from searches import search

pytestmark = pytest.mark.without_keras
N = 24


def phases(count):
    return np.exp(2j * np.pi / count * np.arange(count))


def normal(random, count=N):
    return random.normal(size=count) + 1j * random.normal(size=count)


LISTS = {
    "phases": phases(4),
    "many phases": phases(9),
    "signs": [1, -1],
    "uneven": [0.3, 2, -0.1],
    "one for each": [phases(2 + i % 5) * (1 + i % 3) for i in range(N)],
}
FORMS = {
    "magnitude": lambda s: -s,
    "square": lambda s: -(s**2),
    "constants": lambda s: 7 - 0.3 * s,
    "decibels": lambda s: -20 * np.log10(s),
    "bits": lambda s: -np.log2(1 + 0.2 * s**2),
    "reciprocal": lambda s: 1 / s,
    "reciprocal of a square": lambda s: 3 / s**2,
    "float32": lambda s: (-s).astype(np.float32),
}


@pytest.mark.parametrize("lists", LISTS.values(), ids=LISTS)
@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
@pytest.mark.product
def test_every_form_of_a_magnitude_is_solved(form, lists, random):
    vector, constant = normal(random), 2 + 1j
    n = None if np.ndim(lists[0]) else N
    best = search(Magnitude(vector, constant), lists, n)
    assert best.proved
    result = search(lambda v: form(abs(v @ vector + constant)), lists, n)
    np.testing.assert_allclose(result.loss, form(np.abs(best.loss)), rtol=1e-6)
    assert result.evaluations < 1000  # of 5000: nothing was left to search
    assert not result.proved  # the function may differ elsewhere


def test_real_numbers_angles_and_groups(random):
    vector, angles = random.normal(size=N), 2 * np.pi / 5 * np.arange(5)
    best = search(Magnitude(vector, 0.3), [1, 0, -2], N)
    result = search(lambda v: -np.abs(v @ vector + 0.3), [1, 0, -2], N)
    assert result.loss == pytest.approx(best.loss)
    assert result.evaluations < 1000
    best = search(Magnitude(vector), phases(5), N)
    result = search(lambda v: -np.abs(np.exp(1j * v) @ vector), angles, N)
    assert result.loss == pytest.approx(best.loss)
    together = Constraints(groups=np.arange(N) // 2, fixed=np.arange(N) < 4)
    arguments = {"constraints": together, "start": np.zeros(N, int)}
    best = search(Magnitude(vector, 1j), phases(4), N, **arguments)
    result = search(lambda v: -np.abs(v @ vector + 1j), phases(4), N, **arguments)
    assert result.loss == pytest.approx(best.loss)
    assert (result.codes[:4] == 0).all()


@pytest.mark.parametrize(
    "loss",
    [
        lambda v: np.cbrt(np.abs(v.sum(axis=1))),
        lambda v: v.real.sum(axis=1) ** 3,
        lambda v: -np.maximum(np.abs(v[:, :9].sum(axis=1)), np.abs(v[:, 9:].sum(axis=1))),
        lambda v: np.zeros(len(v)),
        lambda v: np.full(len(v), np.nan),
    ],
    ids=["root", "cubes", "maximum", "constant", "nan"],
)
def test_few_vectors_reject_other_losses(loss):
    problem, evaluated = Problem(phases(7), 100), []

    def losses(codes):
        evaluated.append(len(codes))
        return loss(problem.values(codes))

    assert fit_magnitude(losses, problem, lambda count: True) is None
    assert sum(evaluated) <= 32


@pytest.mark.parametrize("sign", [1, -1])
def test_other_quadratic_losses_are_no_magnitude(sign, random):
    problem, rows = Problem(phases(4), 30), np.stack([normal(random, 30) for _ in range(3)])

    def losses(codes):
        return sign * (np.abs(problem.values(codes) @ rows.T) ** 2).sum(axis=1)

    assert fit_magnitude(losses, problem, lambda count: True) is None
    # One term is, if it is to be large.
    rows = rows[:1]
    assert (fit_magnitude(losses, problem, lambda count: True) is None) == (sign == 1)


def test_a_note_names_the_objective_that_would_fit(random):
    rows = np.stack([normal(random, 30) for _ in range(3)])
    result = search(lambda v: (np.abs(v @ rows.T) ** 2).sum(axis=1), phases(4), 30)
    assert "looks like a quadratic function of sums" in result.note
    assert "quantal.objectives.Sums" in str(result)
    assert "Quadratic" not in result.note  # which is for real lists
    assert not search(lambda v: np.cbrt(v.real.sum(axis=1)), phases(4), 30).note


def test_what_the_budget_does_not_afford_is_not_evaluated(random):
    problem, vector, asked = Problem(phases(4), 30), normal(random, 30), []

    def losses(codes):
        return -np.abs(problem.values(codes) @ vector)

    def affords(count):
        asked.append(count)
        return len(asked) < 2

    assert fit_magnitude(losses, problem, affords) is None
    assert asked == [32, 3 * (90 + 2) + 192]


def test_a_solution_at_which_the_function_differs_is_a_start_alone(random):
    vector = random.uniform(1, 2, N)

    def penalized(v):  # where all agree, as random vectors do not
        return -np.abs(v @ vector) + 1e3 * (np.abs(v.sum(axis=1)) == N)

    result = search(penalized, [1, -1], N)
    assert result.loss == pytest.approx(-(vector.sum() - 2 * vector.min()))


def test_third_differences_take_the_exact_form_first(random):
    problem, vector = Problem(phases(4), 30), normal(random, 30)
    differences = ThirdDifferences(problem, random)

    def losses(codes):  # The loss itself is nearly quadratic, too.
        return -np.abs(problem.values(codes) @ vector + 1e3)

    forms = differences.quadratic_forms(losses(differences.codes))
    assert forms[0].name == "a negative magnitude"
    assert fit_magnitude(losses, problem, lambda count: True) is not None
