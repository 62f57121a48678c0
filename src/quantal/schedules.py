"""Schedules say how soft a parameter is at a step of training, as pure functions.

They work on Python numbers, NumPy arrays and tensors alike: only arithmetic is used.
"""

import math
from typing import Any


def hyperbolic(step: Any, half_life: float) -> Any:
    """Return 1 at step 0, 1/2 after `half_life` steps, then towards 0 without reaching it.

    `1 / (1 + step / half_life)`: a pace that needs no horizon. It is also BinaryRelax's
    weight of the latent, `1 / (1 + lambda)` with a lambda that grows linearly (Yin et
    al., "BinaryRelax", SIAM J. Imaging Sciences 2018).

    >>> hyperbolic(0, 500), hyperbolic(500, 500), hyperbolic(1500, 500)
    (1.0, 0.5, 0.25)
    """
    return 1 / (1 + step / half_life)


def sigmoid(fraction: Any, steepness: float) -> Any:
    """Return 1 at fraction 0, 1/2 at fraction 1/2, 0 at fraction 1, along a sigmoid.

    With `s(x) = 1 / (1 + exp(x))`, `c = 1/2` and steepness `k`:
    `(s(k (fraction - c)) - s(k c)) / (s(-k c) - s(k c))`. PARQ's schedule (Jin et al.,
    "PARQ: Piecewise-Affine Regularized Quantization", ICML 2025, and its code).

    >>> [round(sigmoid(fraction, 10), 2) for fraction in (0.0, 0.25, 0.5, 0.75, 1.0)]
    [1.0, 0.93, 0.5, 0.07, 0.0]
    """

    def falling(x: Any) -> Any:
        return 1 / (1 + math.e**x)

    lowest, highest = falling(0.5 * steepness), falling(-0.5 * steepness)
    return (falling(steepness * (fraction - 0.5)) - lowest) / (highest - lowest)
