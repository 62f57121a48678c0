"""Describe weights on lists as QONNX's quantizers have them: integers times a scale."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from quantal._export.fixed_point import exponent_of
from quantal._export.graph.steps import Floats, Listed
from quantal._export.grid import grid_of

_MOST_INTEGER = 127
"""Even steps that are no power of two are looked for up to so many on a side of 0."""
_MOST_BITS = 16
"""Lists of powers of two become integers of at most so many bits."""

_SHOWN = 6
"""A message shows so many numbers of a list."""


class Integers(NamedTuple):
    """Weights are integers times a step for each output.

    Attributes:
        codes: The integers, shape (outputs, inputs).
        step: Shape (outputs,).
        bits: The bits of the integers.
        signed: Whether they are in two's complement.
        narrow: Whether the lowest number of these bits is left out.
        bipolar: Whether the list is -1 and 1.
    """

    codes: NDArray[np.int64]
    step: Floats
    bits: int
    signed: bool
    narrow: bool
    bipolar: bool


def integers_of(weights: Listed, name: str) -> Integers:
    """Return the integers and steps of weights on lists.

    Args:
        weights: The weights.
        name: The name of their layer.

    Raises:
        ValueError: A list has no even steps.
    """
    grids = [_grid(numbers.astype(np.float32), name) for numbers in weights.lists]
    integers = np.stack([grid[0] for grid in grids])
    outputs = len(weights.codes)
    codes = Listed(weights.codes, integers.astype(np.float64)).numbers.astype(np.int64)
    step = np.broadcast_to(np.asarray([grid[1] for grid in grids]), (outputs,))
    low, high = int(integers.min()), int(integers.max())
    signed = low < 0
    bits = max(high.bit_length(), (-low - 1).bit_length() if signed else 0) + signed
    narrow = signed and low > -(2 ** (bits - 1))
    bipolar = integers.shape[1] == 2 and bool((np.sort(integers, axis=1) == [[-1, 1]]).all())
    return Integers(codes, step, max(bits, 1), signed, narrow, bipolar)


def _grid(numbers: NDArray[np.float32], name: str) -> tuple[NDArray[np.int64], float]:
    """Return a list as integers, and their step."""
    grid = grid_of(numbers, _MOST_INTEGER)
    if grid is not None:
        return grid.integers, float(grid.step)
    step = 2.0 ** exponent_of(numbers.astype(np.float64))
    integers = numbers.astype(np.float64) / step
    if np.abs(integers).max() < 2 ** (_MOST_BITS - 1):
        return integers.astype(np.int64), step
    raise ValueError(
        f"The layer {name!r} has weights on the list {_shown(numbers)}, which has no even steps. "
        "QONNX holds integers times a scale: expected ±1, ternary, Values.signed(4), powers of two "
        "or the like. Export to '.onnx' without target, which holds any list."
    )


def _shown(numbers: NDArray[np.float32]) -> str:
    """Return the first numbers of a list as text."""
    shown = ", ".join(f"{number:g}" for number in numbers[:_SHOWN])
    return f"[{shown}{', ...' if len(numbers) > _SHOWN else ''}]"
