"""Search reaches the best vector where it is known, and says what it knows."""

import json
import math
import tracemalloc

import numpy as np
import pytest
from scipy.sparse import csr_array

import quantal
from quantal._optimize import remembered_losses
from quantal._optimize.budget import Budget, Spending
from quantal._optimize.constraints import Constraints
from quantal._optimize.remembered_losses import RememberedLosses
from quantal._optimize.search import choice
from quantal._optimize.search.negative import negative_of
from quantal._optimize.search.search import run
from quantal._optimize.search.task import Settings, parse
from quantal.objectives import Autocorrelation, Magnitude, Minimax, Objective, Quadratic, Sums
from searches import LISTS, TickingClock, every_vector, random_quadratic, search, search_by_ticks

pytestmark = pytest.mark.without_keras
ALL = pytest.mark.parametrize("lists", LISTS.values(), ids=LISTS)


@pytest.fixture
def no_enumeration(monkeypatch):
    monkeypatch.setattr(choice, "ENUMERATED", 0)


@ALL
def test_few_vectors_are_enumerated(lists, random):
    loss = random_quadratic(random, 7)
    result = search(loss, lists, evaluations=20_000)
    assert result.proved
    best = loss(every_vector([lists] * 7)).min()
    assert result.loss == result.bound == pytest.approx(best)
    np.testing.assert_allclose(loss(result.vector[None]), [result.loss])
    np.testing.assert_array_equal(np.array(lists)[result.codes], result.vector)


def test_nothing_is_proved_where_some_were_not_evaluated(random):
    loss = random_quadratic(random, 14)
    result = search(loss.__call__, [1, -1], 14, 5000)
    assert result.evaluations < 2**14
    assert result.bound is None
    assert not result.proved


@ALL
@pytest.mark.parametrize("known", [True, False])
def test_the_best_is_reached_by_steps(lists, known, random, no_enumeration):
    loss = random_quadratic(random)
    result = search(loss if known else loss.__call__, lists, 9, 10_000)
    best = loss(every_vector([lists] * 9)).min()
    assert result.loss == pytest.approx(best, rel=1e-5)
    np.testing.assert_allclose(loss(result.vector[None]), [result.loss], rtol=1e-5)
    losses = [loss for _, loss in result.history]
    assert losses == sorted(losses)[::-1]
    assert (result.bound is not None) == known


def test_deltas_stay_exact_over_many_steps(random):
    loss, lists = Quadratic(random.normal(size=(60, 60))), [1, -1, 0.5]
    result = search(loss, lists, evaluations=500_000)
    np.testing.assert_allclose(loss(result.vector[None]), [result.loss], rtol=1e-12)
    # No single change is better: the last descent came to its end.
    for i in range(60):
        others = np.tile(result.vector, (3, 1))
        others[:, i] = lists
        assert loss(others).min() >= result.loss - 1e-9


def test_phases(random, no_enumeration):
    channel = random.normal(size=5) + 1j * random.normal(size=5)
    phases = np.exp(2j * np.pi * np.arange(4) / 4)

    def loss(v):
        return -np.abs(v @ channel)

    result = search(loss, phases, 5)
    assert result.loss == pytest.approx(loss(every_vector([phases] * 5)).min(), rel=1e-5)
    assert np.iscomplexobj(result.vector)
    with pytest.raises(ValueError, match="The lists are complex"):
        search(Quadratic(np.eye(5)), phases)


def test_never_worse_than_the_start(random):
    """By so few evaluations that a search from another start would be worse."""
    loss = Quadratic(random.normal(size=(300, 300)))
    good = search(loss, [1, -1], evaluations=500_000)
    few = search(loss, [1, -1], evaluations=1)
    assert few.loss > good.loss + 100
    # Enough for the first steps from a second start, which is drawn.
    for evaluations in (1, 400_000):
        later = search(loss, [1, -1], evaluations=evaluations, start=good.codes)
        assert later.loss <= good.loss
    assert search(loss, [1, -1], evaluations=3000, start=few.codes).loss < few.loss


def test_sums_are_searched(random, no_enumeration):
    matrix, target = random.normal(size=(6, 9)), random.normal(size=6)
    loss = Sums(matrix, lambda sums: np.abs(sums).sum(axis=1), -target)
    rows = every_vector([[1, 0, -1]] * 9)
    assert search(loss, [1, 0, -1]).loss == pytest.approx(loss(rows).min())
    pairs = search(loss, [1, 0, -1], constraints=Constraints(counts={1: 4}))
    assert pairs.loss == pytest.approx(loss(rows[(rows == 1).sum(1) == 4]).min())


@pytest.mark.parametrize("periodic", [True, False])
@pytest.mark.parametrize("lists", [[1, -1], [1, -1, 0.5], [1, 1j, -1, -1j]], ids=str)
def test_autocorrelations_are_searched(periodic, lists, no_enumeration):
    loss, rows = Autocorrelation(7, periodic), every_vector([lists] * 7)
    result = search(loss, lists, evaluations=20_000)
    assert result.loss == pytest.approx(loss(rows).min(), abs=1e-9)
    fixed = Constraints(fixed=np.arange(7) < 3)
    result = search(loss, lists, 7, 20_000, start=np.ones(7, int), constraints=fixed)
    assert (result.codes[:3] == 1).all()
    kept = rows[(rows[:, :3] == lists[1]).all(1)]
    assert result.loss == pytest.approx(loss(kept).min(), abs=1e-9)


def test_a_linear_loss_is_proved(random):
    vector = random.normal(size=30)
    result = search_by_ticks(Quadratic(np.zeros((30, 30)), vector), [1, -1])
    assert result.proved
    assert "proved" in str(result)
    assert result.loss == pytest.approx(-np.abs(vector).sum())


def test_small_problems_are_proved(random):
    """More vectors than are enumerated."""
    result = search_by_ticks(Quadratic(random.normal(size=(24, 24))), [1, -1])
    assert result.proved
    assert result.loss == pytest.approx(result.bound)
    assert result.gap == 0


def test_minimax_is_proved(random, no_enumeration):
    lists = [[-1, 0.5, 2]] * 5 + [[1.0, 3.0]]
    loss = Minimax(random.normal(size=(20, 6)), random.normal(size=20), np.arange(20))
    result = search_by_ticks(loss, lists)
    assert result.proved
    assert result.loss == pytest.approx(loss(every_vector(lists)).min())


def test_a_relaxed_bound_that_is_met_proves(random):
    """The linear term decides: the relaxed optimum is a vector of the list."""
    vector = random.choice([-4.0, 4.1], 400)
    result = search(Quadratic(np.eye(400), vector), [0, 1, -1], evaluations=500_000)
    assert result.proved
    np.testing.assert_array_equal(result.vector, -np.sign(vector))


@pytest.mark.parametrize("unit", [1e-20, 1.0, 1e13])
def test_nothing_is_proved_by_rounding(unit, random):
    """A loss in another unit is searched and proved alike."""
    matrix = random.normal(size=(60, 60))
    result = search(Quadratic(unit * matrix), [1, -1], evaluations=100_000)
    shifted = Quadratic(unit * matrix, constant=1e6 * unit)
    assert not result.proved
    assert not search(shifted, [1, -1], evaluations=100_000).proved
    assert result.bound < 1.05 * result.loss < 0
    other = search(Quadratic(matrix), [1, -1], evaluations=100_000)
    assert result.loss == pytest.approx(unit * other.loss, rel=1e-9, abs=0)
    rows, target = random.normal(size=(30, 12)), random.normal(size=30)
    filters = Minimax(unit * rows, unit * target)
    result = search_by_ticks(filters, [1, -1, 0.5])
    assert result.proved
    assert result.bound <= filters(every_vector([[1, -1]] * 12)).min() * (1 + 1e-12)
    assert result.loss - result.bound <= 1e-5 * result.loss
    codes = search(Autocorrelation(18), [unit, -unit], evaluations=100_000)
    assert codes.loss == pytest.approx(25 * unit**4, rel=1e-9, abs=0)


def test_a_result_is_readable():
    result = search(Quadratic(np.eye(2)), [1, 2])
    assert str(result).startswith("loss 2 (proved), reached after 0.")
    assert str(result).endswith(" s, 6 evaluations")


REFUSED = {
    "n is None with one list": lambda: search(len, [1, -1]),
    "but there are 2 lists": lambda: search(len, [[1, 2], [3]], 3),
    "The objective is of 2 elements": lambda: search(Quadratic(np.eye(2)), [1, -1], 3),
    "budget has 0 seconds": lambda: quantal.search(Quadratic(np.eye(2)), [1, -1], budget=0),
    "budget is None": lambda: quantal.search(Quadratic(np.eye(2)), [1, -1], budget=None),
    "start has the shape": lambda: search(Quadratic(np.eye(2)), [1, -1], start=[0]),
    r"give their codes, \[0, 1\]": lambda: search(Quadratic(np.eye(2)), [1, -1], start=[1, -1]),
    r"start is \[0.5, 1.7\], float64. Expected codes": lambda: search(
        Quadratic(np.eye(2)), [1, -1], start=[0.5, 1.7]
    ),
    "0 to 1. Give codes": lambda: search(Quadratic(np.eye(2)), [1, -1], start=[0, 2]),
    "n is 2.5": lambda: search(len, [1, -1], 2.5),
    "fixed has the shape": lambda: search(
        Quadratic(np.eye(1)), [1], start=[0], constraints=Constraints(fixed=[True] * 2)
    ),
    r"dtype int64. Expected .2,., a boolean .*np.isin.np.arange.2., .0, 5": lambda: search(
        Quadratic(np.eye(2)), [1], start=[0, 0], constraints=Constraints(fixed=[0, 2])
    ),
    "fixed is given without start": lambda: search(
        Quadratic(np.eye(1)), [1], constraints=Constraints(fixed=[True])
    ),
    "so are those of 256": lambda: search(lambda v: v[:, 0] * np.nan, [1, 2], 2),
    "The loss gave the shape": lambda: search(lambda v: v, [1, 2], 2),
    r"gave numbers of dtype complex128. Expected real numbers, shape \(1,\)": lambda: search(
        lambda v: np.fft.fft(v)[:, 1], [1, -1], 9
    ),
    "The function of sums .* complex": lambda: search(
        Sums(np.eye(9), lambda sums: 1j * sums.sum(axis=1)), [1, -1]
    ),
    "The loss gave objects such as": lambda: search(
        lambda v: np.array([1j] * len(v), object), [1, -1], 9
    ),
    "The loss gave objects such as None": lambda: search(lambda v: None, [1, -1], 9),
    "The loss gave <U1": lambda: search(lambda v: np.array(["a"] * len(v)), [1, -1], 9),
    r"a single number for 1 vectors.*np.array\(\[f\(v\) for v in vectors\]\)": lambda: search(
        lambda v: float(np.abs(v).max()), [1, -1], 9
    ),
    r"raised IndexError .*shape \(1, 9\).*np.array\(\[f\(v\)": lambda: search(
        lambda v: v[0] * v[1], [1, -1], 9
    ),
    "raised ValueError .object too deep": lambda: search(
        lambda v: np.correlate(v, v).max(), [1, -1], 9
    ),
    "A list is": lambda: search(len, [1, np.nan], 2),
    "jobs is 0": lambda: search(len, [1, -1], 2, jobs=0),
    "jobs is 1.5": lambda: search(len, [1, -1], 2, jobs=1.5),
    "jobs is '2'": lambda: search(len, [1, -1], 2, jobs="2"),
    "seed is -1": lambda: search(len, [1, -1], 2, seed=-1),
    "seed is 0.5": lambda: search(len, [1, -1], 2, seed=0.5),
    "seed is None": lambda: search(len, [1, -1], 2, seed=None),
    "of a channel|A list is": lambda: search(len, [quantal.Values([[1, 2], [3, 4]], axis=0), [1]]),
}


@pytest.mark.parametrize("words", REFUSED)
def test_bad_input(words):
    with pytest.raises(ValueError, match=words):
        REFUSED[words]()


def test_constraints_of_another_type_are_refused():
    with pytest.raises(TypeError, match=r"constraints is \{'total': 0\}. Expected quantal.Constr"):
        search(len, [1, -1], 2, constraints={"total": 0})


class Unsound(Objective):
    """An objective of the user's whose methods return what a test says."""

    def __init__(self, losses, gradients=None):
        self._losses, self._gradients = losses, gradients

    def __len__(self):
        return 30

    def __call__(self, vectors):
        return self._losses(vectors)

    def gradients(self, vectors):
        return None if self._gradients is None else self._gradients(vectors)


@pytest.mark.parametrize(
    ("words", "objective"),
    [
        ("complex128", Unsound(lambda v: 1j * v.sum(axis=1))),
        ("a single number", Unsound(lambda v: v.sum())),
        ("gradients have the shape", Unsound(lambda v: np.sin(v.sum(axis=1)), lambda v: v[:, :3])),
    ],
    ids=["complex", "scalar", "gradients"],
)
def test_an_objective_of_the_user_is_checked(words, objective):
    with pytest.raises(ValueError, match=words):
        search(objective, [1, -1])


@pytest.mark.parametrize(
    "loss",
    [
        lambda v: v.sum(axis=1) > 0,
        lambda v: (v.sum(axis=1) > 0).astype(np.uint8),
        lambda v: [float(row.sum()) for row in v],
        lambda v: np.array([int(row.sum()) for row in v], object),
    ],
    ids=["boolean", "unsigned", "list", "objects"],
)
def test_losses_of_other_kinds_are_numbers(loss):
    result = search(loss, [1, -1], 5)
    assert result.proved
    assert result.loss == min(float(loss(row[None])[0]) for row in every_vector([[1, -1]] * 5))


def test_errors_of_a_function_say_how_it_was_called():
    def loss(v):
        raise RuntimeError("out of order")

    with pytest.raises(RuntimeError, match="out of order") as raised:
        search(loss, [1, -1], 9)
    assert "shape (1, 9)" in raised.value.__notes__[0]


def test_what_is_no_function():
    with pytest.raises(TypeError, match="objective is a list"):
        search([1, 2], [1, -1], 2)


@pytest.mark.parametrize(
    "objective",
    [
        Quadratic(np.random.default_rng(0).normal(size=(350, 350))),
        Sums(np.random.default_rng(0).normal(size=(5, 350)), lambda sums: np.abs(sums).sum(1)),
        Autocorrelation(35),
    ],
    ids=["compiled", "tabu", "walk"],
)
def test_evaluations_are_a_limit(objective):
    """A step is not cut in half, and the last loss is evaluated once more."""
    first, second = (search(objective, [1, -1], evaluations=200_000, seed=5) for _ in range(2))
    np.testing.assert_array_equal(first.codes, second.codes)
    assert first.evaluations == second.evaluations
    assert first.evaluations + len(objective) >= 200_000
    assert first.evaluations <= 200_001 + len(objective)


def test_nothing_is_evaluated_where_no_budget_is_left(random):
    """One loss is the first one, and one is the result's."""
    result = search(lambda v: np.abs(v.sum(axis=1)) ** 1.5, [1, -1], 60, evaluations=1)
    assert result.evaluations == 2


def test_measuring_seconds_spends_few_evaluations():
    """With both limits, and a clock that stands: no batch is large enough to be measured."""
    settings = Settings(Budget(seconds=1, evaluations=300), clock=lambda: 0.0)
    result = run(parse(lambda v: np.abs(v.sum(axis=1)), [1, -1], 60, None, None, settings))
    assert 250 < result.evaluations < 320


def test_a_loss_that_is_no_number_is_said_with_its_vector():
    groups = Constraints(groups=[0, 1, 1])
    with pytest.raises(ValueError, match=r"with \[3\.0, 4\.0, 4\.0\]"):
        search(lambda v: v[:, 0] * np.nan, [[3.0], [4.0], [4.0]], constraints=groups)


def test_a_file_is_gone_on_from(random, tmp_path):
    loss, path = Quadratic(random.normal(size=(350, 350))), tmp_path / "good.npz"
    first = search(loss, [1, -1], evaluations=500_000, seed=5, file=path)
    without = search(loss, [1, -1], evaluations=1, seed=6)
    later = search(loss, [1, -1], evaluations=1, seed=6, file=path)
    assert later.loss <= first.loss < without.loss
    with pytest.raises(ValueError, match="of another search"):
        search(loss, [1, 0], file=path)
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(ValueError, match="not readable"):
        search(loss, [1, -1], file=path)


def test_a_file_of_other_constraints_is_another_search(tmp_path, random):
    loss, path = random_quadratic(random, 30), tmp_path / "good.npz"
    fixed = Constraints(fixed=np.arange(30) < 3)
    search(loss, [1, -1], 30, 100, start=np.zeros(30, int), constraints=fixed, file=path)
    with pytest.raises(ValueError, match="of another search"):
        search(loss, [1, -1], 30, 100, start=np.ones(30, int), constraints=fixed, file=path)
    path.unlink()
    search(loss, [1, -1, 3], constraints=Constraints(total=10), file=path)
    with pytest.raises(ValueError, match="of another search"):
        search(loss, [1, -1, 3], constraints=Constraints(counts={1: 10}), file=path)
    with pytest.raises(ValueError, match="no folder"):
        search(loss, [1, -1], file=tmp_path / "none" / "good.npz")


def test_a_search_that_is_killed_leaves_its_file(tmp_path):
    path, calls = tmp_path / "good.npz", iter(range(1000))

    def loss(v):
        if next(calls) == 200:
            raise MemoryError("as if it were killed")
        return np.abs(v.sum(axis=1)) ** 1.5 + v[:, 0]

    settings = Settings(Budget(seconds=1e6), file=path, clock=TickingClock(1.0))
    task = parse(loss, [1, -1, 3], 60, None, None, settings)
    with pytest.raises(MemoryError):
        run(task)
    reached = task.incumbent.loss
    later = search(loss, [1, -1, 3], 60, evaluations=1, file=path)
    assert later.loss < task.incumbent.history[0][1]
    assert later.loss <= reached + 3  # What was reached some ticks before.


def test_an_interrupt_gives_the_best():
    calls = []

    def loss(v):
        calls.append(len(v))
        if len(calls) == 30:
            raise KeyboardInterrupt
        return np.abs(v.sum(axis=1)) ** 1.5 + v[:, 0]

    result = search(loss, [1, -1, 3], 40, evaluations=50_000)
    # The interrupted call came, and after it only the one that the result is checked by.
    assert len(calls) == 31
    assert calls[-1] == 1
    assert len(result.history) > 1
    assert result.loss == min(loss for _, loss in result.history) < result.history[0][1]


def test_progress_is_shown(capsys, random):
    result = search(
        Quadratic(random.normal(size=(200, 200))), [1, -1], evaluations=100_000, verbose=1
    )
    last = capsys.readouterr().out.split("\r")[-1]
    assert last.endswith(f" of 100,000 evaluations, loss {result.loss:.9g}\n")
    search(Quadratic(np.eye(2)), [1, -1], verbose=0)
    assert capsys.readouterr().out == ""


def test_the_best_in_float64():
    result = search(lambda v: v.sum(axis=1), [0.7, 0.69999999], 1, start=[0])
    assert result.vector == 0.69999999
    assert result.proved


def test_losses_that_are_not_numbers_everywhere(no_enumeration):
    def loss(v):
        return np.where(v[:, 0] > 0, np.abs(v.sum(axis=1)) ** 1.5, np.nan)

    assert search(loss, [1, -1], 11, start=np.ones(11, int)).loss == 1


@pytest.mark.parametrize("n", [12, 17, 60])
def test_slow_losses_keep_to_the_budget(n):
    """By a clock on which each vector takes 5 milliseconds."""

    class Clock(TickingClock):
        def __call__(self):
            return self.now

    clock = Clock(0.0)

    def fast(v):  # One after the other, these change last.
        return np.sinh(v[:, :4].sum(axis=1))

    def slow(v):
        clock.now += 0.005 * len(v)
        return fast(v)

    settings, start = Settings(Budget(seconds=0.6), clock=clock), np.zeros(n, int)
    result = run(parse(slow, [1, -1], n, start, None, settings))
    assert 0.4 < clock.now < 1.2
    assert result.loss < 1
    result = search(fast, [1, -1], n, 150, start=start)
    assert result.evaluations <= 151
    assert result.loss < 1


def test_a_slow_loss_is_computed_once_for_each_vector():
    """Of two resistors; by a clock on which each vector takes 20 milliseconds."""

    clock, seen = TickingClock(1e-4), []

    def slow(v):
        clock.now += 0.02 * len(v)
        seen.extend(map(tuple, v.tolist()))
        return np.abs(12 * v[:, 1] / (v[:, 0] + v[:, 1]) - 3.3)

    ohms = quantal.Values.e_series(24, low=1e3, high=100e3)
    settings = Settings(Budget(seconds=10), clock=clock)
    result = run(parse(slow, [ohms, ohms], None, None, None, settings))
    assert 9 < clock.now < 11
    # The first vector is computed several times, to learn what the function is and how slow.
    assert 300 < len(set(seen)) >= len(seen) - 20
    assert result.evaluations == len(seen) - 1
    words = "There are 2,401 vectors: with budget=130 seconds all are evaluated, which proves the"
    assert result.note.startswith(words)
    clock.now = 0.0
    proved = run(parse(slow, [ohms, ohms], None, None, None, Settings(Budget(130), clock=clock)))
    assert (proved.proved, proved.note) == (True, "")
    assert proved.loss <= result.loss
    few = Settings(Budget(10, 2000), clock=clock)
    assert run(parse(slow, [ohms, ohms], None, None, None, few)).note == ""


def test_remembered_losses_are_bounded_and_given_back(monkeypatch):
    spending, asked = Spending(Budget(evaluations=100)), []

    def losses(codes):
        asked.append(codes.tolist())
        return codes.sum(axis=1) * 1.0

    remembered = RememberedLosses(losses, spending)
    rows = np.array([[1, 0], [2, 0], [1, 0], [300, 2]])
    for expected in ([[1, 0], [2, 0], [300, 2]], None):
        spending.count(len(rows))
        assert remembered(rows).tolist() == [1, 2, 1, 302]
        assert asked == [expected] if expected else len(asked) == 1
    assert spending.evaluations == 3
    assert remembered(np.array([[1, 0], [44, 2]])).tolist() == [1, 46]
    monkeypatch.setattr(remembered_losses, "MOST_BYTES", 0)
    forgetful = RememberedLosses(losses, spending)
    for _ in range(2):
        forgetful(rows[:1])
    assert asked[-2:] == [[[1, 0]]] * 2


def test_many_elements_take_memory_for_themselves_alone():
    n = 100_000
    ring = csr_array((np.ones(n), (np.arange(n), (np.arange(n) + 1) % n)), (n, n))
    tracemalloc.start()
    search(Quadratic(ring), [1, -1], evaluations=1000)
    search(lambda v: v.sum(axis=1), [1, -1], n, evaluations=10)
    phases = np.exp(2j * np.pi * np.arange(8000) / 8000)
    result = search(Magnitude(np.ones(9)), phases, evaluations=1000)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert result.proved  # It needs no seconds.
    assert peak < 2**29


def test_lists_of_many_forms():
    loss = lambda v: (v * [1, 2]).sum(axis=1)  # noqa: E731
    for lists in (["binary", "ternary"], [quantal.Values([1, -1]), quantal.Values("ternary")]):
        np.testing.assert_array_equal(search(loss, lists).vector, [-1, -1])
    result = search(loss, np.array([[1, 0.5], [3, 2]]))
    np.testing.assert_array_equal(result.vector, [0.5, 2])
    # More elements of one value than an array has axes, and seconds without end.
    ones = quantal.search(
        lambda v: v.sum(axis=1), [[1]] * 70 + [[1, 2]] * 3, budget=math.inf, verbose=1
    )
    assert ones.proved
    assert ones.loss == 73


def test_a_callable_with_a_length_is_a_plain_function(random):
    """As `torch.nn.Sequential` is, whose length is its number of layers."""
    root = random.normal(size=(8, 6))

    class Layers:
        def __len__(self):
            return 2

        def __call__(self, v):
            return np.abs(v @ root.T).sum(axis=1)

    layers = Layers()
    result = search(layers, [1, -1], 6)
    assert result.proved
    assert result.loss == pytest.approx(layers(every_vector([[1, -1]] * 6)).min())


def test_an_objective_of_the_user(random, no_enumeration):
    root = random.normal(size=(8, 9))

    class Distance(Objective):
        def __len__(self):
            return 9

        def __call__(self, vectors):
            return np.abs(vectors @ root.T).max(axis=1)

        def bound(self, problem):
            return -1.0

        def gradients(self, vectors):
            sums = vectors @ root.T
            largest = np.abs(sums).argmax(axis=1)
            rows = np.arange(len(vectors))
            return np.sign(sums[rows, largest])[:, None] * root[largest]

    loss = Distance()
    result = search(loss, [1, -1, 0.5], evaluations=10_000)
    assert result.loss == pytest.approx(loss(every_vector([[1, -1, 0.5]] * 9)).min())
    assert result.bound == -1
    assert not result.proved


def largest_of(objective, lists):
    return float(objective(every_vector(lists)).max())


class Distances(Objective):
    """A black box with gradients, as a user may write one."""

    def __len__(self):
        return 6

    def __call__(self, vectors):
        return ((np.asarray(vectors) - 0.3) ** 2).sum(axis=1)

    def gradients(self, vectors):
        return 2 * (vectors - 0.3)


@pytest.mark.parametrize("kind", ["function", "quadratic", "sums", "black box"])
@pytest.mark.parametrize("is_enumerated", [True, False])
def test_maximize(kind, is_enumerated, monkeypatch, random):
    if not is_enumerated:
        monkeypatch.setattr(choice, "ENUMERATED", 0)
    quadratic = random_quadratic(random, 6)
    objective = {
        "function": lambda v: np.abs(v @ np.arange(6)) ** 1.5 - v.sum(axis=1),
        "quadratic": quadratic,
        "sums": Sums(quadratic.matrix, lambda sums: np.cos(sums).sum(axis=1)),
        "black box": Distances(),
    }[kind]
    lists = [[1, -1, 0.5, -0.5]] * 6
    result = search(objective, lists[0], 6, evaluations=20_000, maximize=True)
    best = largest_of(objective, lists)
    assert result.loss == pytest.approx(best)
    assert result.loss == pytest.approx(objective(result.vector[None])[0])
    losses = [loss for _, loss in result.history]
    assert losses == sorted(losses)
    assert result.maximize
    assert str(result).startswith(f"value {result.loss:.9g} (")
    if result.bound is not None:
        assert result.bound >= result.loss - 1e-9
        assert result.gap >= -1e-9
    if is_enumerated:
        assert result.proved


def test_maximize_is_the_smallest_of_the_negative(random):
    form = random_quadratic(random, 8)
    negative = Quadratic(-form.matrix, -form.vector, -form.constant)
    upper = search(form, [1, -1], evaluations=3000, maximize=True)
    lower = search(negative, [1, -1], evaluations=3000)
    assert upper.vector.tolist() == lower.vector.tolist()
    assert (upper.loss, upper.bound) == (-lower.loss, -lower.bound)
    assert [loss for _, loss in upper.history] == [-loss for _, loss in lower.history]
    assert upper.gap == lower.gap


def test_maximize_shows_the_users_number_and_keeps_nan_last(capsys):
    def value(v):
        return np.where(v[:, 0] > 0, np.nan, v.sum(axis=1))

    result = search(value, [3, -1, -2], 3, maximize=True, verbose=1)
    assert result.vector.tolist() == [-1, 3, 3]
    assert "value 5\n" in capsys.readouterr().out
    assert search(lambda v: v[:, 0] > 0, [-1, 1], 2, maximize=True).loss == 1
    assert math.copysign(1, search(lambda v: 0 * v[:, 0], [1], 2, maximize=True).loss) == 1


def test_the_gradients_of_the_largest_are_those_of_the_negative(random):
    rows = random.normal(size=(3, 6))
    negative = negative_of(Distances())
    np.testing.assert_array_equal(negative.gradients(rows), -Distances().gradients(rows))
    np.testing.assert_array_equal(negative(rows), -Distances()(rows))


def test_what_cannot_be_maximized_is_refused():
    words = r"maximize is True, and the objective is a Minimax.* Expected a function, Quadratic"
    with pytest.raises(ValueError, match=words):
        search(Minimax(np.ones((1, 3)), [0]), [1, -1], maximize=True)
    words = r"Magnitude, whose loss is minus the magnitude.* for the largest magnitude"
    with pytest.raises(ValueError, match=words):
        search(Magnitude(np.ones(3)), [1, -1], maximize=True)


def test_a_result_as_data():
    phases = np.exp(0.5j * np.pi * np.arange(4))
    result = search(Magnitude(np.array([1.0, 2j, -1])), phases)
    data = json.loads(result.to_json())
    assert data == result.to_dict()
    vector = np.array(data["vector"]["real"]) + 1j * np.array(data["vector"]["imag"])
    np.testing.assert_array_equal(vector, result.vector)
    listed = np.array([entry["real"] + 1j * entry["imag"] for entry in data["values"]])
    np.testing.assert_array_equal(listed[data["codes"]], result.vector)
    assert (data["proved"], data["loss"], data["gap"]) == (True, result.loss, result.gap)
    assert set(data) >= {"bound", "history", "evaluations", "note", "maximize"}
    own = search(lambda v: v.sum(axis=1), [[1, 2], [5, 3, 4]])
    assert own.to_dict()["values"] == [[1, 2], [5, 3, 4]]
    assert own.to_dict()["vector"] == [1, 3]


def test_a_result_in_a_notebook_and_as_a_frame():
    pytest.importorskip("pandas")
    result = search(lambda v: v.sum(axis=1), [2, -1], 3)
    assert "-1, -1, -1" in result._repr_html_()
    assert "yes" in result._repr_html_()
    assert result.to_frame()["value"].tolist() == [-1, -1, -1]
    assert result.to_frame()["code"].tolist() == [1, 1, 1]


def test_a_list_of_values_is_searched_in_the_numbers_that_were_written():
    ohms = quantal.Values.e_series(24, 1e3, 1e5)
    result = search(lambda v: np.abs(v[:, 0] / v[:, 1] - 0.137), ohms, 2)
    assert set(result.vector.tolist()) <= set(ohms.tolist())
    assert result.values == ohms.tolist()
    assert quantal.search(lambda v: v[:, 0], quantal.Values([0.1]), 1, verbose=0).loss == 0.1
