"""Scalars are numbers of Python where PyTorch computes eagerly, and tensors elsewhere.

A parameter remembers some numbers, and its steps have some sums over all elements. Arithmetic with
them costs nothing under a compiler. PyTorch without its compiler takes an operation for each sum,
product and comparison, some microseconds, as long as for a whole vector; Python takes a hundredth.
So on the processor such numbers are read, and the functions here take either form. The two differ
by roundings alone: Python's numbers have 64 bits.
"""

import math
from typing import Any

import keras
from keras import ops

from quantal._core.tensors.backend import transforms_in_torch
from quantal._core.types import Tensor

_LONGEST_STACK = 4096
"""Up to so many elements, sums of several products cost less as one sum of a stack: compiled
programs take a microsecond for each of their steps. Above, the stack itself costs more."""

_PARTS, _SHORTEST_PART = 8, 2**13
"""Long sums add so many parts number by number first; shorter ones gain nothing from it."""

Scalar = Any
"""A number or truth value of Python, or a tensor of shape ()."""


def are_read(tensor: Tensor) -> bool:
    """Return whether scalars of a tensor are numbers of Python."""
    if keras.config.backend() != "torch" or transforms_in_torch():
        return False
    import torch

    return isinstance(tensor, torch.Tensor) and tensor.device.type == "cpu"


def scalars_of(tensor: Tensor) -> list[Scalar]:
    """Return the elements of a tensor of shape (n,); those of a sequence are what it has.

    >>> scalars_of([1.0, 2.0])
    [1.0, 2.0]
    """
    if isinstance(tensor, (list, tuple)):
        return list(tensor)
    if not are_read(tensor):
        return [tensor[index] for index in range(tensor.shape[0])]
    return tensor.tolist()


def scalar_of(tensor: Tensor) -> Scalar:
    """Return the number that a tensor of shape () has."""
    return tensor.item() if are_read(tensor) else tensor


def tensor_of(scalars: Tensor | list[Scalar]) -> Tensor:
    """Return scalars as a float32 tensor of shape (n,); a tensor is returned as it is."""
    if not isinstance(scalars, list):
        return scalars
    if not all(isinstance(scalar, (int, float)) for scalar in scalars):
        return ops.stack([ops.cast(scalar, "float32") for scalar in scalars])
    if keras.config.backend() != "torch":
        return ops.convert_to_tensor(scalars, "float32")
    import torch

    # Numbers of Python come from the processor alone; Keras's way takes ten times as long.
    return torch.tensor(scalars, dtype=torch.float32)


def total(one: Tensor, other: Tensor) -> Scalar:
    """Return the sum of the products of two tensors' elements."""
    # PyTorch asks for gradients of gradients only of tensors that require one.
    if not are_read(one) or one.requires_grad or other.requires_grad:
        return _summed(one * other)
    import torch

    return torch.dot(one.reshape(-1), other.reshape(-1)).item()


def _summed(tensor: Tensor) -> Scalar:
    """Return the sum of a tensor's elements.

    TensorFlow's XLA would write all of them into memory before it adds them, but adds parts
    number by number where it computes them.
    """
    part = math.prod(tensor.shape) // _PARTS
    if keras.config.backend() != "tensorflow" or part < _SHORTEST_PART:
        return ops.sum(tensor)
    flat = ops.reshape(tensor, (-1,))
    first, *others = (flat[start : start + part] for start in range(0, part * _PARTS, part))
    for other in others:
        first = first + other
    return ops.sum(first) + ops.sum(flat[part * _PARTS :])


def totals(*pairs: tuple[Tensor, Tensor]) -> list[Scalar]:
    """Return the `total` of each pair of tensors, all of one shape."""
    first = pairs[0][0]
    if are_read(first) or math.prod(first.shape) > _LONGEST_STACK:
        return [total(*pair) for pair in pairs]
    products = ops.stack([ops.reshape(one * other, (-1,)) for one, other in pairs])
    sums = ops.sum(products, axis=-1)
    return [sums[index] for index in range(len(pairs))]


def largest(one: Scalar, other: Scalar) -> Scalar:
    """Return the larger one of two scalars."""
    return max(one, other) if _are_numbers(one, other) else ops.maximum(one, other)


def smallest(one: Scalar, other: Scalar) -> Scalar:
    """Return the smaller one of two scalars."""
    return min(one, other) if _are_numbers(one, other) else ops.minimum(one, other)


def select(condition: Scalar, one: Any, other: Any) -> Any:
    """Return one of two tensors or scalars, element by element where the condition is a tensor."""
    if isinstance(condition, bool):
        return one if condition else other
    return ops.where(condition, one, other)


def mixed(share: Scalar, one: Tensor, other: Tensor) -> Tensor:
    """Return `share one + (1 - share) other`; where the share is a 0 or 1 of Python, one of them.

    >>> mixed(0.25, 4.0, 8.0), mixed(0.0, 4.0, 8.0)
    (7.0, 8.0)
    """
    if isinstance(share, float) and share in (0.0, 1.0):
        return one if share else other
    return share * one + (1.0 - share) * other


def _are_numbers(*scalars: Scalar) -> bool:
    return all(isinstance(scalar, (int, float)) for scalar in scalars)
