"""LearnableMultiplier: a vector of listed values that multiplies the data."""

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from quantal._core.estimator import Estimator
from quantal._core.numbers.values import ValuesLike
from quantal._core.scale import Scale
from quantal._core.tensors.latent_units import LatentUnits, draw_latents
from quantal._core.types import Tensor
from quantal.layers._axes import axes_of_input, checked_axis
from quantal.layers._discrete_layer import DiscreteLayer
from quantal.layers._sharding import refuse_sharded


@keras.saving.register_keras_serializable(package="quantal")
class LearnableMultiplier(DiscreteLayer):
    """A multiplier multiplies its input by a learnable vector of listed values.

    Use it for a vector of ±1 that selects signs, a mask of 0 and 1, per-channel gains
    of powers of two: one value for each position along `axis`, broadcast over the
    other axes.

    Formula: `output = input * kernel`. `kernel` is what meets the data, with the
    estimator's gradient: `listed_values`, each of which is from `values`, times the scale, if
    there is one. The variable that optimizers move is the latent, `kernel_latent`.

    Args:
        values: The list: numbers in any order, a preset's name, or `Values`.
        axis: The axis or axes along which each index has a value; an integer or a
            tuple. -1: one value for each feature or channel. (1, 2) on (batch, time,
            features): one for each time step and feature. Not the batch axis 0.
        estimator: How gradients pass: an estimator or its name. `"auto"` decides by the
            weight's shape (`quantal.estimators.resolve`).
        scale: None for the values as listed; or a factor on them, 1 at first:
            `"learned"`, `"least_squares"`, `"mean_absolute"` or a `quantal.Scale`. Then
            `listed_values` still are listed, and `kernel` is no longer. `"auto"`: one
            learned scale for the whole vector where the list's numbers are proportions
            (powers of two, integers, or 1 the largest magnitude), none elsewhere.
        kernel_initializer: Where the latents start, in the units of the list: a Keras
            initializer. None starts them near the list's midpoints, where first
            steps already flip them.
        kernel_regularizer: A penalty on the latents, in units of about half the list's
            range.
        kernel_constraint: A constraint of the latents.
        seed: The seed of the first latents when `kernel_initializer` is None.
        **kwargs: `name`, `dtype`, `trainable`, `activity_regularizer`.

    Input shape: any with the given axes, of fixed size along them.
    Output shape: the input's.
    Masks pass.

    Raises:
        TypeError: The axis, the estimator or an entry of the list has another type.
        ValueError: The list, axis, estimator or scale is invalid.

    Example:
    >>> import keras, numpy as np
    >>> layer = LearnableMultiplier(values=[1, -1, 0.5, -0.5])
    >>> layer(np.ones((2, 3))).shape == (2, 3)
    True
    >>> layer.set_codes([0, 3, 2])
    >>> keras.ops.convert_to_numpy(layer(np.ones((1, 3))))
    array([[ 1. , -0.5,  0.5]], dtype=float32)
    """

    # A scale for each element would make the vector a free one.
    _axis_of_auto_scale = None

    def __init__(
        self,
        values: ValuesLike = (-1, 1),
        *,
        axis: int | Sequence[int] = -1,
        estimator: str | dict[str, Any] | Estimator = "auto",
        scale: str | Scale | dict[str, Any] | None = None,
        kernel_initializer: Any = None,
        kernel_regularizer: Any = None,
        kernel_constraint: Any = None,
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self._configure(values, estimator, scale, seed)
        self.axis = checked_axis(
            axis, "an integer or a tuple of integers", "Give -1 for one value per feature."
        )
        self.kernel_initializer = (
            None if kernel_initializer is None else keras.initializers.get(kernel_initializer)
        )
        self.kernel_regularizer = keras.regularizers.get(kernel_regularizer)
        self.kernel_constraint = keras.constraints.get(kernel_constraint)
        self.supports_masking = True

    def build(self, input_shape: Any) -> None:
        """Create the latents, one for each index along the axes.

        Raises:
            ValueError: The input has no such axes, or no fixed size along them.
        """
        rank, kernel_axes = len(input_shape), axes_of_input(self.axis, input_shape, "a value", "")
        shape = tuple(input_shape[axis] for axis in kernel_axes)
        self.input_spec = keras.layers.InputSpec(
            ndim=rank, axes=dict(zip(kernel_axes, shape, strict=True))
        )
        self.kernel_axes = kernel_axes
        self.broadcast_shape = tuple(
            size if axis in kernel_axes else 1 for axis, size in enumerate(input_shape)
        )
        # TensorFlow tracks attributes alone.
        self._latent = latent = self.add_weight(
            name="kernel",
            shape=shape,
            initializer=self._first_latents,
            regularizer=self.kernel_regularizer,
            constraint=self.kernel_constraint,
            dtype="float32",
            autocast=False,
        )
        every_axis = tuple(range(len(shape)))
        self._set_parameters([self._create_parameter(latent, output_axes=every_axis)])

    def _first_latents(self, shape: Any, dtype: Any = None) -> Tensor:
        if self.kernel_initializer is None:
            return draw_latents(self.values, shape, self.seed)
        numbers = self.kernel_initializer(shape, dtype="float32")
        return LatentUnits(self.values, len(shape)).latents_of(numbers)

    def call(self, inputs: Tensor, training: bool | None = None) -> Tensor:
        """Multiply the inputs by the weight, and in training advance its state."""
        parameter = self._only_parameter()
        if training:
            refuse_sharded(self.discrete_parameters or ())
        weight = parameter.compute(bool(training), advance=bool(training))
        weight = ops.reshape(ops.cast(weight, self.compute_dtype), self.broadcast_shape)
        return ops.multiply(inputs, weight)

    def compute_output_shape(self, input_shape: Any) -> Any:
        """Return the input's shape."""
        return input_shape

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments, for saving."""
        return {
            **super().get_config(),
            "axis": self.axis if isinstance(self.axis, int) else list(self.axis),
            "kernel_initializer": keras.saving.serialize_keras_object(self.kernel_initializer),
            "kernel_regularizer": keras.saving.serialize_keras_object(self.kernel_regularizer),
            "kernel_constraint": keras.saving.serialize_keras_object(self.kernel_constraint),
        }
