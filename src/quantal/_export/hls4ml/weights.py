"""Split a listed weight into few bits to multiply with, and a factor behind the sums."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from quantal._core.parameter import Parameter
from quantal._core.tensors.distributed import whole_array
from quantal._export.fixed_point import (
    FixedPoint,
    fixed_point_of,
    is_power_of_two,
    with_significant_bits,
)
from quantal._export.grid import grid_of
from quantal._export.hls4ml.nodes import BITS_OF_SCALE

_MOST_INTEGER = 127
"""Lists with even steps of no power of two become integers up to this one, times the step."""
_FEW_BITS = 8
"""A list that so few bits hold is multiplied with as it is."""


class Split(NamedTuple):
    """A weight is split into what is multiplied with and a factor behind the sums.

    Attributes:
        numbers: What is multiplied with, in the weight's shape.
        precision: The format of all numbers that the list allows.
        factor: One factor for each index of the last axis; None where there is none.
    """

    numbers: NDArray[np.float64]
    precision: FixedPoint
    factor: NDArray[np.float64] | None = None


def split_weight(parameter: Parameter, *, scalable: bool) -> Split:
    """Return what a weight is multiplied with: few bits, where its list and scale allow."""
    values = parameter.values
    scale: NDArray[Any] = np.asarray(
        1 if parameter.scale is None else whole_array(parameter.scale), np.float64
    )
    listed: NDArray[Any] = np.asarray(whole_array(parameter.listed_values), np.float64)
    numbers: NDArray[np.float64] = np.asarray(values.numbers, np.float64)
    if scalable and fixed_point_of(numbers).width > _FEW_BITS and values.channels is None:
        grid = grid_of(values.numbers, _MOST_INTEGER)
        if grid is not None:
            codes = np.asarray(whole_array(parameter.codes))
            listed, numbers = (
                grid.integers[codes].astype(np.float64),
                grid.integers.astype(np.float64),
            )
            scale = np.asarray(scale * np.float64(grid.step), np.float64)
    first = float(scale.ravel()[0])
    if is_power_of_two(first) and (scale == first).all():
        return Split(listed * first, fixed_point_of(numbers * first))
    along_last = scale.size == (scale.shape[-1] if scale.ndim else 1)
    if scalable and along_last:
        factor = np.broadcast_to(scale.ravel(), parameter.shape[-1:])
        return Split(listed, fixed_point_of(numbers), factor)
    weights = listed * with_significant_bits(scale, BITS_OF_SCALE)
    return Split(weights, fixed_point_of(weights))
