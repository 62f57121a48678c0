"""Lists whose numbers are proportions: a scale gives them their size."""

import numpy as np

from quantal._core.numbers.values import Values


def has_natural_unit(values: Values) -> bool:
    """Return whether a list's numbers are proportions, so that a scale belongs to it.

    They are proportions if all nonzero magnitudes are powers of two, if all are
    integers, or if the largest magnitude is 1.

    >>> [has_natural_unit(Values(v)) for v in ("ternary", "nf4", [0.3, -0.7])]
    [True, True, False]
    """
    magnitudes = np.abs(values.numbers[values.numbers != 0])
    powers = np.all(np.frexp(magnitudes)[0] == 0.5)
    integers = np.all(magnitudes == np.round(magnitudes))
    return bool(magnitudes.size) and bool(powers or integers or magnitudes.max() == 1)
