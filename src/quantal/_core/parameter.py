"""A parameter: a latent, a list of values, an estimator, and maybe a scale."""

import math
from typing import Any

import keras
import numpy as np
from keras import ops
from numpy.typing import ArrayLike, NDArray

from quantal._core.estimator import Estimator
from quantal._core.keras_internals import flatten_layers
from quantal._core.numbers.values import Values
from quantal._core.scale import ScaleState
from quantal._core.tensors.latent_units import LatentUnits, entry_units
from quantal._core.tensors.projection import Projection, moving_projection, projection_of


class Parameter:
    """One learnable tensor whose values come from a list.

    Layers make parameters; `parameters_of` finds them. The latent belongs to the layer
    and is what optimizers, weight regularizers and files see, in latent units
    (`LatentUnits`).

    Args:
        latent: The float32 variable that the optimizer moves.
        values: The list; where it starts, if it is learnable.
        estimator: How gradients pass.
        state: float32 variable of the estimator's state, or None.
        scale: The scale's variables, or None.
        entries: For a learnable list, the trainable float32 variable of its numbers in
            latent units, in the shape of the list; None for a fixed list.
        seed: The seed generator of the layer, for an estimator that draws random
            numbers; None for others.
    """

    def __init__(
        self,
        latent: keras.Variable,
        values: Values,
        estimator: Estimator,
        state: keras.Variable | None = None,
        scale: ScaleState | None = None,
        entries: keras.Variable | None = None,
        seed: keras.random.SeedGenerator | None = None,
    ) -> None:
        values.check_channels(latent.shape)
        self.latent = latent
        self.estimator = estimator
        self.state = state
        self.entries = entries
        self.scale_state = scale
        self.seed = seed
        self.given: Any = None
        """A float32 tensor that stands for the listed values while it is there, or None."""
        self._first_values = values
        self._units = LatentUnits(values, len(latent.shape))
        self._entry_units = entry_units(values)
        # Made here, outside any compiler's trace.
        self._fixed = None if values.learnable else projection_of(values, len(latent.shape))

    @property
    def path(self) -> str:
        """The latent's path in its model, for example `"dense/kernel"`."""
        return str(self.latent.path)

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the latent, the codes and the values."""
        return tuple(self.latent.shape)

    @property
    def variables(self) -> list[keras.Variable]:
        """What is trained: the latent, and a learned scale and list."""
        scale = self.scale_state
        learned = scale.relative if scale is not None and scale.relative.trainable else None
        return [v for v in (self.latent, learned, self.entries) if v is not None]

    @property
    def beside(self) -> list[keras.Variable]:
        """The variables besides the latent: the estimator's state, the scale's, the list's."""
        scale = self.scale_state
        scales = [] if scale is None else [scale.start, scale.relative]
        return [v for v in (self.state, self.entries, *scales) if v is not None]

    @property
    def bits(self) -> int:
        """Bits of the codes at fixed length, of the scales and of a learned list."""
        numbers = 0 if self.scale_state is None else math.prod(self.scale_state.start.shape)
        numbers += 0 if self.entries is None else math.prod(self.entries.shape)
        return math.prod(self.shape) * self._first_values.bits + 32 * numbers

    @property
    def values(self) -> Values:
        """The list; a learnable one with the numbers that it has now."""
        if self.entries is None:
            return self._first_values
        return self._first_values.moved(ops.convert_to_numpy(self._entry_numbers()))

    @property
    def scale(self) -> Any:
        """The factor on the values: float32 tensor of shape () or one that broadcasts, or None."""
        return None if self.scale_state is None else self.scale_state.value()

    @property
    def kernel(self) -> Any:
        """The chosen values, members of the list: float32 tensor, no gradient."""
        return self._projection().nearest(self._place())

    @property
    def codes(self) -> Any:
        """The positions of the chosen values in the user's list: int32 tensor."""
        return self._projection().codes(self._place())

    def set_codes(self, codes: ArrayLike, where: ArrayLike | None = None) -> None:
        """Choose the values: each latent moves onto the value with the given code.

        Args:
            codes: Integers of the parameter's shape.
            where: Booleans of that shape: the elements to set. None for all.

        Raises:
            TypeError: The codes are not integers.
            ValueError: Their shape is another, or a code is not in the list.
        """
        codes = np.asarray(ops.convert_to_numpy(codes))
        if codes.shape != self.shape:
            raise ValueError(
                f"codes have the shape {codes.shape}. {self.path} has the shape "
                f"{self.shape}. Give one code for each element."
            )
        self._hold(self.values.take(codes), where)

    def set_values(self, numbers: ArrayLike) -> None:
        """Give a learnable list other numbers, in the order of its codes.

        Args:
            numbers: Real numbers in the shape of the list, (K,) or (channels, K).

        Raises:
            ValueError: The list is not learnable, or the shape is another.
        """
        numbers = np.asarray(numbers, np.float32)
        if self.entries is None or numbers.shape != tuple(self.entries.shape):
            raise ValueError(
                f"numbers have the shape {numbers.shape}; {self.path} has {self.values!r}. "
                "Expected a learnable list and numbers in its shape. Make the list with "
                "Values(..., learnable=True)."
            )
        self.entries.assign(self._entry_units.latents_of(numbers))

    def refresh_values(self) -> None:
        """Move each entry of a learnable list to the mean of the latents that hold it.

        Entries that no latent holds stay.

        Raises:
            ValueError: The list is not learnable.
        """
        values = self.values
        codes, places = (ops.convert_to_numpy(t) for t in (self.codes, self._place()))
        rows = np.atleast_2d(values.numbers).astype(float)
        if values.channels is not None:
            codes, places = (np.moveaxis(array, values.axis, 0) for array in (codes, places))
        codes, places = codes.reshape(len(rows), -1), places.reshape(len(rows), -1)
        for row, own, held in zip(rows, codes, places, strict=True):
            counts = np.bincount(own, minlength=len(row))
            sums = np.bincount(own, weights=held, minlength=len(row))
            row[counts > 0] = sums[counts > 0] / counts[counts > 0]
        self.set_values(rows.reshape(values.numbers.shape))

    def start_from(self, weights: ArrayLike) -> None:
        """Start at trained weights: with the scale that loses least, each at its nearest value.

        The latents keep the weights' order and what they are beside the values.

        Args:
            weights: Real numbers of the parameter's shape.
        """
        weights = np.asarray(ops.convert_to_numpy(weights), np.float32)
        if self.scale_state is not None:
            state = self.scale_state
            scales = state.scale.fitted(weights, self.values, tuple(state.start.shape))
            state.begin(scales)
            weights = weights / scales
        self.latent.assign(self._units.latents_of(weights))

    def forward(self, training: bool) -> Any:
        """What a layer computes with: float32, with the estimator's gradient.

        In training it moves the estimator's state, its seed, and a scale that is
        computed, on by a step. While values are `given`, it takes these, with the scale.
        """
        if self.given is not None:
            return self.given if self.scale is None else self.scale * self.given
        state = None if self.state is None else ops.convert_to_tensor(self.state)
        listed: Any = self._projection()
        place = self._place()
        value = self.estimator.forward(place, listed, bool(training), state, self.seed)
        if self.entries is not None:
            # The sum of the gradients of all elements that hold an entry goes to it.
            entry = listed.entry(place)
            value = value + (entry - ops.stop_gradient(entry))
        if training and self.state is not None:
            self.state.assign(self.estimator.next_state(state))
        if self.scale_state is None:
            return value
        weight = self.scale_state.apply(value, place, listed)
        if training:
            self.scale_state.move(ops.stop_gradient(self._numbers()), listed.nearest(place))
        return weight

    def moments(self) -> tuple[Any, Any]:
        """(mean, variance) of the weight whose elements are random choices, with gradients.

        For a parameter with the estimator `MeanField`; float32, in the latent's shape.
        """
        mean, variance = self.estimator.moments(self._place(), self._projection())  # type: ignore[attr-defined]
        if self.scale_state is None:
            return mean, variance
        scale = self.scale_state.value()
        return scale * mean, scale * scale * variance

    def _numbers(self) -> Any:
        return self._units.values_of(self.latent)

    def _place(self) -> Any:
        """The latents in the units of the list, the scale taken off."""
        numbers = self._numbers()
        return numbers if self.scale_state is None else self.scale_state.to_list_units(numbers)

    def _hold(self, numbers: NDArray[np.float32], where: ArrayLike | None) -> None:
        """Put the latents onto numbers in the units of the list."""
        if self.scale_state is not None:
            relative = self.scale_state.value() / ops.convert_to_tensor(self.scale_state.start)
            numbers = numbers * ops.convert_to_numpy(relative)
        latents = self._units.latents_of(numbers)
        if where is not None:
            latents = np.where(where, latents, ops.convert_to_numpy(self.latent))
        self.latent.assign(latents)

    def _projection(self) -> Projection:
        if self._fixed is not None:
            return self._fixed
        axis = self._first_values.axis
        return moving_projection(self._entry_numbers(), axis, len(self.shape))

    def _entry_numbers(self) -> Any:
        return self._entry_units.values_of(self.entries)

    def __repr__(self) -> str:
        return f"<Parameter {self.path}, shape {self.shape}, {self.values!r}, {self.estimator!r}>"


def parameters_of(model: keras.Layer) -> list[Parameter]:
    """The parameters of a model or layer, in the order of its layers, each once.

    Args:
        model: A built model or layer; layers inside layers are searched too.

    Raises:
        TypeError: It is not a Keras layer or model.
        ValueError: A discrete layer in it is not built yet, so it has no parameters.

    >>> import keras, quantal
    >>> model = keras.Sequential([keras.Input((3,)), quantal.LearnableMultiplier()])
    >>> [parameter.shape for parameter in parameters_of(model)]
    [(3,)]
    """
    if not isinstance(model, keras.Layer):
        raise TypeError(
            f"model is {model!r} of type {type(model).__name__}. Expected a Keras model "
            "or layer. Give the model itself, not its weights or its path."
        )
    found: dict[int, Parameter] = {}
    for layer in flatten_layers(model):
        parameters = getattr(layer, "discrete_parameters", ())
        if parameters is None:
            raise ValueError(
                f"The layer {layer.name!r} is not built, so its parameters do not exist "
                "yet. parameters_of needs a built model. Call the model on data, or "
                "give it an Input, first."
            )
        for parameter in parameters:
            found.setdefault(id(parameter.latent), parameter)
    return list(found.values())
