"""The lists that tests go through, and hypothesis strategies for more."""

import statistics

import numpy as np
from hypothesis import strategies as st

from quantal import Values

_NORMAL = statistics.NormalDist()

NAMED = {
    "one": Values([0.3]),
    "binary": Values([1, -1]),
    "ternary": Values("ternary"),
    "four": Values([1, -1, 0.5, -0.5]),
    "no exact halves": Values([-0.7, 0.1, 1.3]),
    "tenths": Values([0.1, -0.1, 0.3, -0.3]),
    "uneven": Values([1, 0.7, 0, -0.1, -0.2]),
    "nine powers": Values([-8, -4, -2, -1, 0, 1, 2, 4, 8]),
    "one-sided": Values([5, 2, 3]),
    "far from zero": Values([1000.5, 1001, 1000, 1002]),
    "normal quantiles": Values([_NORMAL.inv_cdf((i + 0.5) / 16) for i in range(16)]),
    "nf4": Values("nf4"),
}

LONG = {
    "seventeen": Values(np.linspace(-1, 1, 17) ** 3),
    "signed 8 bits": Values("signed:8"),
    "tenths of 8 bits": Values.signed(8, step=0.1),
    "additive powers": Values("additive_powers_of_two:8"),
    "powers of two": Values("powers_of_two:7"),
    "log-spaced": Values(np.geomspace(1e-30, 1e30, 300)),
    "huge": Values(np.linspace(-3.4e38, 3.4e38, 77)),
    "tiny": Values(np.linspace(1.2e-38, 3e-38, 60)),
    "unsorted": Values(np.random.default_rng(0).permutation(np.arange(200) ** 2)),
}

# Short and long ones, for what is tested with every estimator.
LISTS = {**NAMED, "seventeen": LONG["seventeen"], "signed 8 bits": LONG["signed 8 bits"]}
PER_CHANNEL = Values([[1, -1, 0.5, 0], [0.3, 7, -2, 0.1]], axis=0)

floats = st.floats(width=32, allow_nan=False, allow_infinity=False, allow_subnormal=False)


@st.composite
def lists(draw, longest=257):
    """Unsorted lists of distinct float32 numbers: uneven, one-sided, huge or tiny."""
    size = draw(st.integers(1, longest))
    kind = draw(st.sampled_from(["any", "near", "grid", "spread"]))
    if kind == "any":
        numbers = draw(st.lists(floats, min_size=1, max_size=size))
    else:
        random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
        offset = draw(st.sampled_from([0.0, 1.0, -1000.0, 1e6]))
        numbers = {
            "near": lambda: offset + random.normal(size=size),
            "grid": lambda: (
                (random.permutation(size) + draw(st.sampled_from([0.0, 0.5, -7.25])))
                * draw(st.sampled_from([0.1, 0.25, 3.0]))
            ),
            "spread": lambda: random.choice([-1, 1], size) * np.exp(random.normal(size=size) * 20),
        }[kind]()
    distinct = dict.fromkeys(np.asarray(numbers, np.float32) + np.float32(0))
    return Values([float(number) for number in distinct])


def latents_for(values, rows=128):
    """Latents within the ends and beyond; the channels' axis, where there is one, in front."""
    random = np.random.default_rng(3)
    lists = np.atleast_2d(values.numbers).astype(float)
    span = np.ptp(lists, axis=1, keepdims=True)
    x = lists.min(axis=1, keepdims=True) + span * random.uniform(-0.3, 1.3, (len(lists), rows))
    return (x if values.channels else x[0]).astype(np.float32)


def by_channel(function, x, *lists):
    """A NumPy function of (latents, ascending list), channel by channel."""
    values, others = lists[0], lists[1:]
    ascending = values.ascending.astype(float)
    if values.channels is None:
        return function(x.astype(float), ascending, *others)
    rows = zip(x.astype(float), ascending, *others, strict=True)
    return np.stack([function(*row) for row in rows])
