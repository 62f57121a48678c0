"""A budget is checked, and its spending is counted."""

import math

import numpy as np
import pytest

from quantal._optimize.budget import Budget, Spending
from quantal._optimize.checkpoint import Checkpoint, fingerprint
from quantal._optimize.incumbent import Incumbent
from quantal._optimize.progress import Progress

pytestmark = pytest.mark.without_keras


class Clock:
    """A clock that a test moves on."""

    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


def test_a_number_is_a_budget_of_seconds():
    assert Budget.of(3) == Budget(seconds=3)
    assert Budget.of(Budget(evaluations=5)) == Budget(evaluations=5)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Budget(), "neither seconds nor evaluations"),
        (lambda: Budget.of(None), "budget is None"),
        (lambda: Budget.of(0), "budget has 0 seconds"),
        (lambda: Budget.of("10"), "budget has '10' seconds"),
        (lambda: Budget(evaluations=-1), "budget has -1 evaluations"),
        (lambda: Budget(seconds=math.nan), "budget has nan seconds"),
    ],
)
def test_bad_budgets(make, words):
    with pytest.raises(ValueError, match=words):
        make()


def test_seconds_run_out():
    clock = Clock()
    spending = Spending(Budget(seconds=10), clock)
    clock.now += 4
    assert (spending.seconds, spending.seconds_left, spending.fraction_used) == (4, 6, 0.4)
    spending.exclude_seconds(1)
    assert spending.seconds == 3
    assert spending.affords(7, 0.5)
    assert not spending.affords(8, 0.5)
    part = spending.limited(reserved_seconds=5)
    assert part.has_budget()
    assert part.seconds_left == 2
    clock.now += 2
    assert not part.has_budget()
    assert spending.has_budget()
    spending.restart_clock()
    assert spending.seconds == 0
    clock.now += 10
    assert not spending.has_budget()


def test_evaluations_run_out():
    spending, goes_on = Spending(Budget(evaluations=10)), [True]
    assert spending.seconds_left == math.inf
    spending.count(3)
    spending.count(4)
    assert (spending.evaluations, spending.evaluations_left) == (7, 3)
    assert (spending.fraction_used, spending.capped(100)) == (0.7, 3)
    part = spending.limited(condition=lambda: goes_on[0])
    assert part.has_budget()
    goes_on[0] = False
    assert not part.has_budget()
    assert spending.has_budget()
    part.count(3)
    assert not spending.has_budget()
    assert spending.capped(100) == 1


def test_an_incumbent_takes_what_is_better():
    clock = Clock()
    incumbent = Incumbent(np.zeros(2, int), Spending(Budget(seconds=9), clock))
    assert incumbent.loss == math.inf
    assert incumbent.offer(np.array([0, 1]), 3.0)
    clock.now += 2
    assert not incumbent.offer(np.array([1, 1]), 3.0)
    assert not incumbent.offer(np.array([1, 1]), math.nan)
    better = np.array([1, 0])
    assert incumbent.offer(better, 1.0)
    better[:] = 9
    assert incumbent.codes.tolist() == [1, 0]
    assert incumbent.history == [(0.0, 3.0), (2.0, 1.0)]


def test_progress_shows_the_budget_and_the_loss(capsys):
    clock = Clock()
    spending = Spending(Budget(seconds=8, evaluations=5000), clock)
    incumbent = Incumbent(np.zeros(2, int), spending)
    progress = Progress(spending, incumbent, 1, clock)
    incumbent.offer(np.zeros(2, int), 12.5)
    spending.has_budget()
    spending.has_budget()
    assert capsys.readouterr().out.split("\r")[1:] == [
        "0.0 of 8 s, 0 of 5,000 evaluations, loss 12.5"
    ]
    clock.now += 2
    spending.count(1234)
    incumbent.offer(np.ones(2, int), 3)
    progress.end()
    assert capsys.readouterr().out == "\r2.0 of 8 s, 1,234 of 5,000 evaluations, loss 3\n"
    silent = Progress(Spending(Budget(seconds=1), clock), incumbent, 0, clock)
    silent.end()
    assert capsys.readouterr().out == ""


def test_a_checkpoint_is_of_one_problem(tmp_path):
    path, members = tmp_path / "good.npz", np.arange(6).reshape(2, 3)
    shapes = {"members": (None, 3)}
    checkpoint = Checkpoint(path, fingerprint(members), shapes)
    assert not checkpoint.exists()
    checkpoint.write(members=members)
    assert checkpoint.exists()
    np.testing.assert_array_equal(checkpoint.read()["members"], members)
    with pytest.raises(ValueError, match="of another search"):
        Checkpoint(path, fingerprint(members + 1), shapes).read()
    with pytest.raises(ValueError, match=r"not readable.*members"):
        Checkpoint(path, fingerprint(members), {"members": (None, 4)}).read()
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(ValueError, match="not readable"):
        checkpoint.read()
    with pytest.raises(ValueError, match="no folder"):
        Checkpoint(tmp_path / "none" / "good.npz", "", shapes)
    nowhere = Checkpoint(None, "", shapes)
    nowhere.write(members=members)
    assert not nowhere.exists()
    assert [file.name for file in tmp_path.iterdir()] == ["good.npz"]
