"""Compute functions of single numbers in float64, and say where they change their direction."""

import math
from collections.abc import Callable

import numpy as np

from quantal._export.graph.steps import Floats, Function, Slopes, Softmax

SingleNumbers = Function | Slopes
"""These steps turn each number into another, whatever the others are."""

_MINIMA = {
    "silu": -1.2784645427610738,
    "gelu": -0.7517915246935645,
    "mish": -1.1924312145154954,
    "hard_silu": -1.5,
}
"""Functions that fall down to this argument and rise behind it; others of the graph never fall."""


def turns_of(function: SingleNumbers) -> tuple[float, ...]:
    """Return the arguments at which a function may begin to rise, to fall or to jump.

    Below, between and from them on it never rises or never falls.
    """
    if isinstance(function, Slopes):
        return (0.0,) if (function.slopes < 0).any() else ()
    if function.name == "relu":
        slope, threshold, _ = function.numbers
        return (threshold,) if slope < 0 or threshold < 0 else ()
    if function.name == "elu":
        return (0.0,) if function.numbers[0] < 0 else ()
    return (_MINIMA[function.name],) if function.name in _MINIMA else ()


def evaluated(function: SingleNumbers | Softmax, x: Floats) -> Floats:
    """Return a function of numbers in float64.

    Args:
        function: The function.
        x: Shape (..., a multiple of the period of slopes, or of a softmax's row).

    Raises:
        KeyError: The function is not known here.
    """
    with np.errstate(over="ignore"):
        if isinstance(function, Softmax):
            return _softmax(function, x)
        if isinstance(function, Slopes):
            slopes = np.tile(function.slopes, x.shape[-1] // len(function.slopes))
            return np.where(x < 0, slopes * x, x)
        if function.name == "relu":
            slope, threshold, top = function.numbers
            return np.where(x < threshold, slope * (x - threshold), np.minimum(x, top))
        if function.name == "elu":
            return np.where(x < 0, function.numbers[0] * np.expm1(np.minimum(x, 0)), x)
        return _FUNCTIONS[function.name](x)


def _softmax(function: Softmax, x: Floats) -> Floats:
    rows = x.reshape(*x.shape[:-1], -1, function.row)
    logarithms = rows - np.logaddexp.reduce(rows, axis=-1, keepdims=True)
    return (logarithms if function.log else np.exp(logarithms)).reshape(x.shape)


def _gelu(x: Floats) -> Floats:
    # By erfc, since 1 + erf has lost its digits where x is far below 0.
    areas = [math.erfc(number) for number in (-math.sqrt(0.5) * x).ravel().tolist()]
    return 0.5 * x * np.array(areas).reshape(x.shape)


def _celu(x: Floats) -> Floats:
    return np.where(x < 0, np.expm1(np.minimum(x, 0)), x)


_SELU = 1.0507009873554805, 1.6732632423543772
"""The factor of all numbers, and that of those below 0 besides."""
_FUNCTIONS: dict[str, Callable[[Floats], Floats]] = {
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "tanh": np.tanh,
    "softplus": lambda x: np.logaddexp(0, x),
    "silu": lambda x: x / (1 + np.exp(-x)),
    "hard_sigmoid": lambda x: np.clip(x / 6 + 0.5, 0, 1),
    "exponential": np.exp,
    "gelu": _gelu,
    "selu": lambda x: _SELU[0] * np.where(x < 0, _SELU[1] * np.expm1(np.minimum(x, 0)), x),
    "celu": _celu,
    "softsign": lambda x: x / (np.abs(x) + 1),
    "mish": lambda x: x * np.tanh(np.logaddexp(0, x)),
    "log_sigmoid": lambda x: -np.logaddexp(0, -x),
    "hard_silu": lambda x: x * np.clip(x / 6 + 0.5, 0, 1),
    "hard_tanh": lambda x: np.clip(x, -1, 1),
    "hard_shrink": lambda x: np.where(np.abs(x) > 0.5, x, 0),
    "soft_shrink": lambda x: np.sign(x) * np.maximum(np.abs(x) - 0.5, 0),
    "tanh_shrink": lambda x: x - np.tanh(x),
    "squareplus": lambda x: 0.5 * (x + np.sqrt(x * x + 4)),
    "sparse_plus": lambda x: np.where(
        x < -1, 0, np.where(x < 1, 0.25 * (np.minimum(x, 1) + 1) ** 2, x)
    ),
    "sparse_sigmoid": lambda x: np.clip(0.5 * (x + 1), 0, 1),
}
"""The functions of a graph but for `relu` and `elu`, which have constants."""
