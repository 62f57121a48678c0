"""A parameter: a latent, a list of values, an estimator, and maybe a scale."""

import math
from typing import Any

import keras
import numpy as np
from keras import ops
from numpy.typing import ArrayLike

from quantal.estimators import Estimator
from quantal.projection import projection_of
from quantal.values import Values


class LatentUnits:
    """The units in which the optimizer moves latents: half the list's range, or more.

    `value = offset + unit * latent`. With it one learning rate serves every list: an
    Adam step of 0.001 is a thousandth of half the range, for [±0.01] as for [±8]. The
    unit is the next power of two, so that it multiplies exactly; the offset is 0 unless
    the list lies far from zero, and then subtracts exactly. So a value becomes the same
    latent and a latent the same code everywhere, under every compiler.
    """

    def __init__(self, values: Values) -> None:
        half_range = values.high / 2 - values.low / 2
        nearest_to_zero = (
            min(abs(values.low), abs(values.high)) if values.low * values.high > 0 else 0.0
        )
        # Within a factor of two of the offset, subtracting it is exact (Sterbenz).
        self.offset = values.low / 2 + values.high / 2 if nearest_to_zero > 2 * half_range else 0.0
        self.offset = float(np.float32(self.offset))
        self.unit = 2.0 ** math.ceil(math.log2(half_range)) if half_range > 0 else 1.0
        smallest = min((abs(v) for v in values.numbers.tolist() if v), default=1.0)
        if not smallest / self.unit > 2.0**-100 or not 2.0**-100 < self.unit < 2.0**100:
            self.offset, self.unit = 0.0, 1.0

    def values_of(self, latents: Any) -> Any:
        """Latents (tensor) -> numbers in the units of the list, float32."""
        return ops.cast(latents, "float32") * self.unit + self.offset

    def latents_of(self, numbers: Any) -> Any:
        """Numbers in the units of the list (array or tensor) -> latents, float32."""
        return (numbers - np.float32(self.offset)) / np.float32(self.unit)


def draw_latents(values: Values, shape: Any, seed: Any = None, spread: float = 0.05) -> Any:
    """First latents: beside the midpoints of the list, so that first steps flip them.

    Each element draws one midpoint, all alike, and lies within `spread` of half the
    gap from it. So every value is held by some elements and both directions of a flip
    are open. Latents that start wide of the midpoints take long to change their mind:
    in a Fashion-MNIST network of five epochs that cost more than a point of accuracy.

    Args:
        values: The list.
        shape: Of the latents.
        seed: Integer or `keras.random.SeedGenerator`; None draws one, as Keras's
            initializers do.
        spread: Largest distance from the midpoint in half gaps.

    Returns:
        float32 latents, in latent units.
    """
    units = LatentUnits(values)
    if len(values) == 1:
        return ops.full(shape, float(units.latents_of(values.ascending)[0]), dtype="float32")
    uniform = keras.initializers.RandomUniform(0.0, 1.0, seed=seed)(shape, dtype="float32")
    place = uniform * (len(values) - 1)
    gap = ops.minimum(ops.cast(place, "int32"), len(values) - 2)
    sideways = 2 * (place - ops.cast(gap, "float32")) - 1
    # Half gaps and midpoints in float64: a range may overflow float32, its half may not.
    ascending = values.ascending.astype(float)
    middle = ascending[:-1] / 2 + ascending[1:] / 2
    reach = spread * values.gaps / 2
    middle, reach = (
        ops.convert_to_tensor((numbers / units.unit).astype(np.float32))
        for numbers in (middle - units.offset, reach)
    )
    return ops.take(middle, gap) + sideways * ops.take(reach, gap)


class Parameter:
    """One learnable tensor whose values come from a list.

    Layers make parameters; `parameters_of` finds them. The latent belongs to the layer
    and is what optimizers, weight regularizers and files see, in latent units
    (`LatentUnits`).

    Args:
        latent: The float32 variable that the optimizer moves.
        values: The list.
        estimator: How gradients pass.
        state: float32 variable of the estimator's state, or None.
        scale: float32 variable, a factor on every value, or None.
    """

    def __init__(
        self,
        latent: keras.Variable,
        values: Values,
        estimator: Estimator,
        state: keras.Variable | None = None,
        scale: keras.Variable | None = None,
    ) -> None:
        self.latent = latent
        self.values = values
        self.estimator = estimator
        self.state = state
        self.scale = scale
        self._units = LatentUnits(values)
        # Made here, outside any compiler's trace.
        self._projection = projection_of(values)

    @property
    def path(self) -> str:
        """The latent's path in its model, for example `"dense/kernel"`."""
        return str(self.latent.path)

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the latent, the codes and the values."""
        return tuple(self.latent.shape)

    @property
    def kernel(self) -> Any:
        """The chosen values, members of the list: float32 tensor, no gradient."""
        return self._projection.nearest(self._numbers())

    @property
    def codes(self) -> Any:
        """The positions of the chosen values in the user's list: int32 tensor."""
        return self._projection.codes(self._numbers())

    def set_codes(self, codes: ArrayLike) -> None:
        """Choose the values: each latent moves onto the value with the given code.

        Args:
            codes: Integers of the parameter's shape.

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
        self.latent.assign(self._units.latents_of(self.values.take(codes)))

    def forward(self, training: bool) -> Any:
        """What a layer computes with: float32, with the estimator's gradient.

        In training it moves the estimator's state on by a step.
        """
        state = None if self.state is None else ops.convert_to_tensor(self.state)
        value = self.estimator(self._numbers(), self.values, training, state)
        if training and self.state is not None:
            self.state.assign(self.estimator.next_state(state))
        return value if self.scale is None else value * ops.convert_to_tensor(self.scale)

    def _numbers(self) -> Any:
        return self._units.values_of(self.latent)

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
    # The one private name: Keras has no public walk over the layers inside a layer.
    for layer in model._flatten_layers():
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
