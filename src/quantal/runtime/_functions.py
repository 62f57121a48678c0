"""Activations of Keras by their names, on NumPy's arrays of float32."""

from collections.abc import Callable
from functools import partial

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

_SELU = (1.6732632423543772, 1.0507009873554805)
"""Alpha and scale of Klambauer et al. 2017, https://arxiv.org/abs/1706.02515."""


def relu(
    x: Floats, slope: float = 0.0, threshold: float = 0.0, largest: float | None = None
) -> Floats:
    """Return what is above a threshold, at most the largest; below it a part of the distance."""
    if not (slope or threshold):
        results = np.maximum(x, np.float32(0))
    else:
        below = np.float32(slope) * (x - np.float32(threshold))
        results = np.where(x >= np.float32(threshold), x, below)
    return results if largest is None else np.minimum(results, np.float32(largest))


def elu(x: Floats, alpha: float = 1.0) -> Floats:
    """Return `alpha * (exp(x) - 1)` below 0."""
    return np.where(x > 0, x, np.float32(alpha) * np.expm1(np.minimum(x, np.float32(0))))


def softmax(x: Floats) -> Floats:
    """Return `exp(x) / sum(exp(x))` along the last axis."""
    powers: Floats = np.exp(x - x.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


def log_softmax(x: Floats) -> Floats:
    """Return the logarithm of the softmax along the last axis."""
    lower = x - x.max(axis=-1, keepdims=True)
    return lower - np.log(np.exp(lower).sum(axis=-1, keepdims=True))


def sigmoid(x: Floats) -> Floats:
    """Return `1 / (1 + exp(-x))`."""
    with np.errstate(over="ignore"):
        return np.reciprocal(1 + np.exp(-x))


def _selu(x: Floats) -> Floats:
    alpha, scale = _SELU
    return np.float32(scale) * elu(x, alpha)


def _hard_sigmoid(x: Floats) -> Floats:
    return np.clip(x / np.float32(6) + np.float32(0.5), 0, 1)


FUNCTIONS: dict[str, Callable[[Floats], Floats]] = {
    "relu": relu,
    "relu6": partial(relu, largest=6.0),
    "leaky_relu": partial(relu, slope=0.2),
    "elu": elu,
    "selu": _selu,
    "sigmoid": sigmoid,
    "tanh": np.tanh,
    "softplus": lambda x: np.logaddexp(x, np.float32(0)),
    "softsign": lambda x: x / (1 + np.abs(x)),
    "silu": lambda x: x * sigmoid(x),
    "hard_sigmoid": _hard_sigmoid,
    "hard_silu": lambda x: x * _hard_sigmoid(x),
    "exponential": np.exp,
    "softmax": softmax,
    "log_softmax": log_softmax,
}
"""The functions by the names that Keras saves them under; `linear` is no step."""
