"""Straight-through: the nearest value, with the gradient of a simple function."""

from typing import Any

import keras

from quantal._core.estimator import Estimator
from quantal._core.tensors.gradients import as_if, as_if_inward, inward
from quantal._core.tensors.projection import Projection
from quantal._core.types import Tensor
from quantal.estimators.contrib.surrogates import SURROGATES, Surrogate


def _identity(latent: Tensor, listed: Projection, sharpness: float) -> Tensor:
    return inward(latent, listed.low, listed.high)


_SURROGATES = {"identity": Surrogate(_identity), **SURROGATES}


@keras.saving.register_keras_serializable(package="quantal")
class StraightThrough(Estimator):
    """Straight-through shows the nearest value and passes a simple function's gradient.

    Use it first in deep networks, where it is the default, and for vectors whose elements
    the gradient can tell one from another. It needs no state and no schedule.

    Forward, in training and in inference: the nearest listed value `P(u)`.

    Gradient, with `m` the middle and `h` the half width of the gap of the list that
    holds the latent `u`, and `z = (u - m) / h` (for `[-1, 1]`, `z` is `u`):

    | surrogate | function | derivative |
    |---|---|---|
    | `"identity"` | `u` | 1 within the list's ends; beyond them 1 for gradients that lead back, 0 for those that lead out |
    | `"clip"` | `min(max(u, low), high)` | 1 within the ends, 0 beyond |
    | `"tanh"` | `m + h tanh(b z)` | `b (1 - tanh(b z)^2)` |
    | `"approx_sign"` | `m + h (2 z - z abs(z))`, constant beyond `z = ±1` | `2 - 2 abs(z)` for `abs(z) <= 1`, else 0 |
    | `"swish_sign"` | `m + h (2 s (1 + b z (1 - s)) - 1)`, `s = sigmoid(b z)` | `b (2 - b z tanh(b z / 2)) / (1 + cosh(b z))` |

    All but the first let a latent beyond the ends be stuck or nearly so, and
    `approx_sign` passes nothing at a listed value: they are for comparison with the
    literature (`quantal.estimators.contrib.surrogates`). Memory: none beyond the latent's.

    Args:
        surrogate: A name of the table.
        sharpness: `b` of the table, positive; None for 1 with `"tanh"`, 5 with
            `"swish_sign"`. The others have none.

    Raises:
        ValueError: The surrogate is not known, or sharpness is not positive or is
            given to a surrogate without one.

    Sources: Hinton's lecture 15b (2012) and Bengio, Léonard, Courville 2013
    (straight-through); Courbariaux et al. 2016 (clip); Gong et al., "DSQ", ICCV 2019
    (tanh in each gap); Liu et al., "Bi-Real Net", ECCV 2018 (approx_sign); Darabi et
    al., "BNN+", 2018 (swish_sign).

    >>> StraightThrough("tanh", sharpness=2.0)
    StraightThrough(surrogate='tanh', sharpness=2.0)
    """  # noqa: E501 (a table)

    def __init__(self, surrogate: str = "identity", sharpness: float | None = None) -> None:
        if surrogate not in _SURROGATES:
            raise ValueError(
                f"surrogate is {surrogate!r}. Expected one of {', '.join(_SURROGATES)}. "
                "Take 'identity' if unsure."
            )
        self._function, default = _SURROGATES[surrogate]
        if sharpness is not None and (default is None or not sharpness > 0):
            raise ValueError(
                f"sharpness is {sharpness!r} for the surrogate {surrogate!r}. Expected a "
                "positive number for 'tanh' and 'swish_sign', None for the others. "
                "Leave it out for the default."
            )
        self.surrogate = surrogate
        self.sharpness = default if sharpness is None else float(sharpness)

    def forward(
        self, latent: Tensor, listed: Projection, training: bool, state: Tensor, seed: Any = None
    ) -> Tensor:
        nearest = listed.nearest(latent)
        if self.surrogate == "identity":
            return as_if_inward(nearest, latent, listed.low, listed.high)
        return as_if(nearest, self._function(latent, listed, self.sharpness or 1.0))

    def get_config(self) -> dict[str, Any]:
        return {"surrogate": self.surrogate, "sharpness": self.sharpness}
