"""DiscreteActivation: what flows through a network takes the nearest listed values."""

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops
from numpy.typing import ArrayLike, NDArray

from quantal._core.estimator import Estimator
from quantal._core.keras_internals.calls import mask_of
from quantal._core.numbers.short_name import short_name
from quantal._core.numbers.values import Values, ValuesLike
from quantal._core.scale import Scale, parse_scale, resolve_activation_scale
from quantal._core.tensors.distributed import whole_array
from quantal._core.tensors.projection import projection_of
from quantal._core.types import Tensor
from quantal.estimators._softmax import SoftmaxEstimator
from quantal.estimators.policy import parse
from quantal.estimators.straight_through import StraightThrough
from quantal.layers._activation_scale import ActivationScale
from quantal.layers._axes import axes_of_input, checked_axis

# Created once: PyTorch's compiler cannot trace the checks of their arguments.
_CLIPPED = StraightThrough("clip")


@keras.saving.register_keras_serializable(package="quantal")
class DiscreteActivation(keras.layers.Layer):
    """A discrete activation replaces each input by the nearest listed value.

    Use it where an activation function stands, or as one: `"binary"` in place of the sign or of
    hard_tanh, `"unsigned:8"` after a ReLU (or instead of one: what is below 0 becomes 0),
    `"signed:8"` for inputs of either sign. It has no latents: the gradient goes on to the layers
    below.

    Formula: `output = scale * P(input * (1 / scale))`, where `P` is the nearest listed value; on
    a midpoint the larger one, so 0 becomes +1 on ±1. It is exactly that in float32, whose result
    is rounded once to the dtype of the layer, in training and in inference.

    Gradient: by default that of `clip(input, scale * low, scale * high)`, with `low` and `high`
    the list's ends: 1 between them, 0 beyond. That is Larq's `ste_sign` for ±1, and PACT's for a
    list from 0.

    Args:
        values: The list: numbers in any order, a preset's name (`"binary"`, `"unsigned:8"`), or
            `Values`. Fixed point with k bits, f of them behind the point, is
            `Values.unsigned(k, step=2**-f)` or `Values.signed(k, step=2**-f)`. An array of shape
            (channels, K) gives each channel a list.
        estimator: How gradients pass: `"auto"` is `StraightThrough("clip")`. Another one is an
            estimator or its name, without state or random numbers: `StraightThrough` with any
            surrogate, or `ElementWiseScaled`.
        scale: None for the values as listed; or the factor of the formula, 1 until the first
            training batch: `"learned"`, `"percentile"` (it follows the batches, for calibration
            without training), `"least_squares"`, `"mean_absolute"`, or a `quantal.Scale`. `"auto"`
            learns one where the list's numbers are proportions (powers of two, integers, or 1
            the largest magnitude), except for ±1 and for 0 and 1, and has none elsewhere.
        axis: None for one scale; or the axis, or axes, along which each index has its own: -1
            for one for each channel. Not the batch axis 0.
        **kwargs: `name`, `dtype`, `trainable`, `activity_regularizer`. While `trainable` is
            False, the scale stays.

    Input shape: any. Output shape: the input's. Masks pass, and what they leave out does not
    count for the scale.

    Raises:
        TypeError: The axis, the estimator or an entry of the list has another type.
        ValueError: The list, axis, estimator or scale is invalid or not for activations.

    Sources: Esser et al., "Learned Step Size Quantization", ICLR 2020; Choi et al., "PACT", 2018;
    Hubara et al., "Binarized Neural Networks", NeurIPS 2016; Geiger and Team, "Larq", JOSS 2020.

    Example:
    >>> import keras
    >>> layer = DiscreteActivation("binary")
    >>> keras.ops.convert_to_numpy(layer(keras.ops.array([[-0.3, 0.0, 4.0]])))
    array([[-1.,  1.,  1.]], dtype=float32)
    """

    def __init__(
        self,
        values: ValuesLike,
        estimator: str | dict[str, Any] | Estimator = "auto",
        scale: str | Scale | dict[str, Any] | None = None,
        axis: int | Sequence[int] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.values = _checked_values(values)
        self.estimator = parse(estimator)
        self._resolved_estimator = _checked_estimator(self.estimator)
        self.scale = parse_scale(scale)
        self.axis = _checked_axis(axis, self.scale)
        self._resolved_scale = resolve_activation_scale(self.scale, self.values)
        self._scale: ActivationScale | None = None
        self._follows = False
        self.supports_masking = True

    def build(self, input_shape: Any) -> None:
        """Create the scale, if there is one.

        Raises:
            ValueError: The input has no such axes, or no fixed size along them.
        """
        rank = len(input_shape)
        axes = self._axes_of(tuple(input_shape))
        sizes = {axis: input_shape[axis] for axis in axes}
        if self.values.channels is not None:
            self.values.check_channels(tuple(input_shape))
            sizes[self.values.axis % rank] = self.values.channels
        if sizes:
            self.input_spec = keras.layers.InputSpec(ndim=rank, axes=sizes)
        # Created here, outside any compiler's trace.
        projection_of(self.values, rank)
        if self._resolved_scale is not None:
            shape = [input_shape[axis] if axis in axes else 1 for axis in range(rank)]
            self._scale = ActivationScale(
                self._resolved_scale,
                self.values,
                tuple(shape) if axes else (),
                rank,
                self.add_weight,
                self.name,
            )

    def _axes_of(self, input_shape: tuple[int | None, ...]) -> list[int]:
        """Return the axes along which each index has a scale, as positive integers."""
        if self.axis is None:
            return []
        return axes_of_input(self.axis, input_shape, "a scale", ", or None for one scale")

    def call(self, inputs: Tensor, training: bool | None = None) -> Tensor:
        """Return the nearest listed values, times the scale; in training move the scale."""
        numbers = ops.cast(inputs, "float32")
        projection = projection_of(self.values, len(numbers.shape))
        forward, is_training = self._resolved_estimator.forward, bool(training)
        if self._scale is None:
            listed = forward(numbers, projection, is_training, None)
        else:
            if self._follows or (is_training and self.trainable):
                # Not an argument: a graph would keep it as one of what bake puts in this place.
                weights = _weights_of(mask_of(inputs), len(numbers.shape))
                self._scale.observe(numbers, weights, projection, fits_all=self._follows)
            # Not a quotient: XLA rounds those otherwise than NumPy does, and products alike.
            numbers = numbers * (1.0 / self._scale.value())
            listed = forward(numbers, projection, is_training, None)
            listed = self._scale.apply(listed, numbers, projection)
        return ops.cast(listed, self.compute_dtype)

    def compute_output_shape(self, input_shape: Any) -> Any:
        """Return the input's shape."""
        return input_shape

    def scale_value(self) -> NDArray[np.float32]:
        """Return the scale as it is now: 1 where there is none.

        Returns:
            float32, of shape (), or one that broadcasts over a batch of inputs.

        Raises:
            ValueError: The layer has a scale and is not built.

        >>> float(DiscreteActivation("binary").scale_value())
        1.0
        """
        if self._resolved_scale is None:
            return np.ones((), np.float32)
        return whole_array(self._built_scale().value())

    def set_scale(self, scale: ArrayLike) -> None:
        """Set the scale, so that training continues from it instead of from the first batch.

        Args:
            scale: A positive number, or numbers that broadcast to the shape of `scale_value()`.

        Raises:
            ValueError: The layer has no scale or is not built, or a number is not positive.
        """
        self._built_scale().set(scale)

    @contextlib.contextmanager
    def following(self) -> Iterator[None]:
        """Let calls in the block move the scale, in inference too, to the mean of all their fits.

        Use it to calibrate a trained model: call it on some batches within. The calls may not be
        compiled, as those of `predict` are. A layer without a scale stays as it is.

        >>> import numpy as np
        >>> layer = DiscreteActivation("unsigned:8", scale="learned")
        >>> with layer.following():
        ...     _ = layer(np.linspace(0, 510, 99, dtype="float32"))
        >>> round(float(layer.scale_value()), 2)
        2.0
        """
        self._follows = True
        try:
            yield
        finally:
            self._follows = False

    def _built_scale(self) -> ActivationScale:
        if self._resolved_scale is None:
            raise ValueError(
                f"The layer {self.name!r} has no scale: scale is {self.scale!r} and its list is "
                f"{short_name(self.values)}. Expected a layer with one. Create it with "
                "scale='learned'."
            )
        if self._scale is None:
            raise ValueError(
                f"The layer {self.name!r} is not built, so it has no scale yet. Expected a built "
                "layer. Call it, or the model, once."
            )
        return self._scale

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments, for saving."""
        scale, axis = self.scale, self.axis
        return {
            **super().get_config(),
            "values": self.values.get_config(),
            "estimator": keras.saving.serialize_keras_object(self.estimator),
            "scale": scale.get_config() if isinstance(scale, Scale) else scale,
            "axis": list(axis) if isinstance(axis, tuple) else axis,
        }

    def __repr__(self) -> str:
        scale = self.scale.method if isinstance(self.scale, Scale) else self.scale
        return (
            f"<DiscreteActivation name={self.name}, values={short_name(self.values)}, "
            f"bits={self.values.bits}{'' if scale is None else f', scale={scale}'}>"
        )


def _checked_values(identifier: ValuesLike) -> Values:
    values = Values.get(identifier)
    if values.noise is not None:
        raise ValueError(
            "values has noise for an activation. Expected a list without: noise is drawn around "
            "weights alone. Leave out noise=."
        )
    if values.learnable:
        raise ValueError(
            "values is a learnable list for an activation. Expected a fixed one. Leave out "
            "learnable=True; scale='learned' learns one factor on all of its values."
        )
    return values


def _checked_estimator(estimator: Estimator | str) -> Estimator:
    """Return the estimator, or StraightThrough("clip") for "auto".

    Raises:
        ValueError: It keeps a state for each latent, or draws, or weighs all values of the list.
    """
    if isinstance(estimator, str):
        return _CLIPPED
    reasons = {
        "has a state that moves with each latent's steps": estimator.initial_state is not None
        or estimator.has_steps,
        "draws random numbers": estimator.random,
        "computes a number for each value of the list and each input": isinstance(
            estimator, SoftmaxEstimator
        )
        or estimator.always_soft,
    }
    reason = next((text for text, applies in reasons.items() if applies), None)
    if reason is not None:
        raise ValueError(
            f"estimator is {estimator!r} for an activation, and it {reason}. Expected one for "
            "tensors without latents: 'auto', quantal.estimators.StraightThrough with any "
            "surrogate, or 'element_wise_scaled'. Leave it out for the clipped gradient."
        )
    return estimator


def _checked_axis(axis: Any, scale: Scale | str | None) -> int | tuple[int, ...] | None:
    """Return the axis of the scale; that of a `Scale` where it has one."""
    scale_axis = scale.axis if isinstance(scale, Scale) else None
    if scale_axis == "output":
        raise ValueError(
            "The scale's axis is 'output' for an activation. Expected None or axes of the input. "
            "Give -1 for a scale for each channel."
        )
    if axis is not None and scale_axis is not None and axis != scale_axis:
        raise ValueError(
            f"axis is {axis!r}, and that of the scale is {scale_axis!r}. Expected one of them. "
            "Give the axis to the layer alone."
        )
    axis = scale_axis if axis is None else axis
    if axis is None:
        return None
    return checked_axis(
        axis, "None, an integer or a tuple of integers", "Give -1 for a scale for each channel."
    )


def _weights_of(mask: Tensor, rank: int) -> Tensor:
    """Return how often each input counts: 0 where a mask leaves it out."""
    if mask is None:
        return ops.ones((1,) * rank, "float32")
    weights = ops.cast(mask, "float32")
    return ops.reshape(weights, (*ops.shape(weights), *[1] * (rank - len(weights.shape))))
