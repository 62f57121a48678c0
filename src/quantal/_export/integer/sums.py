"""Turn a product of floats into sums of integers."""

from typing import NamedTuple

import numpy as np

from quantal._export.graph.steps import Floats, Node, Product
from quantal._export.integer.meaning import Affine, Meaning
from quantal._export.integer.refusal import refusal
from quantal._export.integer.steps import Integers, Products, Range, taps_of

_WHOLE = 2.0**-20
"""A zero point counts as whole where float32 could have moved it from there."""


class Sums(NamedTuple):
    """The parts of a product of integers.

    Attributes:
        product: The float product.
        integers: Its weights as integers.
        steps: What an integer 1 stands for among the weights of each output.
        affine: What an integer of the inputs stands for.
    """

    product: Product
    integers: Integers
    steps: Floats
    affine: Affine

    def step(self, node: Node) -> tuple[Products, Meaning]:
        """Return the integer step, and what its sums stand for."""
        window, outputs = self.product.window, len(self.integers)
        factor = self._factor_of_outputs(node)
        scale = self.product.scale * self.steps
        has_padding = not taps_of(window).valid.all()
        offset, bias, zero, multiple = self.affine.offset, self.product.bias, 0, 1
        if offset.any() and (has_padding or len(set(offset.tolist())) > 1):
            point = zero_point(self.affine)
            if point is None:
                raise refusal(
                    node,
                    "pads with 0, which no integer or half an integer among its inputs stands for. "
                    "Expected padding='valid', or inputs on a list with 0.",
                )
            zero, multiple = point
        elif offset.any():
            bias = bias + scale * offset[0] * self.integers.sum(axis=1)
        meaning = Meaning(
            (Affine(scale * factor / multiple, np.broadcast_to(bias, outputs) * 1.0),)
        )
        return Products(window, self.integers, zero, multiple), meaning

    def _factor_of_outputs(self, node: Node) -> Floats:
        """Return what an integer 1 of the inputs stands for, for each output."""
        window, factor = self.product.window, self.affine.factor
        if (factor == factor[0]).all():
            return np.full(window.out_channels, factor[0])
        if window.groups == window.in_channels and window.in_channels % len(factor) == 0:
            of_inputs = np.resize(factor, window.in_channels)
            return np.repeat(of_inputs, window.out_channels // window.groups)
        raise refusal(
            node,
            "adds up inputs of different scales. Expected one scale for all of them: a "
            "DiscreteActivation before it with axis=None.",
        )


def bounds_of_products(step: Products, inputs: Range) -> Range:
    """Return the smallest and the largest sum that can occur."""
    low, high = (step.multiple * end - step.zero for end in inputs)
    if not taps_of(step.window).valid.all():
        low, high = min(low, 0), max(high, 0)
    weights = step.weights
    positive = np.maximum(weights, 0).sum(axis=1), np.minimum(weights, 0).sum(axis=1)
    up = positive[0] * high + positive[1] * low
    down = positive[0] * low + positive[1] * high
    return Range(int(down.min()), int(up.max()))


def zero_point(affine: Affine) -> tuple[int, int] | None:
    """Return the integer that stands for 0 among so many times the integers; None for none."""
    if (affine.factor == 0).any():
        return None
    zeros = -affine.offset / affine.factor
    if np.ptp(zeros) > _WHOLE * max(1.0, float(np.abs(zeros).max())):
        return None
    zero = float(zeros[0])
    for multiple in (1, 2):
        if abs(multiple * zero - round(multiple * zero)) <= _WHOLE * max(1.0, abs(zero)):
            return round(multiple * zero), multiple
    return None
