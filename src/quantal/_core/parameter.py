"""A parameter is a latent with a list of values, an estimator and maybe a scale.

The numbers of a parameter are in one of these coordinate systems:

| system | what a number is | read by |
|---|---|---|
| latent | a number of order one: `start units = offset + unit * latent` (`LatentUnits`) | `effective_latent` |
| start units | the latent in the units of the list at the scale's start; without a scale these are list units | `_latent_in_start_units` |
| list units | start units divided by the relative scale: here latents are compared with the list | `latent_in_list_units` |
| value | a member of the list: the one nearest to the latent in list units | `listed_values` |
| weight | the value times the scale: what meets the data | `weight` |
| code | the position of a value in the user's list | `codes` |
| rank | the position of a value in the list in ascending order: for step functions, search and polish | `Values.order` |
| optimizer's | what the optimizer moves: the latent itself, or, for an estimator with steps of its own, another number whose moves alone count (`EffectiveLatent`) | `latent` |
| relative scale | the scale divided by its start: 1 at first, and what an optimizer moves | `scale_state.relative` |
"""  # noqa: E501 (a table)

import math
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import ops
from numpy.typing import ArrayLike, NDArray

from quantal._core.by_identity import ByIdentity
from quantal._core.effective_latent import EffectiveLatent, Followed
from quantal._core.estimator import Estimator
from quantal._core.keras_internals.calls import training_of_call
from quantal._core.keras_internals.layers import flatten_layers
from quantal._core.keras_internals.scopes import without_autocast
from quantal._core.numbers.checks import check_finite_numbers
from quantal._core.numbers.knapsack import Choice
from quantal._core.numbers.scale_blocks import spread
from quantal._core.numbers.values import Values
from quantal._core.scale_state import ScaleState
from quantal._core.tensors.backend import has_numbers
from quantal._core.tensors.computed_once import computed_once
from quantal._core.tensors.distributed import whole, whole_array, with_mean_gradient
from quantal._core.tensors.fused import FusedFunction
from quantal._core.tensors.gradients import as_if
from quantal._core.tensors.kept import KeptTensor
from quantal._core.tensors.latent_units import LatentUnits, entry_units
from quantal._core.tensors.level_noise import LevelNoise
from quantal._core.tensors.projection import Projection, moving_projection, projection_of
from quantal._core.types import Tensor
from quantal._core.weight_scope import replacement_of

LATENT_SUFFIX = "_latent"
"""The end of the name of every latent: it is not the weight that meets the data."""


def paths_in_layouts(latent: keras.Variable) -> list[str]:
    """Return the paths under which a layout map may know a latent: its weight's, and its own.

    A layer creates its kernel under the first, and users read the second from a built model.
    """
    path = latent.path.removesuffix(LATENT_SUFFIX)
    return [path, f"{path}{LATENT_SUFFIX}"]


class Calibration(NamedTuple):
    """A calibration says how well a listed weight does on samples.

    Attributes:
        error: The distance of the weight's outputs to those of the trained weight, relative to
            their own size; None where the weight was not calibrated.
        note: Why it was not; empty where it was.
    """

    error: float | None
    note: str = ""


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
        self._first_values = values
        self._units = LatentUnits(values, len(latent.shape))
        self._entry_units = entry_units(values)
        self._sources = [latent, *self.other_variables]
        self._kept, self._fused = KeptTensor(), FusedFunction()
        self._noise = None if values.noise is None else LevelNoise(values)
        self.calibration: Calibration | None = None
        self.choice: Choice | None = None
        # Created here, outside any compiler's trace.
        self._fixed = None if values.learnable else projection_of(values, len(latent.shape))

    @property
    def path(self) -> str:
        """The path that names the weight in its model, for example `"dense/kernel"`.

        The latent, which optimizers and files see, has the path `"dense/kernel_latent"`.
        """
        return str(self.latent.path).removesuffix(LATENT_SUFFIX)

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
        return math.prod(self.shape) * self._first_values.bits + 32 * numbers

    @property
    def values(self) -> Values:
        """The list that values come from; a learnable one has its present numbers."""
        if self.entries is None:
            return self._first_values
        return self._first_values.moved(whole_array(self._entry_numbers()))

    @property
    def scale(self) -> Tensor | None:
        """The factor that multiplies the values: float32 tensor that broadcasts, or None."""
        return None if self.scale_state is None else self.scale_state.value()

    @property
    def effective_latent(self) -> Tensor:
        """The latent that everything computes with: float32 tensor, with gradient to `latent`.

        It is `latent` itself, unless the estimator has steps of its own.
        """
        if self.effective is not None:
            return self.effective.followed().latent
        # Latents are read in float32, also where a layer of another dtype asks for the weight.
        with without_autocast():
            return ops.cast(ops.convert_to_tensor(self.latent), "float32")

    @property
    def listed_values(self) -> Tensor:
        """The listed values that the elements have, without the scale.

        They are members of the list: float32 tensor in the parameter's shape, without
        gradient. They are NaN where the latent is not finite, as `weight` is, which is what
        meets the data.
        """
        latent = ops.stop_gradient(self.latent_in_list_units)
        return whole(ops.where(ops.isfinite(latent), self._projection().nearest(latent), math.nan))

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
        return whole(self._kept.unshared(self.compute(training_of_call())))

    @property
    def codes(self) -> Tensor:
        """The positions of the elements' values in the user's list: int32 tensor.

        Raises:
            ValueError: A number of the parameter is not finite; see `check_finite`.
        """
        latent = self.latent_in_list_units
        if has_numbers(latent):
            self.check_finite()
        return whole(self._projection().codes(latent))

    @property
    def latent_in_list_units(self) -> Tensor:
        """The latent in the units in which it is compared with the list: float32 tensor.

        It passes gradients to the latent, and none to the scale.
        """
        return self._to_list_units(self._latent_in_start_units())

    def _to_list_units(self, numbers: Tensor) -> Tensor:
        return numbers if self.scale_state is None else self.scale_state.to_list_units(numbers)

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
        numbers = self.values.take(codes)
        if self.scale_state is not None:
            state = self.scale_state
            relative = state.spread(state.compact() / ops.convert_to_tensor(state.start))
            numbers = numbers * whole_array(relative)
        return self._units.latents_of(numbers)

    def codes_of(self, latents: ArrayLike) -> NDArray[np.int32]:
        """Return the codes that other latents than the present ones would have."""
        numbers = self._units.values_of(ops.convert_to_tensor(latents, "float32"))
        numbers = self._to_list_units(numbers)
        return whole_array(self._projection().codes(numbers))

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
        self.entries.assign(self._entry_units.latents_of(numbers))

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
        channels = len(lists)
        for entries, codes_of_channel, latents_of_channel in zip(
            lists, codes.reshape(channels, -1), latents.reshape(channels, -1), strict=True
        ):
            counts = np.bincount(codes_of_channel, minlength=len(entries))
            sums = np.bincount(codes_of_channel, latents_of_channel, minlength=len(entries))
            entries[counts > 0] = sums[counts > 0] / counts[counts > 0]
        self.set_values(lists.reshape(values.numbers.shape))

    def start_from(self, weights: ArrayLike) -> None:
        """Start at trained weights: with the scale that loses least, each at its nearest value.

        The latents keep the weights' order and their differences from the values.

        Args:
            weights: Real numbers of the parameter's shape.

        Raises:
            ValueError: A weight is NaN or infinite.
        """
        weights = np.asarray(whole_array(weights), np.float32)
        self._check("weights", weights)
        if self.scale_state is not None:
            state = self.scale_state
            scales = state.scale.fitted(weights, self.values, tuple(state.start.shape))
            state.begin(scales)
            weights = weights / spread(scales, self.shape)
        self.set_latents(self._units.latents_of(weights))

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
        latents = self._units.latents_of(numbers)
        values = self.values
        is_within = (numbers >= values.low) & (numbers <= values.high)
        is_near = is_within & np.isfinite(latents) & (self.codes_of(latents) == codes)
        self.set_latents(np.where(is_near, latents, listed))

    def note_calibration(self, calibration: "Calibration") -> None:
        """Note what a calibration came to."""
        self.calibration = calibration

    def note_choice(self, choice: Choice) -> None:
        """Note from which lists the one of this parameter was chosen, and what each costs."""
        self.choice = choice

    def stand_still(self) -> None:
        """Stop the training, for good: a change of a variable is expected by assignment alone."""
        for variable in self.variables:
            variable.trainable = False
        self._kept = KeptTensor(are_still=True)

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
            self._kept.forget()
            weight, followed = self._compute_in_training()
            if not self.estimator.random:  # Whose derivative is that of each replica's own draw.
                weight = with_mean_gradient(weight)
            if self._noise is not None:
                weight = computed_once(weight + self._drawn_noise(self._noise, followed))
            if advance:
                self._advance(followed)
            return weight
        with without_autocast():
            return self._kept.get(self._sources, self._compute)

    def with_gradients(self, values: Tensor) -> Tensor:
        """Return listed values as they are, with the gradients to a learned list and scale.

        It is for `weights_replaced`, where values alone pass no gradient to either.

        Args:
            values: Members of the list, (*shape): float32.
        """
        if self.entries is not None:
            values = as_if(values, self._projection().entry(values))  # type: ignore[attr-defined]
        return values if self.scale_state is None else values * self.scale_state.one()

    def _compute_in_training(self) -> tuple[Tensor, Followed | None]:
        """Return the weight with its gradient, and the effective latent after all moves."""
        if self.estimator.random:
            followed = self._followed()
            return self._compute(True, followed), followed

        def compute() -> tuple[Tensor, ...]:
            followed = self._followed()
            weight = self._compute(True, followed)
            return (weight,) if followed is None else (weight, *followed.parts())

        with without_autocast():
            weight, *parts = self._fused(self._sources, compute)
        return weight, Followed.of(parts) if parts else None

    def _followed(self) -> Followed | None:
        return None if self.effective is None else self.effective.followed()

    def _compute(self, training: bool = False, followed: Followed | None = None) -> Tensor:
        projection, followed = self._projection(), followed or self._followed()
        latent = self._latent_of(followed)
        if followed is None:
            state = None if self.state is None else ops.convert_to_tensor(self.state)
        else:
            state = followed.state
        value = self.estimator.forward(latent, projection, training, state, self.seed)
        if self.entries is not None:
            value = projection.with_entries(value, latent)  # type: ignore[attr-defined]
        if self.scale_state is not None:
            value = self.scale_state.apply(value, latent, projection)
        return computed_once(value, training)

    def _latent_of(self, followed: Followed | None) -> Tensor:
        """Return the latent in list units, of an effective latent where there is one."""
        if followed is None:
            return self.latent_in_list_units
        return self._to_list_units(self._units.values_of(followed.latent))

    def _drawn_noise(self, noise: LevelNoise, followed: Followed | None) -> Tensor:
        """Return the noise of the values that the elements have now, times the scale."""
        with without_autocast():
            latent = ops.stop_gradient(self._latent_of(followed))
            drawn = noise.draw(latent, self._projection(), self.seed)
            return drawn if self.scale_state is None else self.scale_state.value() * drawn

    def advance(self) -> None:
        """Move the estimator's state, and what it computes, on by a training step.

        A computed scale and the effective latent of an estimator with steps of its own go on.

        Layers call it once in each training step, after `compute`, which still has the
        old ones. For a frozen parameter, and within `weights_replaced`, it does nothing.
        """
        if self.is_frozen or replacement_of(self) is not None:
            return
        self._advance(self._followed())

    def _advance(self, followed: Followed | None) -> None:
        if self.effective is not None and followed is not None:
            self.effective.advance(followed)
        elif self.state is not None:
            self.state.assign(self.estimator.next_state(ops.convert_to_tensor(self.state)))
        if self.scale_state is not None and self.scale_state.is_computed:
            numbers = ops.stop_gradient(self._latent_in_start_units())
            self.scale_state.advance(numbers, self.listed_values)

    def moments(self) -> tuple[Tensor, Tensor]:
        """Return mean and variance of a weight whose elements are random, with gradients.

        It is for a parameter with the estimator `MeanField`; both are float32, in the
        latent's shape. The noise of a list is a part of the variance: that of the value which is
        the nearest now.
        """
        latent, projection, scale = self._latent_in_start_units(), self._projection(), None
        if self.scale_state is not None:
            elements = math.prod(self.shape)
            scale, relative = self.scale_state.differentiable(elements, projection)
            latent = latent * (1.0 / relative)
        mean, variance = self.estimator.moments(latent, projection)  # type: ignore[attr-defined]
        if self._noise is not None:
            deviation = self._noise.deviations(ops.stop_gradient(latent), projection)
            variance = variance + deviation * deviation
        return (mean, variance) if scale is None else (scale * mean, scale * scale * variance)

    def _check(self, what: str, numbers: Any, positive: bool = False) -> None:
        check_finite_numbers(f"{what} of {self.path}", whole_array(numbers), positive)

    def _latent_in_start_units(self) -> Tensor:
        return self._units.values_of(self.effective_latent)

    def _projection(self) -> Projection:
        if self._fixed is not None:
            return self._fixed
        axis = self._first_values.axis
        return moving_projection(self._entry_numbers(), axis, len(self.shape))

    def _entry_numbers(self) -> Tensor:
        return self._entry_units.values_of(self.entries)

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
