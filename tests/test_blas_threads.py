"""BLAS has one thread for small batches, and all of them for batches that gain by them."""

import numpy as np
import pytest
import threadpoolctl

import quantal
from quantal._optimize.search.blas_threads import BlasThreads

pytestmark = pytest.mark.without_keras


class Machine:
    """A machine with four BLAS threads, on which starting them costs time, and its clock."""

    def __init__(self, start=10.0):
        self.now, self.threads, self.start, self.calls = 0.0, 4, start, []

    def __call__(self):
        return self.now

    def product(self, batch):
        seconds = len(batch) if self.threads == 1 else self.start + len(batch) / self.threads
        self.now += seconds
        self.calls.append(self.threads)
        return batch

    # What threadpoolctl offers.

    def select(self, user_api):
        assert user_api == "blas"
        return self

    def info(self):
        return [{"num_threads": self.threads}]

    def limit(self, limits):
        self.threads = limits
        return self

    def restore_original_limits(self):
        self.threads = 4


@pytest.fixture
def machine(monkeypatch):
    machine = Machine()
    monkeypatch.setattr(threadpoolctl, "ThreadpoolController", lambda: machine)
    return machine


def calls(machine, threads, count, batch):
    """The threads of so many calls."""
    machine.calls.clear()
    for _ in range(count):
        assert threads.call(machine.product, batch) is batch
    return machine.calls


def test_the_faster_way_is_measured(machine):
    small, large = np.zeros(3), np.zeros(1000)
    with BlasThreads(machine) as threads:
        assert calls(machine, threads, 1000, small).count(1) > 980
        assert calls(machine, threads, 1000, large).count(4) > 980
        # Another size has measurements of its own.
        assert set(calls(machine, threads, 20, small)) == {1}
        assert machine.threads == 1
    assert machine.threads == 4


def test_a_machine_that_changes_is_measured_again(machine):
    """Another program ends, and starting threads costs nothing from then on."""
    batch = np.zeros(8)
    with BlasThreads(machine) as threads:
        assert calls(machine, threads, 1000, batch)[-1] == 1
        machine.start = 0.0
        calls(machine, threads, 5000, batch)
        assert calls(machine, threads, 1000, batch).count(4) > 900
        machine.start = 1000.0
        assert calls(machine, threads, 1000, batch).count(1) > 990


def test_nothing_is_changed_outside_the_scope(machine):
    threads = BlasThreads(machine)
    assert set(calls(machine, threads, 10, np.zeros(3))) == {4}
    machine.threads = 1
    with threads:
        assert threads.call(lambda batch: machine.now, np.zeros(3)) == machine.now
    assert machine.threads == 1


def test_an_error_restores_the_threads(machine):
    def fail():
        with BlasThreads(machine) as threads:
            threads.call(lambda batch: 1 / 0, np.zeros(3))

    with pytest.raises(ZeroDivisionError):
        fail()
    assert machine.threads == 4


def test_only_a_search_by_seconds_measures(machine):
    def loss(vectors):
        machine.calls.append(machine.threads)
        return np.abs(vectors.sum(axis=1)) ** 1.5

    def threads_of(budget):
        machine.calls.clear()
        quantal.search(loss, [1, -1, 3], n=40, budget=budget, verbose=0)
        return set(machine.calls)

    assert threads_of(quantal.Budget(evaluations=300)) == {4}
    assert threads_of(quantal.Budget(seconds=0.2)) == {1, 4}
    assert machine.threads == 4
