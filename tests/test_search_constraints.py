"""Constraints are met: totals, counts, groups, fixed elements."""

import numpy as np
import pytest
from scipy.sparse import csr_array

from quantal._optimize.constraints import Constraints
from quantal._optimize.linear_constraints import LinearConstraints
from quantal._optimize.search import choice
from quantal.objectives import Autocorrelation, Magnitude, Minimax, Quadratic
from quantal.objectives.groups import Groups
from quantal.objectives.problem import Problem
from searches import every_vector, random_quadratic, search, search_by_ticks

pytestmark = pytest.mark.without_keras

# Fewer evaluations than vectors, so that there is a search; more, so that all are evaluated.
BOTH = pytest.mark.parametrize("evaluations", [6000, 20_000])
KNOWN = pytest.mark.parametrize("known", [True, False])


@BOTH
@KNOWN
def test_totals_and_counts(evaluations, known, random):
    loss = random_quadratic(random, 8)
    given = loss if known else loss.__call__
    rows = every_vector([[-1, 0, 2]] * 8)
    for constraints, kept in (
        (Constraints(counts={2: 3}), (rows == 2).sum(1) == 3),
        (Constraints(total=3), rows.sum(1) == 3),
        (
            Constraints(total=3, counts={0: 2, 2: 3}),
            (rows.sum(1) == 3) & ((rows == 0).sum(1) == 2),
        ),
    ):
        result = search(given, [-1, 0, 2], 8, evaluations, constraints=constraints)
        assert result.loss == pytest.approx(loss(rows[kept]).min(), rel=1e-5)
        assert (result.vector[None] == rows[kept]).all(axis=1).any()
    # One element could go up and down by as much.
    rows = every_vector([[-1, 0, 1]] * 8)
    for total in (0, 5):
        result = search(given, [-1, 0, 1], 8, evaluations, constraints=Constraints(total=total))
        assert result.vector.sum() == total
        assert result.loss == pytest.approx(loss(rows[rows.sum(1) == total]).min(), rel=1e-5)


@pytest.mark.parametrize("enumerated", [0, 2**17])
@KNOWN
def test_what_is_fixed_stays(enumerated, known, random, monkeypatch):
    monkeypatch.setattr(choice, "ENUMERATED", enumerated)
    loss, fixed = random_quadratic(random), np.arange(9) < 4
    start = random.integers(0, 3, 9)
    result = search(
        loss if known else loss.__call__, [1, 0, -1], 9, start=start,
        constraints=Constraints(fixed=fixed),
    )  # fmt: skip
    np.testing.assert_array_equal(result.codes[fixed], start[fixed])
    head = [[row] for row in np.array([1, 0, -1])[start[:4]]]
    best = loss(every_vector([*head, *[[1, 0, -1]] * 5])).min()
    assert result.loss == pytest.approx(best, rel=1e-5)


def test_constraints_that_no_vector_satisfies(random):
    loss = random_quadratic(random, 8)
    with pytest.raises(ValueError, match="No vector was found whose total"):
        search(loss, [1, -1], constraints=Constraints(total=3))
    with pytest.raises(ValueError, match="which is in no list"):
        search(loss, [1, -1], constraints=Constraints(counts={0.5: 3}))
    for total in (np.nan, 1j):
        with pytest.raises(ValueError, match="Expected finite numbers"):
            search(loss, [1, -1], constraints=Constraints(total=total))
    with pytest.raises(ValueError, match="No vector was found"):
        search(
            Quadratic(np.eye(2)), [1, -1], start=[0, 1],
            constraints=Constraints(total=2, fixed=[True, True]),
        )  # fmt: skip


LABELS = np.minimum(np.arange(8), 7 - np.arange(8))


@KNOWN
def test_groups_move_together(known, random):
    loss = random_quadratic(random, 8)
    given = loss if known else lambda v: loss(v) + 0 * v[:, 0]
    half = every_vector([[-1, 0.5, 2]] * 4)
    named = {"evaluations": 70, "constraints": Constraints(groups=LABELS)}
    if known:
        named["evaluations"] = 80  # Fewer than 81, so that there is a search.
    result = search(given, [-1, 0.5, 2], 8, **{**named, "seed": 1})
    np.testing.assert_array_equal(result.vector, result.vector[::-1])
    named["evaluations"] = 3000
    result = search(given, [-1, 0.5, 2], 8, **named)
    assert result.loss == pytest.approx(loss(np.hstack([half, half[:, ::-1]])).min(), rel=1e-5)
    # Antisymmetry: the negative values in the same order.
    lists = [[-1, 0.5, 2]] * 4 + [[1, -0.5, -2]] * 4
    result = search(given, lists, **named)
    np.testing.assert_array_equal(result.vector, -result.vector[::-1])
    assert result.loss == pytest.approx(loss(np.hstack([half, -half[:, ::-1]])).min(), rel=1e-5)
    # Lists that are no multiples of each other.
    lists = [[-1, 0.5, 2]] * 4 + [[3, 1, 0]] * 4
    result = search(given, lists, **named)
    other = np.select([half == -1, half == 0.5], [3, 1], 0)
    assert result.loss == pytest.approx(loss(np.hstack([half, other[:, ::-1]])).min(), rel=1e-5)


@KNOWN
def test_groups_are_searched(known, random):
    """More vectors than evaluations."""
    loss = random_quadratic(random, 16)
    labels = np.minimum(np.arange(16), 15 - np.arange(16))
    given = loss if known else lambda v: np.sign(loss(v)) * np.abs(loss(v)) ** 1.5
    result = search(given, [-1, 0.5, 2], 16, 6000, constraints=Constraints(groups=labels))
    best = given(every_vector([[-1, 0.5, 2]] * 8)[:, labels]).min()
    assert result.loss == pytest.approx(best, rel=1e-5)


def test_groups_that_cannot_be(random):
    loss = random_quadratic(random, 8)
    with pytest.raises(ValueError, match="moves together with"):
        search(loss, [[1, 2]] * 7 + [[1, 2, 3]], constraints=Constraints(groups=LABELS))
    with pytest.raises(ValueError, match="groups has the shape"):
        search(loss, [1, 2], constraints=Constraints(groups=[1]))


def test_groups_are_proved_too(random, monkeypatch):
    monkeypatch.setattr(choice, "ENUMERATED", 0)
    labels = np.minimum(np.arange(12), 11 - np.arange(12))
    rows = every_vector([[1, -1, 0.5]] * 6)[:, labels]
    losses = {
        "minimax": Minimax(random.normal(size=(20, 12)), random.normal(size=20)),
        "magnitude": Magnitude(random.normal(size=12) + 1j, 0.3),
        "quadratic": Quadratic(np.diag(random.uniform(1, 2, 12)), random.normal(size=12)),
        "sparse": Quadratic(csr_array(np.diag(random.uniform(1, 2, 12))), random.normal(size=12)),
    }
    groups = Constraints(groups=labels)
    for loss in losses.values():
        result = search_by_ticks(loss, [1, -1, 0.5], constraints=groups)
        assert result.proved
        assert result.loss == pytest.approx(loss(rows).min())
        assert result.bound <= result.loss


def test_complex_groups_of_the_largest_error(random):
    loss, phases = Minimax(random.normal(size=(5, 6)), np.ones(5)), [1, 1j, -1, -1j]
    lists = [phases] * 3 + [[1j * value for value in phases]] * 3
    groups = Constraints(groups=np.arange(6) % 3)
    half = every_vector([phases] * 3)
    best = loss(np.hstack([half, 1j * half])).min()
    result = search(loss, lists, evaluations=60, constraints=groups)
    assert result.bound is None
    assert search(loss, phases, evaluations=60).bound is None
    assert search(loss, lists, constraints=groups).loss == pytest.approx(best)


def test_structure_that_groups_do_not_keep():
    """The energy of the groups is none of their own values'; whole vectors are evaluated."""
    labels = np.arange(14) // 2
    loss = Autocorrelation(14)
    result = search(loss, [1, -1], evaluations=100, constraints=Constraints(groups=labels))
    best = loss(every_vector([[1, -1]] * 7)[:, labels]).min()
    assert result.loss >= best
    assert search(loss, [1, -1], constraints=Constraints(groups=labels)).loss == best


def test_a_total_of_uneven_values_is_kept(random):
    loss = random_quadratic(random, 100)
    total = Constraints(total=150)
    result = search(loss, [1, 2, 3, 1e7], constraints=total)
    assert result.vector.sum() == 150
    # Sums of such numbers have a rounding of 10; small steps do not lead beyond it.
    result = search(loss, [1, 2, 3, 1e13], constraints=total)
    assert abs(result.vector.sum() - 150) <= 10


def test_constraints_that_few_vectors_meet(random):
    """None of those that are drawn is repaired: the start is what there is to go on from."""
    lists = [list(row) for row in random.normal(size=(40, 3))]
    start = random.integers(0, 3, 40)
    total = sum(row[code] for row, code in zip(lists, start, strict=True))
    loss = Quadratic(random.normal(size=(40, 40)))
    result = search(loss, lists, 40, 5, start=start, constraints=Constraints(total=total))
    np.testing.assert_array_equal(result.codes, start)


def test_many_elements_are_repaired_at_once(random):
    problem = Problem([1, -1], 3000)
    constraints = LinearConstraints(Groups(problem, None), problem.lists, None, {1: 100})
    effects, calls = constraints.effects, []
    constraints.effects = lambda codes: calls.append(1) or effects(codes)
    codes = constraints.repaired(problem.start, random)
    assert (codes == 0).sum() == 100
    assert 0 < len(calls) < 20
