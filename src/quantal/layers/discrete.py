"""Discrete: any layer, with some of its weights restricted to a list."""

import inspect
from collections.abc import Sequence
from typing import Any, Self

import keras
from keras import ops

from quantal._core.by_identity import ByIdentity
from quantal._core.estimator import Estimator
from quantal._core.keras_internals import flatten_layers
from quantal._core.numbers.values import ValuesLike
from quantal._core.scale import Scale
from quantal._core.tensors.backend import eager_section, like_variable
from quantal._core.tensors.latent_units import LatentUnits, draw_latents
from quantal._core.types import Tensor
from quantal.layers._channels import output_axes
from quantal.layers._discrete_layer import DiscreteLayer
from quantal.layers._dtypes import set_dtype_policy
from quantal.layers._first_values import FirstScale, initialize, one, scale_from_initializer
from quantal.layers._moments import moderated_call, passes_moments
from quantal.layers._scoped_call import call_with
from quantal.layers._signature import symbolic, with_signature, with_training
from quantal.layers._substitutes import refuse_substitute


@keras.saving.register_keras_serializable(package="quantal")
class Discrete(DiscreteLayer, keras.layers.Wrapper):
    """A wrapper restricts weights of any layer to a list.

    Use it around a Dense, a convolution, an Embedding, an LSTM, MultiHeadAttention, a
    model or a layer of your own. The wrapped layer's own weights become the latents:
    its other weights, its regularizers (on the latents), its masks, losses, dtype
    policy and state work as before.

    The layer belongs to the wrapper from then on: calling `layer` itself computes with
    latents. Discrete layers inside it keep their own lists. A layer that is already
    built keeps its weights as latents, so each starts at its nearest value; others
    start near the list's midpoints.

    `kernel` is the values as listed, `weight` what meets the data: the values times the
    scale, if there is one.

    Args:
        layer: The Keras layer to wrap.
        values: The list: numbers in any order, a preset's name, or `Values`.
        weight_names: The weights to restrict: the name or names of variables ("kernel",
            "recurrent_kernel", "embeddings"), the ends of their paths ("query/kernel"),
            or positions in the layer's `weights`. Every weight that matches is taken.
        estimator: How gradients pass: an estimator or its name. `"auto"` decides by the
            weight's shape (`quantal.estimators.resolve`).
        scale: None for the values as listed; or a factor on the values of each weight:
            `"learned"`, `"least_squares"`, `"mean_absolute"`, or a `quantal.Scale`, for
            example one for each output channel. `"auto"`: a learned scale for each
            output channel where the list's numbers are proportions (powers of two,
            integers, or 1 the largest magnitude), none elsewhere.
        seed: The seed of the first latents of an unbuilt layer.
        **kwargs: `name`; `trainable`: False freezes the wrapped layer with its values, scale
            and list; `dtype` is handed to the wrapped layer.

    Input shape, output shape, arguments of the call: the wrapped layer's.

    Raises:
        TypeError: The layer is no Keras layer, or weight_names, estimator or an entry of
            the list has another type.
        ValueError: The list, estimator or scale is invalid; no weight has such a name;
            the layer has half-precision weights, uses LoRA or Keras's quantization.

    Example:
    >>> import keras, numpy as np
    >>> layer = Discrete(keras.layers.Dense(2, use_bias=False), "ternary")
    >>> outputs = layer(np.eye(3))
    >>> layer.set_codes([[0, 1], [2, 1], [1, 0]])
    >>> keras.ops.convert_to_numpy(layer(np.eye(3)))
    array([[-1.,  0.],
           [ 1.,  0.],
           [ 0., -1.]], dtype=float32)
    """

    def __init__(
        self,
        layer: keras.Layer,
        values: ValuesLike,
        weight_names: str | int | Sequence[str | int] = "kernel",
        *,
        estimator: str | dict[str, Any] | Estimator = "auto",
        scale: str | Scale | dict[str, Any] | None = None,
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        if not isinstance(layer, keras.Layer):
            raise TypeError(
                f"layer is {layer!r} of type {type(layer).__name__}. Expected a Keras layer. "
                "Give an instance, such as keras.layers.Dense(10)."
            )
        # Keras reads names, masks and `training` from the signature of `call`.
        signature = inspect.signature(layer.call)
        self._layer_takes_training = "training" in signature.parameters
        self.call = with_signature(self._call_listed, with_training(signature))
        dtype = kwargs.pop("dtype", None)
        # Latents are read in float32: the wrapper has no dtype of its own, and the
        # wrapped layer casts by its own policy.
        super().__init__(layer, dtype="float32", autocast=False, **kwargs)
        self._configure(values, estimator, scale, seed)
        self.weight_names = _checked_names(weight_names)
        self.supports_masking = layer.supports_masking
        if not self.trainable:
            _freeze_inside(layer)
        set_dtype_policy(layer, dtype)
        # The weights that have their first latents, each with its scale's first value.
        self._first_scales: ByIdentity[FirstScale] = ByIdentity()
        for latent in self._named_variables():
            self._start_from_trained(latent)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the wrapped layer with listed weights; build it first, if need be."""
        if self.discrete_parameters is None and not _is_built(self.layer):
            # Keras's own call builds a layer of any signature, and layers that its
            # `build` forgot; a symbolic one costs nothing.
            with eager_section():
                self.layer(*symbolic(args), **symbolic(kwargs))
            self._begin_weights()
            self.build()
        return super().__call__(*args, **kwargs)

    def build(self, input_shape: Any = None) -> None:
        """Build the wrapped layer, if need be, and restrict its weights."""
        if not self.layer.built:
            with eager_section():
                self.layer.build(input_shape)
            self.layer.built = True
            self._begin_weights()
        self._refuse_other_kernels()
        latents = self._latents()
        parameters = [
            self._create_parameter(
                latent,
                f"{index}_" if len(latents) > 1 else "",
                output_axes(self.layer, latent),
                self._first_scales.get(latent, one),
            )
            for index, latent in enumerate(latents)
        ]
        self._set_parameters(parameters, owners=flatten_layers(self.layer))

    def get_build_config(self) -> dict[str, Any] | None:
        """Return what a built wrapper is built again from; None before."""
        # Around a built layer the wrapper may still be unbuilt.
        return None if self.discrete_parameters is None else self.layer.get_build_config()

    def build_from_config(self, config: dict[str, Any]) -> None:
        """Build the layer from what `get_build_config` returned."""
        if not self.layer.built:
            self.layer.build_from_config(config)
            self._begin_weights()
        # A layer without `build` of its own gets its weights in its first call.
        if self._named_variables():
            self.build()

    def _begin_weights(self) -> None:
        """Freeze what the wrapped layer created in its build, if it is frozen; draw latents."""
        for layer in flatten_layers(self.layer):
            if not layer.trainable:
                _freeze_inside(layer)
        self._draw_first_latents()

    def _named_variables(self) -> list[keras.Variable]:
        """Return the wrapped layer's variables that `weight_names` names, so far.

        Those that a discrete layer inside it has on a list already are not among them.
        """
        taken = ByIdentity.of_keys(
            parameter.latent
            for inner in flatten_layers(self.layer)
            for parameter in getattr(inner, "discrete_parameters", None) or ()
        )
        names = [name for name in self.weight_names if isinstance(name, str)]
        return [
            variable
            for position, variable in enumerate(unwrapped(self.layer).weights)
            if variable not in taken
            and (
                position in self.weight_names
                or any(f"/{variable.path}".endswith(f"/{name}") for name in names)
            )
        ]

    def _latents(self) -> list[keras.Variable]:
        latents = self._named_variables()
        if not latents:
            paths = ", ".join(variable.path for variable in self.layer.weights) or "none"
            raise ValueError(
                f"weight_names is {list(self.weight_names)}, but the layer "
                f"{self.layer.name!r} has no such weight. It has: {paths}. Give a name, or "
                "the end of a path, of these."
            )
        return latents

    def _start_from_trained(self, latent: keras.Variable) -> None:
        """Turn a weight that the layer brought along into a latent near its values."""
        self.values.check_channels(latent.shape)
        trained, scale = ops.convert_to_numpy(latent), self._resolved_scale
        self._first_scales[latent] = one
        if scale is not None:
            shape = scale.shape(trained.shape, output_axes(self.layer, latent))
            scales = scale.fitted(trained, self.values, shape)
            self._first_scales[latent] = lambda: scales
            trained = trained / scales
        latent.assign(LatentUnits(self.values, trained.ndim).latents_of(trained))

    def _draw_first_latents(self) -> None:
        """Draw the first latents of weights that have none yet."""
        for index, latent in enumerate(self._named_variables()):
            if latent in self._first_scales:
                continue
            scale = self._resolved_scale
            self._first_scales[latent] = (
                one if scale is None else scale_from_initializer(latent, scale, self.values)
            )
            seed = None if self.seed is None else self.seed + index

            def draw(shape: Any, dtype: Any, seed: int | None = seed) -> Tensor:
                return ops.cast(draw_latents(self.values, shape, seed), dtype)

            initialize(latent, draw)

    def _refuse_other_kernels(self) -> None:
        for layer in flatten_layers(self.layer):
            refuse_substitute(layer, "Wrap a layer without it.", f" inside {self.name!r}")

    def _call_listed(self, *args: Any, **kwargs: Any) -> Any:
        """Call the wrapped layer with listed values in place of the latents."""
        self._refuse_other_kernels()
        training = bool(kwargs.get("training"))
        if not self._layer_takes_training:
            kwargs.pop("training", None)
        parameters = self.discrete_parameters or []
        if training and passes_moments(self.layer, parameters):
            return self._call_moderated(*args, **kwargs)
        weights: ByIdentity[Tensor] = ByIdentity()
        for parameter in parameters:
            weight = parameter.compute(training)
            weights[parameter.latent] = like_variable(weight, parameter.latent)
            if training:
                parameter.advance()
        return call_with(self.layer, weights, self.add_loss, args, kwargs)

    def _call_moderated(self, inputs: Tensor, **kwargs: Any) -> Tensor:
        """Call the wrapped layer with a random weight, by its mean and variance."""

        def call(tensors: ByIdentity[Tensor], inputs: Tensor) -> Tensor:
            return call_with(self.layer, tensors, self.add_loss, (inputs,), kwargs)

        return moderated_call(self.layer, self._only_parameter(), inputs, call)

    def compute_output_spec(self, *args: Any, **kwargs: Any) -> Any:
        """Return the wrapped layer's output as symbolic tensors."""
        return self.layer.compute_output_spec(*args, **kwargs)

    def compute_output_shape(self, *args: Any, **kwargs: Any) -> Any:
        """Return the shape of the wrapped layer's output."""
        return self.layer.compute_output_shape(*args, **kwargs)

    def compute_mask(self, *args: Any, **kwargs: Any) -> Any:
        """Return the mask of the wrapped layer's output."""
        return self.layer.compute_mask(*args, **kwargs)

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments, for saving."""
        config = super().get_config()
        # The wrapped layer keeps its own.
        del config["dtype"]
        return {**config, "weight_names": list(self.weight_names)}

    @classmethod
    def from_config(cls, config: dict[str, Any], *args: Any, **kwargs: Any) -> Self:
        """Return the wrapper that `get_config` described, with latents drawn anew.

        Args:
            config: What `get_config` returned.
            *args: `custom_objects`, the classes and functions that the wrapped layer's
                config names.
            **kwargs: Alike.
        """
        discrete = super().from_config(config, *args, **kwargs)
        # Keras has built the layer from its config; those random weights mean nothing.
        discrete._first_scales = ByIdentity()
        discrete._draw_first_latents()
        return discrete


def unwrapped(layer: keras.Layer) -> keras.Layer:
    """Return the layer inside all `Discrete` wrappers around it, or the layer itself."""
    while isinstance(layer, Discrete):
        layer = layer.layer
    return layer


def _freeze_inside(layer: keras.Layer) -> None:
    """Freeze all layers inside a layer that is frozen, or shall be, and the layer itself.

    Keras hands the flag of a layer on to those inside it at the moment when it is set: not to
    those that its build creates later, and nothing of a constructor's argument.
    """
    for inner in flatten_layers(layer):
        inner.trainable = False


def _is_built(layer: keras.Layer) -> bool:
    return all(inner.built for inner in flatten_layers(layer))


def _checked_names(weight_names: Any) -> tuple[str | int, ...]:
    is_one = isinstance(weight_names, (str, int))
    names = (weight_names,) if is_one else tuple(weight_names or ())

    def is_name(name: Any) -> bool:
        if isinstance(name, str):
            return bool(name.strip("/"))
        return isinstance(name, int) and not isinstance(name, bool) and name >= 0

    if not names or not all(is_name(name) for name in names):
        raise TypeError(
            f"weight_names is {weight_names!r}. Expected the name of a weight or several names. "
            "Give, for example, 'kernel' or ('kernel', 'recurrent_kernel')."
        )
    return tuple(name.strip("/") if isinstance(name, str) else name for name in names)
