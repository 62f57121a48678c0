"""A parameter is a latent with a list of values, an estimator and maybe a scale.

`coordinates.py` has the table of the units of its numbers, `weight_computation.py` what meets the
data.
"""

import math
from typing import Any

import keras
import numpy as np
from numpy.typing import ArrayLike, NDArray

from quantal._core.by_identity import ByIdentity
from quantal._core.coordinates import Coordinates
from quantal._core.effective_latent import EffectiveLatent
from quantal._core.estimator import Estimator
from quantal._core.keras_internals.calls import training_of_call
from quantal._core.keras_internals.layers import flatten_layers
from quantal._core.latent_name import weight_path
from quantal._core.numbers.calibration import Calibration
from quantal._core.numbers.checks import check_finite_numbers
from quantal._core.numbers.k_means import means_by_code
from quantal._core.numbers.knapsack import Choice
from quantal._core.numbers.scale_blocks import spread
from quantal._core.numbers.values import Values
from quantal._core.scale_state import ScaleState
from quantal._core.tensors.backend import has_numbers
from quantal._core.tensors.distributed import whole, whole_array
from quantal._core.types import Tensor
from quantal._core.weight_computation import WeightComputation
from quantal._core.weight_scope import replacement_of


class Parameter:
    """A parameter is one learnable tensor whose values come from a list.

    Layers create parameters; `parameters_of` collects them. The latent belongs to the
    layer and is what optimizers, weight regularizers and files see, in latent units
    (`LatentUnits`). For an estimator with steps of its own (`Settling`) it says by its moves
    where the effective latent goes, and is not that number itself: set it with `set_codes`
    or `start_from`.

    Args:
        latent: The float32 variable that the optimizer moves.
        values: The list; its first numbers, if it is learnable.
        estimator: How gradients pass.
        state: float32 variable of the estimator's state, or None.
        scale: The scale's variables, or None.
        entries: For a learnable list, the trainable float32 variable of its numbers in
            latent units, in the shape of the list; None for a fixed list.
        seed: The seed generator of the layer, for an estimator that draws random
            numbers and for a list with noise; None for others.
        effective: The effective latent of an estimator with steps of its own; None for
            others.

    >>> import keras, quantal
    >>> layer = quantal.LearnableMultiplier([1, -1, 0.5])
    >>> layer.build((None, 2))
    >>> (parameter,) = quantal.parameters_of(layer)
    >>> parameter.set_codes([2, 1])
    >>> keras.ops.convert_to_numpy(parameter.listed_values)
    array([ 0.5, -1. ], dtype=float32)
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
        effective: EffectiveLatent | None = None,
    ) -> None:
        values.check_channels(latent.shape)
        self.latent = latent
        self.estimator = estimator
        self.state = state
        self.entries = entries
        self.scale_state = scale
        self.seed = seed
        self.effective = effective
        self.calibration: Calibration | None = None
        self.choice: Choice | None = None
        self._coordinates = Coordinates(latent, values, scale, entries, effective)
        sources = [latent, *self.other_variables]
        self._computation = WeightComputation(self._coordinates, estimator, state, seed, sources)

    @property
    def path(self) -> str:
        """The path that names the weight in its model, for example `"dense/kernel"`.

        The latent, which optimizers and files see, has the path `"dense/kernel_latent"`.
        """
        return weight_path(self.latent)

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape that the latent, codes, values and weight share."""
        return tuple(self.latent.shape)

    @property
    def is_frozen(self) -> bool:
        """Whether training leaves the parameter alone: its latent is not trainable.

        A frozen parameter is listed, still and without noise in training, too: it computes
        as in inference, and neither its scale nor its list nor its state moves. Set
        `layer.trainable`, of its layer or any layer around it, to freeze or thaw it.
        """
        return not self.latent.trainable

    @property
    def variables(self) -> list[keras.Variable]:
        """The variables that training moves: the latent, a learned scale and a learned list.

        While the parameter is frozen, they stand still.
        """
        scale = self.scale_state
        learned = None if scale is None or scale.is_computed else scale.relative
        return [v for v in (self.latent, learned, self.entries) if v is not None]

    @property
    def other_variables(self) -> list[keras.Variable]:
        """The variables that accompany the latent: the estimator's, the list's and the scale's."""
        scale, effective = self.scale_state, self.effective
        scales = [] if scale is None else [scale.start, scale.relative]
        steps = [] if effective is None else effective.variables
        return [v for v in (self.state, self.entries, *scales, *steps) if v is not None]

    @property
    def bits(self) -> int:
        """The number of bits that codes of fixed length, the scales and a learned list take."""
        numbers = 0 if self.scale_state is None else math.prod(self.scale_state.start.shape)
        numbers += 0 if self.entries is None else math.prod(self.entries.shape)
        return math.prod(self.shape) * self._coordinates.first_values.bits + 32 * numbers

    @property
    def values(self) -> Values:
        """The list that values come from; a learnable one has its present numbers."""
        return self._coordinates.values()

    @property
    def scale(self) -> Tensor | None:
        """The factor that multiplies the values: float32 tensor that broadcasts, or None."""
        return None if self.scale_state is None else self.scale_state.value()

    @property
    def effective_latent(self) -> Tensor:
        """The latent that everything computes with: float32 tensor, with gradient to `latent`.

        It is `latent` itself, unless the estimator has steps of its own.
        """
        return self._coordinates.effective_latent()

    @property
    def listed_values(self) -> Tensor:
        """The listed values that the elements have, without the scale.

        They are members of the list: float32 tensor in the parameter's shape, without
        gradient. They are NaN where the latent is not finite, as `weight` is, which is what
        meets the data.
        """
        return self._coordinates.listed_values()

    @property
    def weight(self) -> Tensor:
        """The numbers that meet the data: the listed values times the scale, if there is one.

        They are a float32 tensor in the parameter's shape, with the estimator's gradient
        to the latent, a learned scale and a learned list. So a penalty on it, or a second
        layer that shares it, trains the parameter. Within the call of a Keras layer that
        trains, a soft estimator gives its soft values here, as the layer itself
        computes with them; everywhere else the values are listed ones. An estimator that draws
        random numbers, and a list with noise, draw new ones for each use.

        >>> import keras, quantal
        >>> layer = quantal.LearnableMultiplier([1, -1], scale="learned")
        >>> layer.build((None, 2))
        >>> parameter = layer.discrete_parameters[0]
        >>> parameter.start_from([0.5, -0.5])
        >>> keras.ops.convert_to_numpy(parameter.listed_values).tolist()
        [1.0, -1.0]
        >>> keras.ops.convert_to_numpy(parameter.weight).tolist()
        [0.5, -0.5]
        """
        return whole(self._computation.unshared(self.compute(training_of_call())))

    @property
    def codes(self) -> Tensor:
        """The positions of the elements' values in the user's list: int32 tensor.

        Raises:
            ValueError: A number of the parameter is not finite; see `check_finite`.
        """
        latent = self.latent_in_list_units
        if has_numbers(latent):
            self.check_finite()
        return whole(self._coordinates.projection().codes(latent))

    @property
    def latent_in_list_units(self) -> Tensor:
        """The latent in the units in which it is compared with the list: float32 tensor.

        It passes gradients to the latent, and none to the scale.
        """
        return self._coordinates.in_list_units()

    def check_finite(self) -> None:
        """Refuse a parameter whose training has diverged.

        Whatever writes, bakes or exports a parameter asks this before it changes anything.

        Raises:
            ValueError: A latent, or a number of the scale, the list or the estimator's state
                is NaN or infinite, or the scale is not positive.
        """
        scale = self.scale_state
        self._check("latents", self.latent)
        if self.effective is not None:
            self._check("latents", self.effective_latent)
        if scale is not None:
            for variable in (scale.start, scale.relative):
                self._check("numbers of the scale", variable)
            self._check("scales", scale.compact(), positive=True)
        if self.entries is not None:
            self._check("numbers of the list", self.entries)
        if self.state is not None:
            self._check("numbers of the estimator's state", self.state)

    def set_codes(self, codes: ArrayLike, where: ArrayLike | None = None) -> None:
        """Move each latent onto the value with the given code.

        Args:
            codes: Integers of the parameter's shape.
            where: Booleans of that shape: the elements to set. None for all.

        Raises:
            TypeError: The codes are not integers.
            ValueError: Their shape is another, a code is not in the list, or the scale or the
                list is not finite.
        """
        codes = np.asarray(whole_array(codes))
        if codes.shape != self.shape:
            raise ValueError(
                f"codes have the shape {codes.shape}. {self.path} has the shape "
                f"{self.shape}. Give one code for each element."
            )
        latents = self.latents_of(codes)
        self._check("latents of these codes", latents)
        if where is not None:
            latents = np.where(where, latents, whole_array(self.effective_latent))
        self.set_latents(latents)

    def set_latents(self, latents: NDArray[np.float32]) -> None:
        """Set the latents to numbers in latent units, from which training goes on."""
        self.latent.assign(latents)
        self.restart()

    def restart(self) -> None:
        """Take the optimizer's variable, which has been set, for the effective latent."""
        if self.effective is not None:
            self.effective.restart()

    def latents_of(self, codes: NDArray[Any]) -> NDArray[np.float32]:
        """Return the latents that lie on the values with the given codes."""
        return self._coordinates.latents_at(codes)

    def codes_of(self, latents: ArrayLike) -> NDArray[np.int32]:
        """Return the codes that other latents than the present ones would have."""
        return self._coordinates.codes_at(latents)

    def set_values(self, numbers: ArrayLike) -> None:
        """Give a learnable list other numbers, in the order of its codes.

        Args:
            numbers: Real numbers in the shape of the list, (K,) or (channels, K).

        Raises:
            ValueError: The list is not learnable, the shape is another, or a number is not finite.
        """
        numbers = np.asarray(numbers, np.float32)
        if self.entries is None or numbers.shape != tuple(self.entries.shape):
            raise ValueError(
                f"numbers have the shape {numbers.shape}; {self.path} has {self.values!r}. "
                "Expected a learnable list and numbers in its shape. Create the list with "
                "Values(..., learnable=True)."
            )
        self._check("numbers", numbers)
        self.entries.assign(self._coordinates.entry_latents(numbers))

    def refresh_values(self) -> None:
        """Move each entry of a learnable list to the mean of the latents that have its code.

        Entries whose code no latent has stay where they are.

        Raises:
            ValueError: The list is not learnable.
        """
        values = self.values
        lists = np.atleast_2d(values.numbers).astype(float)
        codes, latents = (whole_array(tensor) for tensor in (self.codes, self.latent_in_list_units))
        if values.channels is not None:
            codes, latents = (np.moveaxis(array, values.axis, 0) for array in (codes, latents))
        rows = (array.reshape(len(lists), -1) for array in (codes, latents))
        means = [means_by_code(*row) for row in zip(lists, *rows, strict=True)]
        self.set_values(np.reshape(means, values.numbers.shape))

    def start_from(self, weights: ArrayLike) -> None:
        """Start at trained weights: with the scale that loses least, each at its nearest value.

        The latents keep the weights' order and their differences from the values.

        Args:
            weights: Real numbers of the parameter's shape.

        Raises:
            ValueError: A weight is NaN or infinite.
        """
        numbers = np.asarray(whole_array(weights), np.float32)
        self._check("weights", numbers)
        if self.scale_state is not None:
            state = self.scale_state
            scales = state.scale.fitted(numbers, self.values, tuple(state.start.shape))
            state.begin(scales)
            numbers = numbers / spread(scales, self.shape)
        self.set_latents(self._coordinates.latents_of(numbers))

    def start_at(
        self,
        codes: NDArray[Any],
        numbers: NDArray[np.float32],
        scales: NDArray[np.float32] | None = None,
    ) -> None:
        """Start at given codes, and latents that say how sure each of them is.

        Args:
            codes: Integers of the parameter's shape.
            numbers: Latents in list units, alike. Where the value nearest to one is not that of
                its code, and beyond the ends of the list, the latent lies on the value itself.
            scales: The scale to start with, in its own shape; None to leave it as it is.
        """
        if self.scale_state is not None and scales is not None:
            self.scale_state.begin(scales)
        listed = self.latents_of(codes)
        latents = self._coordinates.latents_of(numbers)
        values = self.values
        is_within = (numbers >= values.low) & (numbers <= values.high)
        is_near = is_within & np.isfinite(latents) & (self.codes_of(latents) == codes)
        self.set_latents(np.where(is_near, latents, listed))

    def note_calibration(self, calibration: Calibration) -> None:
        """Note what a calibration came to."""
        self.calibration = calibration

    def note_choice(self, choice: Choice) -> None:
        """Note from which lists the one of this parameter was chosen, and what each costs."""
        self.choice = choice

    def stand_still(self) -> None:
        """Stop the training, for good: a change of a variable is expected by assignment alone."""
        for variable in self.variables:
            variable.trainable = False
        self._computation.stand_still()

    def compute(self, training: bool, advance: bool = False) -> Tensor:
        """Compute the weight that meets the data, with the estimator's gradient.

        A frozen parameter computes the same in training as in inference. Outside a compiler
        the weight of inference is computed once and kept until a variable changes: do not
        change the tensor in place.

        Only if asked it moves state and scale, as `advance` does. A random estimator, and in
        training a list with noise, draw from the layer's seed generator. Within
        `weights_replaced` the weight is the tensor given there, times the scale.

        Args:
            training: Whether the estimator may show what training sees, such as soft
                values; in inference every estimator shows listed ones.
            advance: Whether to call `advance` afterwards, in training; together they cost less.

        Returns:
            A float32 tensor of the parameter's shape.
        """
        replacement = replacement_of(self)
        if replacement is not None:
            return replacement if self.scale is None else self.scale * replacement
        if training and not self.is_frozen:
            return self._computation.in_training(advance)
        return self._computation.in_inference()

    def with_gradients(self, values: Tensor) -> Tensor:
        """Return listed values as they are, with the gradients to a learned list and scale.

        It is for `weights_replaced`, where values alone pass no gradient to either.

        Args:
            values: Members of the list, (*shape): float32.
        """
        return self._computation.with_gradients(values)

    def advance(self) -> None:
        """Move the estimator's state, and what it computes, on by a training step.

        A computed scale and the effective latent of an estimator with steps of its own go on.

        Layers call it once in each training step, after `compute`, which still has the
        old ones. For a frozen parameter, and within `weights_replaced`, it does nothing.
        """
        if not self.is_frozen and replacement_of(self) is None:
            self._computation.advance(self._coordinates.followed())

    def moments(self) -> tuple[Tensor, Tensor]:
        """Return mean and variance of a weight whose elements are random, with gradients.

        It is for a parameter with the estimator `MeanField`; both are float32, in the
        latent's shape. The noise of a list is a part of the variance: that of the value which is
        the nearest now.
        """
        return self._computation.moments()

    def _check(self, what: str, numbers: Any, positive: bool = False) -> None:
        check_finite_numbers(f"{what} of {self.path}", whole_array(numbers), positive)

    def __repr__(self) -> str:
        return f"<Parameter {self.path}, shape {self.shape}, {self.values!r}, {self.estimator!r}>"


def parameters_of(model: keras.Layer) -> list[Parameter]:
    """Return the parameters of a model or layer, in the order of its layers, each once.

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
    parameters: ByIdentity[Parameter] = ByIdentity()
    for layer in flatten_layers(model):
        parameters_of_layer = getattr(layer, "discrete_parameters", ())
        if parameters_of_layer is None:
            raise ValueError(
                f"The layer {layer.name!r} is not built, so its parameters do not exist "
                "yet. parameters_of needs a built model. Call the model on data, or "
                "give it an Input, first."
            )
        for parameter in parameters_of_layer:
            parameters.setdefault(parameter.latent, parameter)
    return list(parameters.values())
