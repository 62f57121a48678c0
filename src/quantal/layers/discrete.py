"""Discrete: any layer, with some of its weights restricted to a list."""

import inspect
from collections.abc import Callable, Sequence
from typing import Any, Self

import keras

from quantal._core.by_identity import ByIdentity
from quantal._core.estimator import Estimator
from quantal._core.keras_internals.allocation import is_allocated
from quantal._core.keras_internals.calls import is_inherited, training_of_call
from quantal._core.keras_internals.layers import flatten_layers, own_variables
from quantal._core.numbers.values import ValuesLike
from quantal._core.parameter import Parameter
from quantal._core.scale import Scale
from quantal._core.tensors.backend import eager_section, like_variable
from quantal._core.types import Tensor
from quantal.layers._attributes import is_shared, refuse_in_build, with_listed_weights
from quantal.layers._channels import output_axes
from quantal.layers._discrete_layer import DiscreteLayer
from quantal.layers._dtypes import set_dtype_policy
from quantal.layers._first_latents import FirstLatents
from quantal.layers._first_values import do_values_follow, values_follow
from quantal.layers._moments import moderated_call, passes_moments
from quantal.layers._scoped_call import Watched, call_with
from quantal.layers._sharding import refuse_sharded
from quantal.layers._signature import symbolic, with_signature, with_training
from quantal.layers._substitutes import (
    LORA,
    QUANTIZATION,
    forbid_substitutes,
    refuse_substitute,
    refuse_use,
)
from quantal.layers._weight_names import (
    HOW_TO_LIST_ACTIVATIONS,
    checked_names,
    refuse_no_weight,
    variables_named,
)
from quantal.layers._wrappers import note_wrapper, present_latents, refuse_second_wrapper


@keras.saving.register_keras_serializable(package="quantal")
class Discrete(DiscreteLayer, keras.layers.Wrapper):
    """A wrapper restricts weights of any layer to a list.

    Use it around a Dense, a convolution, an Embedding, an LSTM, MultiHeadAttention, a
    model or a layer of your own. The wrapped layer's own weights become the latents:
    its other weights, its regularizers (on the latents), its masks, losses, dtype
    policy and state work as before.

    The layer belongs to the wrapper from then on, and to no other one: calling `layer` itself,
    or reading `discrete.layer.kernel`, computes with latents, which `assert_listed` reports.
    Give other layers the wrapper. Discrete layers inside it keep their own lists.

    A layer that is already built keeps its weights as latents, so each starts at its nearest
    value. So does a weight whose layer was given an initializer that says which numbers it
    shall have (`Constant`, `Identity`, an array, an orthogonal matrix). Other weights start
    near the list's midpoints, where first steps flip them: those with their layer's default
    initializer, seeds aside, or with one that draws each number by itself (`RandomNormal`,
    `HeNormal`), of which a scale takes the spread.

    The wrapper gives the attributes of the layer that it lacks itself. Under the name of a
    listed weight (`kernel`, `embeddings`) that is what meets the data: the listed values
    times the scale, if there is one, with the estimator's gradient. So another layer that
    reads `discrete.kernel` in its call is tied to this one, and a penalty on it trains.
    `listed_values` are the values without the scale. The variable that optimizers move is
    another thing and has another name: it is the latent, `kernel_latent`.

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
        ValueError: The list, estimator or scale is invalid; no weight has such a name, or
            one is on the list of another wrapper; the layer has half-precision weights, uses
            LoRA or Keras's quantization.

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

    _may_cache = False
    """Whether a listed weight is of a layer that computes something of its weights beforehand."""

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
        _refuse_quantizers(kwargs)
        # Keras reads names, masks and `training` from the signature of `call`.
        signature = inspect.signature(layer.call)
        self._layer_takes_training = "training" in signature.parameters
        self.call = with_signature(self._call_listed, with_training(signature))
        dtype = kwargs.pop("dtype", None)
        # Latents are read in float32: the wrapper has no dtype of its own, and the
        # wrapped layer casts by its own policy.
        super().__init__(layer, dtype="float32", autocast=False, **kwargs)
        self._configure(values, estimator, scale, seed)
        self.weight_names = checked_names(weight_names)
        refuse_second_wrapper(self, self._named_variables())
        self.supports_masking = layer.supports_masking
        if not self.trainable:
            _freeze_inside(layer)
        set_dtype_policy(layer, dtype)
        self._first_latents = FirstLatents(self.values, self._resolved_scale, seed)
        for latent in self._named_variables():
            # While Keras builds a model without numbers no weight is trained; and where
            # values follow, what is there is overwritten.
            if is_allocated(latent) and not do_values_follow():
                self._first_latents.start_from(layer, latent, present_latents(self, latent))
        # From here on the wrapper shares the attributes of the layer.
        self._shares_attributes = True

    def __getattr__(self, name: str) -> Any:
        """Return an attribute that the wrapper lacks from the wrapped layer.

        A listed weight is what meets the data, as `kernel` is; a method computes with
        listed weights.
        """
        try:
            # PyTorch's modules look some attributes up themselves.
            return super().__getattr__(name)
        except AttributeError:
            if not is_shared(name) or "_shares_attributes" not in vars(self):
                raise AttributeError(f"{type(self).__name__!r} has no attribute {name!r}") from None
        return self._shared_attribute(name)

    def __setattr__(self, name: str, value: Any) -> None:
        """Set an attribute; one that only the wrapped layer has is set there."""
        if not self._is_of_layer_alone(name):
            super().__setattr__(name, value)
        elif any(
            v in self._parameters_by_latent() for v in keras.tree.flatten(getattr(self.layer, name))
        ):
            raise AttributeError(
                f"{name} of the layer {self.name!r} is on a list, and what meets the data is "
                "computed from its latent. Set its values with set_codes, set_weights or "
                "start_from of its discrete_parameters."
            )
        else:
            setattr(self.layer, name, value)

    def _is_of_layer_alone(self, name: str) -> bool:
        attributes = vars(self)
        if "_shares_attributes" not in attributes or not is_shared(name):
            return False
        # `kernel` is a property, but the layer's own if that has one.
        is_here = name in attributes or (hasattr(type(self), name) and name != "kernel")
        return not is_here and hasattr(self.layer, name)

    def _shared_attribute(self, name: str) -> Any:
        value = getattr(self.layer, name)
        if any(entry in self._parameters_by_latent() for entry in keras.tree.flatten(value)):
            refuse_in_build(self, name)
        return with_listed_weights(value, self._parameters_by_latent(), self._call_within)

    def _parameters_by_latent(self) -> ByIdentity[Parameter]:
        return ByIdentity([(p.latent, p) for p in self.discrete_parameters or ()])

    def _call_within(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Call a method of the wrapped layer with listed values in place of the latents."""
        weights = self._weights(training_of_call())
        return call_with(function, weights, self.add_loss, args, kwargs)

    @property
    def kernel(self) -> Tensor:
        """The weight that meets the data; see `DiscreteLayer.kernel`.

        It is the wrapped layer's kernel, where that has one, and else the only listed weight.
        """
        if self.discrete_parameters is not None and hasattr(self.layer, "kernel"):
            return self._shared_attribute("kernel")
        parameter = self._only_parameter()
        refuse_in_build(self, "kernel")
        return parameter.weight

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

    def build(self, input_shape: Any = None, *shapes: Any, **named_shapes: Any) -> None:
        """Build the wrapped layer, if need be, and restrict its weights.

        Args:
            input_shape: The shape of the layer's input.
            *shapes: Those of its other inputs.
            **named_shapes: Those that its `build` takes by name, such as `query_shape`.
        """
        if self.discrete_parameters is not None:
            return
        if not self.layer.built:
            with eager_section():
                first = () if input_shape is None and named_shapes else (input_shape,)
                self.layer.build(*first, *shapes, **named_shapes)
            self.layer.built = True
            self._begin_weights()
        self._refuse_other_kernels()
        latents = self._named_variables()
        if not latents:
            refuse_no_weight(self.layer, self.weight_names)
        refuse_second_wrapper(self, latents)
        parameters = [
            self._create_parameter(
                latent,
                f"{index}_" if len(latents) > 1 else "",
                output_axes(self.layer, latent),
                self._first_latents.scale_of(latent),
            )
            for index, latent in enumerate(latents)
        ]
        self._set_parameters(parameters, owners=flatten_layers(self.layer))
        note_wrapper(self, latents)
        for owner in flatten_layers(self.layer):
            if any(variable in self._parameters_by_latent() for variable in own_variables(owner)):
                forbid_substitutes(owner)
                self._may_cache |= callable(getattr(owner, "finalize_state", None))

    def _repr_of_layer(self) -> str:
        return f", layer={type(self.layer).__name__}"

    def quantize(self, *args: Any, **kwargs: Any) -> None:
        """Refuse Keras's quantization; see `refuse_use`."""
        refuse_use(self.name, QUANTIZATION)

    def enable_lora(self, *args: Any, **kwargs: Any) -> None:
        """Refuse LoRA; see `refuse_use`."""
        refuse_use(self.name, LORA)

    @property
    def state_size(self) -> Any:
        """The state size of a wrapped recurrent layer; a cell is refused.

        Raises:
            ValueError: The wrapped layer is a cell, which an RNN would call in each time step.
        """
        if not hasattr(self.layer, "state_size"):
            raise AttributeError(f"{type(self).__name__!r} has no attribute 'state_size'")
        if not isinstance(unwrapped(self.layer), keras.layers.RNN):
            raise ValueError(
                f"The layer {self.name!r} wraps the cell {self.layer.name!r}, whose values would "
                "be computed anew in each time step. Expected a wrapper around the whole "
                "recurrent layer. Write Discrete(RNN(cell), ...) instead of RNN(Discrete(cell, "
                "...))."
            )
        return self.layer.state_size

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

    def _build_activation(self) -> None:
        """Build the wrapped layer's activation where that is a layer, such as another one of ours.

        Keras builds it in the first call, which here may be one within a compiled step.
        """
        activation = getattr(self.layer, "activation", None)
        shape = (self.layer.get_build_config() or {}).get("input_shape")
        if isinstance(activation, keras.Layer) and not activation.built and shape is not None:
            with eager_section():
                activation.build(self.layer.compute_output_shape(shape))

    def _begin_weights(self) -> None:
        """Freeze what the wrapped layer created in its build, if it is frozen; draw latents."""
        self._build_activation()
        for layer in flatten_layers(self.layer):
            if not layer.trainable:
                _freeze_inside(layer)
        self._first_latents.draw(self.layer, self._named_variables())

    def _named_variables(self) -> list[keras.Variable]:
        """Return the wrapped layer's variables that `weight_names` names, so far."""
        return variables_named(unwrapped(self.layer), self.weight_names)

    def _refuse_other_kernels(self) -> None:
        for layer in flatten_layers(self.layer):
            refuse_substitute(layer, "Wrap a layer without it.", f" inside {self.name!r}")

    def _call_listed(self, *args: Any, **kwargs: Any) -> Any:
        """Call the wrapped layer with listed values in place of the latents."""
        self._refuse_if_given_up()
        self._refuse_other_kernels()
        training = bool(kwargs.get("training"))
        # What a layer inherits from the call around it costs less than an argument.
        if not self._layer_takes_training or is_inherited(kwargs.get("training")):
            kwargs.pop("training", None)
        parameters = self.discrete_parameters or []
        if training:
            refuse_sharded(self.discrete_parameters or ())
        if training and passes_moments(self.layer, parameters):
            # A computed scale does not advance: these latents say how sure a value is, and
            # not how large, so that a fit to them has no limit.
            return self._call_moderated(*args, **kwargs)
        weights = self._weights(training, advance=training)
        if not self._may_cache:
            return call_with(self.layer, weights, self.add_loss, args, kwargs)
        watched = Watched(weights)
        outputs = call_with(self.layer, watched, self.add_loss, args, kwargs)
        watched.refuse_unread(self.layer)
        return outputs

    def _weights(self, training: bool, advance: bool = False) -> ByIdentity[Tensor]:
        """Return what meets the data, by latent; with `advance`, parameters go on by a step."""
        is_trained = self.finalized and self.trainable
        return ByIdentity(
            [
                (p.latent, like_variable(p.compute(training, advance), p.latent, is_trained))
                for p in self.discrete_parameters or ()
            ]
        )

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
        arguments = _for_wrapper(cls, config)
        finalized = arguments.pop("finalized", False)
        inner = arguments.pop("layer")
        layer = keras.saving.deserialize_keras_object(inner, *args, **kwargs)
        # Keras has built the layer from its config. Those random weights are no start, but the
        # scales' start has their spread: that of the layer's initializer.
        with values_follow():
            discrete = cls(layer, **arguments)
        discrete.finalized = finalized
        discrete._first_latents.draw(layer, discrete._named_variables())
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


def _for_wrapper(cls: type, config: dict[str, Any]) -> dict[str, Any]:
    """Return a config whose arguments for the wrapped layer are handed on to it.

    Keras's Bidirectional puts `go_backwards` into the config of the layer that it is given.
    """
    known = {"name", "trainable", "dtype", "finalized", "activity_regularizer"}
    for kind in cls.__mro__:
        if issubclass(kind, Discrete):
            known.update(inspect.signature(kind.__init__).parameters)
    arguments = dict(config)
    layer = arguments.get("layer")
    inner = layer.get("config", {}) if isinstance(layer, dict) else {}
    handed_on = {name: arguments.pop(name) for name in set(config) - known if name in inner}
    if handed_on and isinstance(layer, dict):
        arguments["layer"] = {**layer, "config": {**inner, **handed_on}}
    return arguments


def _is_built(layer: keras.Layer) -> bool:
    return all(inner.built for inner in flatten_layers(layer))


def _refuse_quantizers(arguments: dict[str, Any]) -> None:
    """Refuse the arguments of other libraries' layers, and say what stands for them here."""
    others = [name for name in arguments if name.endswith("quantizer")]
    if others:
        raise TypeError(
            f"{others[0]} came. Expected no quantizers: Discrete(layer, values) puts a layer's "
            "weights on the list `values`, `estimator` says how gradients pass, and activations "
            f"stay floats. {HOW_TO_LIST_ACTIVATIONS}"
        )
