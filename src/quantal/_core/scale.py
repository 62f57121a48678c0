"""Scales: one factor on all listed values of a weight, or one for each output channel.

With a scale the layer computes with `scale * value`; the chosen values stay the listed
ones and the scale is stored apart.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any, Self

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray

from quantal._core.estimator import as_if, inward
from quantal._core.numbers.fitting import least_squares_scale, mean_absolute_scale, mean_magnitude
from quantal._core.numbers.values import Values
from quantal._core.tensors.projection import Projection, StepFunction, Table, along

METHODS = ("learned", "least_squares", "mean_absolute")


@dataclasses.dataclass(frozen=True)
class Scale:
    """How a scale comes about, and what shares one.

    Use it where the listed values stand for proportions: binary, ternary and powers of
    two in a network whose layers have a size of their own. A layer that starts from
    trained weights starts at the scale that loses least; a new one at the spread that
    its own initializer would have given.

    | method | scale `s`, for weights `u` and chosen values `P = P(u / s)` |
    |---|---|
    | `"learned"` | trained with LSQ's gradient `ds = g (P - (u / s) [low <= u / s <= high])`, times `1 / sqrt(N max abs(v))` |
    | `"least_squares"` | in every training step one step towards the best: `s = sum u P / sum P^2` |
    | `"mean_absolute"` | in every training step `mean(abs(u))` over the mean magnitude of the nonzero values |

    The gradient to the weights is the estimator's in all of them, as if `s` were
    constant. Optimizers see a learned scale relative to its start, so an Adam step of
    0.001 is a thousandth of it; it stays within a factor of 1024 of its start.

    Args:
        method: As above.
        axis: What has a scale of its own. None: the whole weight has one. `"output"`:
            each output channel, found by the layer's kind. An integer or several: each
            position along these axes of the weight.
        power_of_two: Whether the scale is rounded to the nearest power of two, with a
            straight-through gradient.

    Raises:
        ValueError: The method or the axis is none of these.

    Sources: Esser et al., "Learned Step Size Quantization", ICLR 2020, for any list;
    Rastegari et al., "XNOR-Net", ECCV 2016, and Ma et al., "The Era of 1-bit LLMs",
    2024 (mean absolute).

    >>> Scale("learned", axis="output")
    Scale(method='learned', axis='output', power_of_two=False)
    """  # noqa: E501 (a table)

    method: str = "learned"
    axis: Any = None
    power_of_two: bool = False

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise ValueError(
                f"scale is {self.method!r}. Expected None (the values as listed), "
                f"{', '.join(repr(method) for method in METHODS)}, or a quantal.Scale. Leave "
                "it out to keep the list."
            )
        axis = self.axis
        if isinstance(axis, Sequence) and not isinstance(axis, str):
            object.__setattr__(self, "axis", tuple(axis))
            axes = self.axis
        else:
            axes = () if axis is None or axis == "output" else (axis,)
        if any(isinstance(a, bool) or not isinstance(a, (int, np.integer)) for a in axes):
            raise ValueError(
                f"axis is {axis!r}. Expected None (one scale), 'output' (one for each output "
                "channel), an integer or several. Give 'output' if unsure."
            )

    @classmethod
    def of(cls, scale: Any) -> Self | None:
        """A `Scale` from itself, its method's name, its config, or None for None."""
        if scale is None or isinstance(scale, cls):
            return scale
        if isinstance(scale, dict):
            return cls(**scale)
        return cls(scale)

    def to_config(self) -> dict[str, Any]:
        """The constructor's arguments, as JSON can hold them."""
        config = dataclasses.asdict(self)
        axis = config["axis"]
        return {**config, "axis": list(axis) if isinstance(axis, tuple) else axis}

    def shape(self, weight: Sequence[int], output_axes: Sequence[int]) -> tuple[int, ...]:
        """The shape of the scale of a weight of this shape: () or one that broadcasts.

        Args:
            weight: The weight's shape.
            output_axes: The axes of its output channels.

        Raises:
            ValueError: The weight has no such axis.
        """
        if self.axis is None:
            return ()
        own = self.axis if isinstance(self.axis, tuple) else (self.axis,)
        axes = tuple(output_axes) if self.axis == "output" else own
        rank = len(weight)
        if any(not -rank <= axis < rank for axis in axes):
            raise ValueError(
                f"axis of the scale is {self.axis!r}, but the weight has the shape "
                f"{tuple(weight)}. Expected axes from {-rank} to {rank - 1}. Give 'output' or "
                "one of these."
            )
        kept = {axis % rank for axis in axes}
        return tuple(size if place in kept else 1 for place, size in enumerate(weight))

    def fitted(
        self, weights: NDArray[Any], values: Values, shape: tuple[int, ...]
    ) -> NDArray[np.float32]:
        """The scales with which the listed values lose least of trained weights.

        By mean magnitude for `"mean_absolute"`, else by least squares.

        Args:
            weights: The trained weights.
            values: The list, or a list for each channel.
            shape: Of the scale, as `shape` gave it.
        """
        fit = mean_absolute_scale if self.method == "mean_absolute" else least_squares_scale
        weights = np.asarray(weights, float)
        scales = np.ones(shape, np.float32)
        for place in np.ndindex(shape):
            slices = tuple(
                slice(None) if size == 1 else slice(at, at + 1)
                for at, size in zip(place, shape, strict=True)
            )
            scales[place] = fit(weights[slices], _lists_at(values, slices, weights.ndim))
        return rounded_to_powers(scales) if self.power_of_two else scales


def _lists_at(values: Values, slices: tuple[slice, ...], rank: int) -> Values:
    """The lists of the channels within a slice of the weight."""
    if values.channels is None or not slices:
        return values
    rows = values.numbers[slices[values.axis % rank]]
    return values.moved(rows[0] if len(rows) == 1 else rows)


def _power_steps() -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    exponents = np.arange(-100, 101)
    return (2.0 ** (exponents[1:] - 0.5)).astype(np.float32), (2.0**exponents).astype(np.float32)


def rounded_to_powers(scales: NDArray[np.float32]) -> NDArray[np.float32]:
    """The powers of two nearest to positive numbers, by ratio; 2^-100 to 2^100.

    >>> rounded_to_powers(np.array([0.3, 3.0], np.float32))
    array([0.25, 4.  ], dtype=float32)
    """
    thresholds, levels = _power_steps()
    return levels[np.searchsorted(thresholds, scales, side="right")]


def nearest_powers() -> StepFunction:
    """`rounded_to_powers` of float32 tensors."""
    return StepFunction(*_power_steps())


class ScaleState:
    """The scale of one parameter: its variables, its value and its gradient.

    The scale is `start * relative`. Weights are held in units of `start`.

    Args:
        scale: How it comes about.
        values: The list.
        start: float32 variable, not trainable: the scale at the start.
        relative: float32 variable of the same shape, 1 at the start; trainable if the
            scale is learned.
    """

    def __init__(
        self, scale: Scale, values: Values, start: keras.Variable, relative: keras.Variable
    ) -> None:
        self.scale, self.start, self.relative = scale, start, relative
        self._values = values
        # Made here, outside any compiler's trace.
        magnitude = mean_magnitude(values)
        self._magnitude = Table(float(magnitude) if values.channels is None else magnitude)
        self._nearest_power = nearest_powers() if scale.power_of_two else None

    def begin(self, scales: NDArray[np.float32]) -> None:
        """Set the scale."""
        self.start.assign(scales)
        self.relative.assign(np.ones(self.relative.shape, np.float32))

    def value(self) -> Any:
        """The scale: float32 tensor that broadcasts over the weight, no gradient."""
        start, relative = (
            ops.stop_gradient(ops.convert_to_tensor(v)) for v in (self.start, self.relative)
        )
        product = start * _clamped(relative)
        return product if self._nearest_power is None else self._nearest_power(product)

    def to_list_units(self, numbers: Any) -> Any:
        """Weights in units of the start -> weights in units of the scale."""
        if self._nearest_power is None:
            relative = _clamped(ops.stop_gradient(ops.convert_to_tensor(self.relative)))
        else:
            relative = self.value() / ops.convert_to_tensor(self.start)
        return numbers * (1.0 / relative)

    def apply(self, value: Any, place: Any, listed: Projection) -> Any:
        """`scale * value`, with the gradient to both.

        Args:
            value: What the estimator gave, with its gradient.
            place: The weight in units of the scale, where the estimator saw it.
            listed: The list.
        """
        scale = self.value()
        surrogate = scale * value
        if self.scale.method == "learned":
            place = ops.stop_gradient(place)
            inside = ops.logical_and(place >= listed.low, place <= listed.high)
            slope = ops.stop_gradient(value) - ops.where(inside, place, 0.0)
            elements = math.prod(value.shape) / max(math.prod(self.relative.shape), 1)
            largest = ops.maximum(ops.abs(listed.low), ops.abs(listed.high))
            damping = 1.0 / ops.sqrt(elements * ops.maximum(largest, 1e-30))
            # A product: TensorFlow takes no variable itself into a custom gradient.
            relative = inward(1.0 * ops.convert_to_tensor(self.relative), _LEAST, _MOST)
            surrogate = surrogate + slope * damping * (self.start * relative)
        return as_if(scale * value, surrogate)

    @property
    def is_computed(self) -> bool:
        """Say whether each training step computes the scale, and no optimizer learns it."""
        return self.scale.method != "learned"

    def advance(self, numbers: Any, nearest: Any) -> None:
        """After a training step, set a scale that is computed for the next one.

        Args:
            numbers: The weights in units of the start.
            nearest: Their nearest values.
        """
        shape = tuple(self.relative.shape)
        axes = [a for a in range(len(numbers.shape)) if not shape or shape[a] == 1]

        def total(tensor: Any) -> Any:
            return ops.reshape(ops.sum(tensor, axis=axes), shape)

        if self.scale.method == "least_squares":
            above, below = total(numbers * nearest), total(nearest * nearest)
        else:
            magnitude = self._magnitude()
            if self._values.channels is not None:
                magnitude = along(magnitude, self._values.axis, len(numbers.shape))
            above, below = total(ops.abs(numbers)), total(ops.ones_like(numbers) * magnitude)
        better = above / ops.where(below > 0, below, 1.0)
        usable = ops.logical_and(below > 0, above > 0)
        relative = ops.convert_to_tensor(self.relative)
        self.relative.assign(ops.where(usable, _clamped(better), relative))


_LEAST, _MOST = 2.0**-10, 2.0**10


def _clamped(relative: Any) -> Any:
    return ops.minimum(ops.maximum(relative, _LEAST), _MOST)
