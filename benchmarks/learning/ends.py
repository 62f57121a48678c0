"""How a run of a network ends: along a cosine, at a constant rate, or by `Finish()`.

"averages" is `Finish(falling_rate=False)`, which leaves Adam's default rate where it is.
"""

import keras

import quantal

ENDS = ("cosine", "constant", "averages", "finish", "cosine and finish")
RATE = 1e-3  # Adam's default: of a user who sets nothing, so of "constant" and "finish".


def rate_of(end: str, rate: float, steps: int):
    """Return what Adam is given: the rate, or one that falls to zero in these steps."""
    if end.startswith("cosine"):
        return keras.optimizers.schedules.CosineDecay(rate, steps)
    return rate


def callbacks_of(end: str) -> list[keras.callbacks.Callback]:
    """Return what `fit` is given."""
    if end == "averages":
        return [quantal.callbacks.Finish(falling_rate=False)]
    return [quantal.callbacks.Finish()] if end.endswith("finish") else []
