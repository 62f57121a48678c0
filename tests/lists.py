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
            "grid": lambda: random.permutation(size) * draw(st.sampled_from([0.1, 0.25, 3.0])),
            "spread": lambda: random.choice([-1, 1], size) * np.exp(random.normal(size=size) * 20),
        }[kind]()
    distinct = dict.fromkeys(np.asarray(numbers, np.float32) + np.float32(0))
    return Values([float(number) for number in distinct])
