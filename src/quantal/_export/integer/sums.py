"""Turn a product of floats into sums of integers."""

from typing import NamedTuple

import numpy as np

from quantal._export.graph.steps import Floats, Node, Product
from quantal._export.integer.meaning import Affine
from quantal._export.integer.multiples import MOST_STEPS, multiples_of
from quantal._export.integer.refusal import refusal
from quantal._export.integer.steps import Integers, Products, Range, taps_of

_WHOLE = 2.0**-20
"""A zero point counts as whole where float32 could have moved it from there."""


class IntegerProduct(NamedTuple):
    """A product of integers.

    Attributes:
        step: The integer step.
        affine: What its sums stand for.
        bounds: The smallest and the largest sum.
    """

    step: Products
    affine: Affine
    bounds: Range


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

    def product_of(self, node: Node, inputs: Range) -> IntegerProduct:
        """Return the integer step, what its sums stand for, and their range.

        Args:
            node: The node, for messages.
            inputs: The smallest and the largest integer among the inputs.
        """
        window, outputs = self.product.window, len(self.integers)
        integers, factor = self._with_one_scale(node)
        scale = self.product.scale * self.steps
        offset, bias, zero, multiple = self.affine.offset, self.product.bias, 0, 1
        if offset.any() and not taps_of(window).valid.all():
            point = zero_point(self.affine)
            if point is None:
                raise refusal(
                    node,
                    "pads with 0, which no integer or half an integer among its inputs stands for. "
                    "Expected padding='valid', or inputs on a list with 0.",
                )
            zero, multiple = point
        elif offset.any():
            bias = bias + scale * (self.integers * self._of_inputs(offset, node)).sum(axis=1)
        sums = Affine(scale * factor / multiple, np.broadcast_to(bias, outputs) * 1.0)
        step = Products(window, integers, zero, multiple)
        return IntegerProduct(step, sums, bounds_of_products(step, inputs))

    def _with_one_scale(self, node: Node) -> tuple[Integers, Floats]:
        """Return weights that meet inputs of one scale, and that scale for each output.

        Scales of channels that are small multiples of one, such as signs and powers of two,
        are multiplied into the weights; others stay where each output sees one channel.
        """
        window, factor = self.product.window, self.affine.factor
        if (factor == factor[0]).all():
            return self.integers, np.full(window.out_channels, factor[0])
        if window.groups == window.in_channels:
            return self.integers, self._of_inputs(factor, node)[:, 0]
        multiples = multiples_of(factor)
        if multiples is None or np.abs(multiples.integers).max() > MOST_STEPS:
            raise refusal(
                node,
                "adds up inputs of different scales. Expected one scale for all of them: a "
                "DiscreteActivation before it with axis=None; or scales that are integers times "
                f"one, none beyond {MOST_STEPS} of it.",
            )
        ratios = self._of_inputs(multiples.integers.astype(np.float64), node).astype(np.int64)
        return self.integers * ratios, np.full(window.out_channels, multiples.step)

    def _of_inputs(self, numbers: Floats, node: Node) -> Floats:
        """Return the numbers of the channels that each weight meets, shape (outputs, inputs)."""
        window = self.product.window
        if window.in_channels % len(numbers):
            raise refusal(
                node,
                "adds up inputs whose scales differ between positions. Expected one scale for each "
                "channel at most.",
            )
        by_group = np.resize(numbers, (window.groups, window.in_channels // window.groups))
        taps = window.kernel_height * window.kernel_width
        rows = np.repeat(by_group, window.out_channels // window.groups, axis=0)
        return np.tile(rows, taps)


def bounds_of_products(step: Products, inputs: Range) -> Range:
    """Return the smallest and the largest sum that can occur, also before all are added."""
    ends = [step.multiple * end - step.zero for end in inputs]
    # Padding adds 0, and so does an input that is still to be added.
    low, high = min(*ends, 0), max(*ends, 0)
    positive = np.maximum(step.weights, 0).sum(axis=1)
    negative = np.minimum(step.weights, 0).sum(axis=1)
    up, down = positive * high + negative * low, positive * low + negative * high
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
