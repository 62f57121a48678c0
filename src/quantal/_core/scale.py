"""Scales: one factor on all listed values of a weight, or one for each output channel or group.

With a scale the layer computes with `scale * value`; the values stay the listed ones and
the scale is stored separately.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from quantal._core.numbers.fitting import least_squares_scales, mean_absolute_scales
from quantal._core.numbers.scale_blocks import counts_of_groups, is_blocked, split
from quantal._core.numbers.values import Values

METHODS = ("learned", "least_squares", "mean_absolute")

PERCENTILE = "percentile"
"""The method that is for activations alone."""

LEAST_RELATIVE, MOST_RELATIVE = 2.0**-10, 2.0**10
"""A scale stays within this factor of its start, so that no step can lose it."""

AUTO = "auto"
"""The identifier that leaves the scale to `resolve_scale`."""


@dataclasses.dataclass(frozen=True)
class Scale:
    """A scale multiplies all listed values of a weight, or those of each output channel.

    Use it where the listed values stand for proportions: binary, ternary and powers of
    two in a network whose layers have a size of their own. A layer that starts from
    trained weights starts at the scale that loses least; a new one at the spread that
    its own initializer would have given.

    | method | scale `s`, for weights `u` and their nearest values `P = P(u / s)` |
    |---|---|
    | `"learned"` | trained with LSQ's gradient `ds = g (P - (u / s) [low <= u / s <= high])`, times `1 / sqrt(N max abs(v))` |
    | `"least_squares"` | in every training step one step towards the optimum: `s = sum u P / sum P^2` |
    | `"mean_absolute"` | in every training step `mean(abs(u))` over the mean magnitude of the nonzero values |
    | `"percentile"` | for `DiscreteActivation` alone: a thousandth of the inputs lies beyond the list's ends |

    The gradient to the weights is the estimator's in all of them, as if `s` were
    constant. Optimizers see a learned scale relative to its start, so an Adam step of
    0.001 is a thousandth of it; it stays within a factor of 1024 of its start.

    With the estimator `MeanField`, a linear layer trains a learned scale, and leaves one of the
    other two methods at its start: the latents say how sure a value is, and not how large.

    Args:
        method: One of the methods above.
        axis: The parts of the weight that have a scale each. None: the whole weight has
            one. `"output"`: each output channel has one, along the axis that the layer's
            kind says. An integer or several: each index along these axes of the weight.
        power_of_two: Whether the scale is rounded to the nearest power of two, with a
            straight-through gradient.
        group: How many consecutive inputs of an output channel share a scale, such as 128 in
            language models of 1 and 2 bits; None for all. The axis is `"output"` then. Inputs are
            counted along all axes but the outputs', the last one running fastest; where a
            channel has no more than a group, it has one scale.

    Raises:
        ValueError: The method, the axis or the group is another. A layer refuses a group that
            does not divide its inputs into equal blocks.

    Sources: Esser et al., "Learned Step Size Quantization", ICLR 2020, for any list;
    Rastegari et al., "XNOR-Net", ECCV 2016, and Ma et al., "The Era of 1-bit LLMs",
    2024 (mean absolute).

    >>> Scale("learned", axis="output")
    Scale(method='learned', axis='output', power_of_two=False)
    >>> Scale(group=128)
    Scale(method='learned', axis='output', power_of_two=False, group=128)
    """  # noqa: E501 (a table)

    method: str = "learned"
    axis: Any = None
    power_of_two: bool = False
    group: int | None = None

    def __repr__(self) -> str:
        names = [field.name for field in dataclasses.fields(self)]
        shown = names if self.group is not None else names[:-1]
        return f"Scale({', '.join(f'{name}={getattr(self, name)!r}' for name in shown)})"

    def __post_init__(self) -> None:
        if self.method not in (*METHODS, PERCENTILE):
            raise ValueError(
                f"scale is {self.method!r}. Expected None (the values as listed), "
                f"{', '.join(repr(method) for method in METHODS)}, or a quantal.Scale; layers "
                "and discretize also take 'auto', activations 'percentile'. Leave it out to keep "
                "the list."
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
        self._check_group()

    def _check_group(self) -> None:
        group = self.group
        if group is None:
            return
        if isinstance(group, bool) or not isinstance(group, (int, np.integer)) or group < 1:
            raise ValueError(
                f"group is {group!r}. Expected the number of inputs that share a scale, an integer "
                "from 1, or None for all. Give 128 if unsure."
            )
        if self.axis not in (None, "output"):
            raise ValueError(
                f"axis is {self.axis!r} with a group of {group}. Expected 'output': the groups are "
                "of the inputs of each output channel. Leave the axis out."
            )
        object.__setattr__(self, "axis", "output")
        object.__setattr__(self, "group", int(group))

    @classmethod
    def get(cls, identifier: "str | Scale | dict[str, Any] | None") -> Self | None:
        """Return the scale that an identifier stands for, or None for None.

        Args:
            identifier: A method's name, a `Scale`, its config, or None.

        Raises:
            ValueError: The method or the axis is another.

        >>> Scale.get("learned")
        Scale(method='learned', axis=None, power_of_two=False)
        """
        if identifier is None or isinstance(identifier, cls):
            return identifier
        if isinstance(identifier, dict):
            return cls(**identifier)
        return cls(identifier)  # type: ignore[arg-type]

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments, as JSON can hold them."""
        config = dataclasses.asdict(self)
        axis = config["axis"]
        return {**config, "axis": list(axis) if isinstance(axis, tuple) else axis}

    def shape(
        self, weight: Sequence[int], output_axes: Sequence[int], name: str = "the weight"
    ) -> tuple[int, ...]:
        """Return the shape of the scale of a weight: (), one that broadcasts, or that of blocks.

        `quantal._core.numbers.scale_blocks` says what the last is.

        Args:
            weight: The weight's shape.
            output_axes: The axes of its output channels.
            name: What messages call the weight.

        Raises:
            ValueError: The weight has no such axis, or the group does not fit it.
        """
        if self.axis is None:
            return ()
        given = self.axis if isinstance(self.axis, tuple) else (self.axis,)
        axes = tuple(output_axes) if self.axis == "output" else given
        rank = len(weight)
        if any(not -rank <= axis < rank for axis in axes):
            raise ValueError(
                f"axis of the scale is {self.axis!r}, but the weight has the shape "
                f"{tuple(weight)}. Expected axes from {-rank} to {rank - 1}. Give 'output' or "
                "one of these."
            )
        scaled_axes = {axis % rank for axis in axes}
        if self.group is not None:
            # A vector, each element of which is an output, has its groups along itself.
            inputs = [axis for axis in range(rank) if axis not in scaled_axes] or range(rank)
            return counts_of_groups(weight, inputs, self.group, name)
        return tuple(size if axis in scaled_axes else 1 for axis, size in enumerate(weight))

    def value_of(
        self, start: NDArray[np.float32], relative: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        """Return the scale of a start and of what it was multiplied by since then.

        Args:
            start: The scale at the start.
            relative: The relative scale, of the same shape.

        >>> Scale(power_of_two=True).value_of(np.float32(0.5), np.float32(2.3))
        np.float32(1.0)
        """
        product = start * np.clip(relative, np.float32(LEAST_RELATIVE), np.float32(MOST_RELATIVE))
        return rounded_to_powers(product) if self.power_of_two else product

    def fitted(
        self, weights: NDArray[Any], values: Values, shape: tuple[int, ...]
    ) -> NDArray[np.float32]:
        """Return the scales with which the listed values lose least of trained weights.

        They are fitted by mean magnitude for `"mean_absolute"`, else by least squares.

        Args:
            weights: The trained weights.
            values: The list, or a list for each channel.
            shape: The scale's shape, as `shape` returns it.

        Raises:
            ValueError: Lists per channel lie along an axis of groups.
        """
        is_mean = self.method == "mean_absolute"
        fit = mean_absolute_scales if is_mean else least_squares_scales
        if is_blocked(shape, weights.shape):
            weights, values, broadcasting = _split(weights, values, shape)
            scales = fit(weights, values, broadcasting).reshape(shape).astype(np.float32)
        else:
            scales = fit(weights, values, shape).astype(np.float32)
        return rounded_to_powers(scales) if self.power_of_two else scales


def _split(
    weights: NDArray[Any], values: Values, shape: tuple[int, ...]
) -> tuple[NDArray[Any], Values, tuple[int, ...]]:
    """Return weights, lists and a scale's shape with axes of their own for blocks."""
    sizes, counts, positions = split(shape, weights.shape)
    if values.channels is not None:
        axis = values.axis % weights.ndim
        if 1 < shape[axis] < weights.shape[axis]:
            raise ValueError(
                f"There are lists for {values.channels} channels along axis {axis}, and groups of "
                f"{weights.shape[axis] // shape[axis]} of them share a scale. Expected lists along "
                "the outputs. Give one list, or leave the group out."
            )
        values = Values(values, axis=positions[axis])
    return weights.reshape(sizes), values, tuple(counts)


def parse_scale(identifier: "str | Scale | dict[str, Any] | None") -> "Scale | str | None":
    """Return the scale that an identifier stands for, or `"auto"` for `"auto"`.

    A layer keeps the result as its setting.

    Args:
        identifier: `"auto"`, or what `Scale.get` accepts.

    Raises:
        ValueError: The method or the axis is another.

    >>> parse_scale("auto"), parse_scale(None)
    ('auto', None)
    """
    return AUTO if isinstance(identifier, str) and identifier == AUTO else Scale.get(identifier)


def has_natural_unit(values: Values) -> bool:
    """Return whether a list's numbers are proportions, so that a scale belongs to it.

    They are proportions if all nonzero magnitudes are powers of two, if all are
    integers, or if the largest magnitude is 1.

    >>> [has_natural_unit(Values(v)) for v in ("ternary", "nf4", [0.3, -0.7])]
    [True, True, False]
    """
    magnitudes = np.abs(values.numbers[values.numbers != 0])
    powers = np.all(np.frexp(magnitudes)[0] == 0.5)
    integers = np.all(magnitudes == np.round(magnitudes))
    return bool(magnitudes.size) and bool(powers or integers or magnitudes.max() == 1)


def resolve_scale(
    identifier: "str | Scale | dict[str, Any] | None", values: Values, axis: Any = "output"
) -> Scale | None:
    """Return the scale of weights on a list, with `"auto"` decided by the list.

    `"auto"` is a learned scale where the list's numbers are proportions: powers of two,
    integers, or 1 the largest magnitude. Elsewhere it is no scale.

    Args:
        identifier: `"auto"`, or what `Scale.get` accepts.
        values: The list.
        axis: The axis of the scale that `"auto"` gives.

    Raises:
        ValueError: The method is for activations alone.

    >>> resolve_scale("auto", Values("ternary"))
    Scale(method='learned', axis='output', power_of_two=False)
    >>> resolve_scale("auto", Values([0.3, -0.7])) is None
    True
    """
    scale = parse_scale(identifier)
    if isinstance(scale, str):
        return Scale("learned", axis) if has_natural_unit(values) else None
    if scale is not None and scale.method == PERCENTILE:
        raise ValueError(
            "scale is 'percentile' for weights. Expected 'learned', 'least_squares', "
            "'mean_absolute' or None: a percentile follows what flows through the network. Give "
            "it to quantal.DiscreteActivation."
        )
    return scale


_WITHOUT_AUTO_SCALE = (Values("binary"), Values("zero_one"))
"""A factor on these is one on the next layer's weights, so `"auto"` gives activations none."""


def resolve_activation_scale(
    identifier: "str | Scale | dict[str, Any] | None", values: Values
) -> Scale | None:
    """Return the scale of activations on a list, with `"auto"` decided by the list.

    Args:
        identifier: `"auto"`, or what `Scale.get` accepts.
        values: The list.

    >>> resolve_activation_scale("auto", Values("binary")) is None
    True
    """
    scale = parse_scale(identifier)
    if isinstance(scale, str):
        is_unit = any(np.array_equal(values.ascending, v.ascending) for v in _WITHOUT_AUTO_SCALE)
        return Scale("learned") if has_natural_unit(values) and not is_unit else None
    return scale


_LARGEST_EXPONENT = 100
"""Scales are rounded to 2^-100 to 2^100: their products with values stay within float32."""


def power_steps() -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return the thresholds and the levels of rounding to the nearest power of two by ratio."""
    exponents = np.arange(-_LARGEST_EXPONENT, _LARGEST_EXPONENT + 1)
    return (2.0 ** (exponents[1:] - 0.5)).astype(np.float32), (2.0**exponents).astype(np.float32)


def rounded_to_powers(scales: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the powers of two nearest to positive numbers, by ratio; 2^-100 to 2^100.

    >>> rounded_to_powers(np.array([0.3, 3.0], np.float32))
    array([0.25, 4.  ], dtype=float32)
    """
    thresholds, levels = power_steps()
    return levels[np.searchsorted(thresholds, scales, side="right")]
