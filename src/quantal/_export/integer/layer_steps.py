"""Compute whole layers in integers: rows of a table, normalization by a sample, recurrence."""

from typing import NamedTuple

import numpy as np

from quantal._export.graph.steps import Normalize
from quantal._export.integer.steps import (
    BroadcastProduct,
    Copied,
    EvenTotal,
    Integers,
    Joined,
    Largest,
    Multiplied,
    Padded,
    Products,
    Range,
    Requantization,
    Rounding,
    Staircase,
    Thresholds,
    Total,
    WeightedSum,
)


class LookedUp(NamedTuple):
    """Each integer is replaced by a row of a table.

    Attributes:
        table: Integers, shape (rows, width).
        size: The number of results.
    """

    table: Integers
    size: int

    def run(self, x: Integers) -> Integers:
        """Return the rows, shape (samples, size)."""
        return self.table[x].reshape(len(x), self.size)


class Normalized(NamedTuple):
    """Groups of integers are divided by their deviation, in fixed point.

    With `n` integers `x` in a group, their sum `s` and the sum `q` of their squares:

    | kind | `d` | `v` |
    |---|---|---|
    | `standard` | `n * x - s` | `(n * q - s * s) * 2**spread + epsilon` |
    | `rms` | `n * x` | `n * q * 2**spread + epsilon` |
    | `unit` | `x` | the larger of `q * 2**spread` and `epsilon` |

    The result is `d * 2**shift / sqrt(v)`: the root is rounded down, and the quotient to the
    nearest integer, away from 0 where two are as near. All fits an int64.

    Attributes:
        normalize: The kind and the groups.
        epsilon: What is added to the squares, times `2**spread`.
        spread: By how many bits, an even number, squares are moved up, so that the root has digits.
        shift: By how many bits differences are moved up.
    """

    normalize: Normalize
    epsilon: int
    spread: int
    shift: int

    def run(self, x: Integers) -> Integers:
        """Return the quotients, shape (samples, size)."""
        kind, positions, groups, width = self.normalize[:4]
        seen = x.reshape(len(x), positions, groups, width)
        count, axes = positions * width, (1, 3)
        total = seen.sum(axis=axes, keepdims=True)
        squares = (seen * seen).sum(axis=axes, keepdims=True)
        if kind == "unit":
            differences, power = seen, np.maximum(squares << self.spread, self.epsilon)
        else:
            centre = total if kind == "standard" else np.zeros_like(total)
            differences = count * seen - centre
            power = ((count * squares - centre * centre) << self.spread) + self.epsilon
        root = np.maximum(_roots(power), 1)
        quotients = ((np.abs(differences) << (self.shift + 1)) + root) // (2 * root)
        return (np.sign(differences) * quotients).reshape(len(x), -1)


class SimpleRecurrent(NamedTuple):
    """A recurrent layer computes its state from an input and the state before it.

    Attributes:
        time: The number of steps of a sequence.
        inputs: The product with a step's input.
        states: The product with the state, which is 0 at the start.
        factors: What sums of both are multiplied by before they are added, shape (2, period).
        bounds: The smallest and the largest of these sums.
        rounding: What the state is of that sum.
        sequences: Whether all states are the result, and not the last alone.
        backwards: Whether the sequence is read from its end; its results stand in that order.
    """

    time: int
    inputs: Products
    states: Products
    factors: Integers
    bounds: Range
    rounding: Rounding
    sequences: bool
    backwards: bool

    @property
    def units(self) -> int:
        """The length of the state."""
        return self.states.window.out_channels

    @property
    def size(self) -> int:
        """The number of results."""
        return self.units * (self.time if self.sequences else 1)

    def run(self, x: Integers) -> Integers:
        """Return the states, shape (samples, size)."""
        seen = x.reshape(len(x), self.time, -1)
        add = WeightedSum(self.factors)
        states = [np.zeros((len(x), self.units), np.int64)]
        for step in range(self.time)[:: -1 if self.backwards else 1]:
            sums = self.inputs.run(seen[:, step]), self.states.run(states[-1])
            states.append(self.rounding.run(add.run(*sums)))
        return np.concatenate(states[1:], axis=1) if self.sequences else states[-1]


def _roots(squares: Integers) -> Integers:
    """Return square roots of integers below 2**62, rounded down."""
    roots = np.sqrt(squares.astype(np.float64)).astype(np.int64)
    roots -= roots * roots > squares
    return roots + ((roots + 1) * (roots + 1) <= squares)


IntegerStep = (
    Products | Largest | Total | EvenTotal | Thresholds | Staircase | Requantization
    | WeightedSum | Multiplied | BroadcastProduct | Joined | Padded | Copied
    | LookedUp | Normalized | SimpleRecurrent
)  # fmt: skip
"""A step of an integer network."""
