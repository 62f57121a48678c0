"""One option of each group is chosen exactly."""

import itertools

import numpy as np
import pytest

from quantal._core.numbers.knapsack import Option, choose

pytestmark = pytest.mark.without_keras


def of(group, indices):
    return [options[index] for options, index in zip(group, indices, strict=True)]


def cost(options):
    return sum(o.loss for o in options), sum(o.bytes for o in options)


@pytest.mark.parametrize("seed", range(3))
def test_the_choice_is_that_of_all_combinations(seed):
    random = np.random.default_rng(seed)
    for _ in range(60):
        groups = [
            [
                # Whole numbers make ties, and losses may be below 0.
                Option(None, int(random.integers(20)), float(random.integers(-2, 5)) / 2)
                for _ in range(random.integers(1, 5))
            ]
            for _ in range(random.integers(1, 6))
        ]
        smallest = sum(min(o.bytes for o in options) for options in groups)
        capacity = smallest + int(random.integers(25))
        best = min(
            cost(options) for options in itertools.product(*groups) if cost(options)[1] <= capacity
        )
        assert cost(of(groups, choose(groups, capacity))) == best


def test_many_groups_are_fast_and_fit():
    random = np.random.default_rng(0)
    bits = np.array([1, 1.6, 2, 3, 4, 32])
    groups = [
        [Option(None, int(n * b / 8), n * 4.0**-b * random.uniform(0.5, 2)) for b in bits]
        for n in random.integers(1000, 10**6, 60)
    ]
    capacity = sum(options[2].bytes for options in groups)
    loss, size = cost(of(groups, choose(groups, capacity)))
    assert size <= capacity
    # As far as all on the same list loses, that is far from the best.
    assert loss < cost(of(groups, [2] * len(groups)))[0]


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match=r"smallest options take 4 bytes. Expected 3 or fewer"):
        choose([[Option(None, 2, 0.0)], [Option(None, 2, 0.0)]], 3)
