"""What the tests of search share: short searches, all vectors of lists, and a clock."""

import itertools

import numpy as np

import quantal
from quantal._optimize.budget import Budget
from quantal._optimize.search.search import run
from quantal._optimize.search.task import Settings, parse

LISTS = {"signs": [1, -1], "ternary": [1, 0, -1], "four": [1, -1, 0.5, -0.5], "uneven": [0.3, 2]}


class TickingClock:
    """A clock that goes on by one tick each time that it is asked."""

    def __init__(self, tick):
        self.tick, self.now = tick, 0.0

    def __call__(self):
        self.now += self.tick
        return self.now


def every_vector(lists):
    """All vectors of a list for each element."""
    return np.array(list(itertools.product(*lists)))


def search(objective, values, n=None, evaluations=5000, **named):
    """Search by evaluations, so that the result does not depend on the machine."""
    return quantal.search(
        objective, values, n, Budget(evaluations=evaluations), **{"verbose": 0, **named}
    )


def search_by_ticks(objective, values, n=None, ticks=1000, start=None, constraints=None, seed=0):
    """Search for some seconds of a clock of which each look takes one."""
    settings = Settings(Budget(seconds=ticks), seed, clock=TickingClock(1.0))
    return run(parse(objective, values, n, start, constraints, settings))


def random_quadratic(random, n=9):
    return quantal.objectives.Quadratic(random.normal(size=(n, n)), random.normal(size=n), 0.7)
