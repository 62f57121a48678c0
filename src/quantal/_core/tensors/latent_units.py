"""The units in which the optimizer moves latents, and where latents start."""

import math
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray

from quantal._core.numbers.values import Values
from quantal._core.tensors.backend import has_numbers
from quantal._core.tensors.constants import Constant, along
from quantal._core.types import Tensor

_DRAWN_AT_ONCE = 2**20
"""More latents than these are drawn in blocks: the steps of a draw take ten tensors."""


class LatentUnits:
    """Latent units are half a list's range, or more: in them the optimizer moves latents.

    `value = offset + unit * latent`. So one learning rate serves every list: an
    Adam step of 0.001 is a thousandth of half the range, for [±0.01] as for [±8]. The
    unit is the next power of two, so that it multiplies exactly; the offset is 0 unless
    the list lies far from zero, and then subtracts exactly. So a value becomes the same
    latent and a latent the same code everywhere, under every compiler. Lists per
    channel have units per channel.

    Args:
        values: The list.
        rank: The latents' rank; it matters for lists per channel only.

    Attributes:
        offset: The latent 0 in the units of the list: a float, or an array that
            broadcasts over latents.
        unit: The latent's unit in the units of the list, alike.
    """

    def __init__(self, values: Values, rank: int = 1) -> None:
        self.offset: Any
        self.unit: Any
        if values.channels is None:
            self.offset, self.unit = _units(values.numbers)
        else:
            shape = [1] * rank
            shape[values.axis] = values.channels
            units = np.array([_units(row) for row in values.numbers], np.float32)
            self.offset, self.unit = units[:, 0].reshape(shape), units[:, 1].reshape(shape)
        self._offset, self._unit = Constant(self.offset), Constant(self.unit)
        # Booleans of Python: PyTorch's compiler breaks its graph at those of NumPy.
        self._has_offset, self._has_unit = bool(np.any(self.offset)), bool(np.any(self.unit != 1))

    def values_of(self, latents: Tensor) -> Tensor:
        """Return latents as float32 numbers in the units of the list."""
        numbers = ops.cast(latents, "float32")
        # Without a compiler each operation is a pass over memory, forth and back.
        if self._has_unit:
            numbers = numbers * self._unit()
        return numbers + self._offset() if self._has_offset else numbers

    def latents_of(self, numbers: Any) -> Any:
        """Return float32 numbers in the units of the list (array or tensor) as latents."""
        if isinstance(numbers, np.ndarray):
            return (numbers - np.float32(self.offset)) / np.float32(self.unit)
        return (numbers - self._offset()) / self._unit()


def entry_units(values: Values) -> LatentUnits:
    """Return the units in which the optimizer moves the entries of a learnable list."""
    return LatentUnits(Values(values, axis=0), values.numbers.ndim)


def _units(numbers: NDArray[np.float32]) -> tuple[float, float]:
    """Return the offset and the unit of one list."""
    low, high = float(numbers.min()), float(numbers.max())
    half_range = high / 2 - low / 2
    nearest_to_zero = min(abs(low), abs(high)) if low * high > 0 else 0.0
    # Within a factor of two of the offset, subtracting it is exact (Sterbenz).
    offset = low / 2 + high / 2 if nearest_to_zero > 2 * half_range else 0.0
    offset = float(np.float32(offset))
    unit = 2.0 ** math.ceil(math.log2(half_range)) if half_range > 0 else 1.0
    smallest = min((abs(v) for v in numbers.tolist() if v), default=1.0)
    # Beyond these, a quotient could leave float32's normal range.
    if not smallest / unit > 2.0**-100 or not 2.0**-100 < unit < 2.0**100:
        return 0.0, 1.0
    return offset, unit


def draw_latents(
    values: Values, shape: Sequence[int], seed: Any = None, spread: float = 0.05
) -> Tensor:
    """Draw first latents close to the midpoints of the list, so that first steps flip them.

    Each element draws one midpoint, all with equal probability, and lies within `spread`
    of half the gap from it. So every value is assigned to some elements and both
    directions of a flip are open. Latents that start far from the midpoints take long to
    flip: in a Fashion-MNIST network of five epochs that cost more than a point of
    accuracy.

    Args:
        values: The list.
        shape: The shape of the latents.
        seed: Integer or `keras.random.SeedGenerator`; None draws one, as Keras's
            initializers do.
        spread: The largest distance from the midpoint, in half gaps.

    Returns:
        float32 latents, in latent units.
    """
    values.check_channels(shape)
    rank = len(shape)
    units = LatentUnits(values, rank)
    ascending = np.atleast_2d(values.ascending.astype(float))
    gaps = len(values) - 1
    if not gaps:
        only_value = along(np.float32(ascending[:, 0]), values.axis, rank)
        # Added, not broadcast: PyTorch's variable would be a view of one number.
        return ops.zeros(shape, dtype="float32") + units.latents_of(only_value)
    uniform = keras.initializers.RandomUniform(0.0, 1.0, seed=seed)(shape, dtype="float32")
    # Half gaps and midpoints in float64: a range may overflow float32, its half may not.
    offset, unit = (np.reshape(number, (-1, 1)) for number in (units.offset, units.unit))
    middle = (ascending[:, :-1] / 2 + ascending[:, 1:] / 2 - offset) / unit
    reach = spread * np.diff(ascending) / 2 / unit
    row = along(np.arange(len(ascending), dtype=np.int32), values.axis, rank)
    middles, reaches = (rows.astype(np.float32).ravel() for rows in (middle, reach))

    def near_midpoints(uniform: Tensor) -> Tensor:
        # The whole part says which gap, the fraction where in the band around its midpoint.
        position = uniform * gaps
        gap = ops.minimum(ops.cast(position, "int32"), gaps - 1)
        sideways = 2 * (position - ops.cast(gap, "float32")) - 1
        if len(ascending) > 1:
            gap = gap + row * gaps
        return ops.take(middles, gap) + sideways * ops.take(reaches, gap)

    if len(ascending) > 1 or math.prod(shape) <= _DRAWN_AT_ONCE or not has_numbers(uniform):
        return near_midpoints(uniform)
    flat = ops.reshape(uniform, (-1,))
    drawn = np.empty(math.prod(shape), np.float32)
    for start in range(0, len(drawn), _DRAWN_AT_ONCE):
        block = slice(start, start + _DRAWN_AT_ONCE)
        # As an array, which waits: JAX would compute ahead, and have all blocks in memory.
        drawn[block] = ops.convert_to_numpy(near_midpoints(flat[block]))
    return ops.convert_to_tensor(drawn.reshape(shape))
