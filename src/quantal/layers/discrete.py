"""Discrete: any layer, with chosen weights restricted to a list."""

import contextlib
import functools
import inspect
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any, Self

import keras
import numpy as np
from keras import ops

from quantal._core.estimator import Estimator
from quantal._core.keras_internals import (
    flatten_layers,
    initializer_of,
    is_allocated,
    scope_outside,
    set_initializer,
)
from quantal._core.numbers.values import ValuesLike
from quantal._core.scale import Scale
from quantal._core.tensors.latent_units import LatentUnits, draw_latents
from quantal.estimators.mean_field import MeanField, moderated
from quantal.layers._channels import output_axes
from quantal.layers._discrete_layer import DiscreteLayer
from quantal.layers._substitutes import refuse_substitute


@keras.saving.register_keras_serializable(package="quantal")
class Discrete(DiscreteLayer, keras.layers.Wrapper):
    """Any layer, with chosen weights restricted to a list.

    Use it around a Dense, a convolution, an Embedding, an LSTM, MultiHeadAttention, a
    model or a layer of your own. The wrapped layer's own weights become the latents:
    its other weights, its regularizers (on the latents), its masks, losses, dtype
    policy and state work as before.

    The layer belongs to the wrapper from then on: calling `layer` itself computes with
    latents. Discrete layers inside it keep their own lists. A layer that is already
    built keeps its weights as latents, so each starts at its nearest value; others
    start beside the list's midpoints.

    Args:
        layer: The Keras layer to wrap.
        values: The list: numbers in any order, a preset's name, or `Values`.
        weights: Which weights: the name or names of variables ("kernel",
            "recurrent_kernel", "embeddings"), the ends of their paths ("query/kernel"),
            or positions in the layer's `weights`. Every weight that matches is taken.
        estimator: How gradients pass: an estimator or its name.
        scale: None for the values as listed; or a factor on the values of each weight:
            `"learned"`, `"least_squares"`, `"mean_absolute"`, or a `quantal.Scale`, for
            example one for each output channel.
        seed: For the first latents of an unbuilt layer.
        **kwargs: `name`, `trainable`; `dtype` is handed to the wrapped layer.

    Input shape, output shape, arguments of the call: the wrapped layer's.

    Raises:
        TypeError, ValueError: For a list, estimator or scale that is none; where no
            weight has such a name; for a layer with half-precision weights, with LoRA
            or with Keras's quantization.

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
        weights: str | int | Sequence[str | int] = "kernel",
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
        self.call = _with_signature(self._call_listed, _with_training(signature))
        dtype = kwargs.pop("dtype", None)
        # Latents are read in float32: the wrapper has no dtype of its own, and the
        # wrapped layer casts by its own policy.
        super().__init__(layer, dtype="float32", autocast=False, **kwargs)
        self._set_up(values, estimator, scale, seed)
        self.weight_names = _checked_names(weights)
        self.supports_masking = layer.supports_masking
        _hold_in_float32(layer, dtype)
        # For each weight, by its id: what its scale starts at, or how to find its spread.
        self._first_scales: dict[int, Any] = {}
        self._spreads: dict[int, Callable[[], Any]] = {}
        self._kept = frozenset(id(latent) for latent in self._matching())
        for latent in self._matching():
            self.values.check_channels(latent.shape)
            trained = ops.convert_to_numpy(latent)
            if self.scale is not None:
                shape = self.scale.shape(trained.shape, output_axes(layer, latent))
                scales = self.scale.fitted(trained, self.values, shape)
                self._first_scales[id(latent)] = scales
                trained = trained / scales
            latent.assign(LatentUnits(self.values, trained.ndim).latents_of(trained))

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if self.discrete_parameters is None and not _is_built(self.layer):
            # Keras's own call builds a layer of any signature, and layers that its
            # `build` forgot; a symbolic one costs nothing.
            with _outside_graphs():
                self.layer(*_symbolic(args), **_symbolic(kwargs))
            self._start_latents()
            self.build()
        return super().__call__(*args, **kwargs)

    def build(self, input_shape: Any = None) -> None:
        """Build the wrapped layer, if need be, and restrict its weights."""
        if not self.layer.built:
            with _outside_graphs():
                self.layer.build(input_shape)
            self.layer.built = True
            self._start_latents()
        self._refuse_other_kernels()
        latents = self._latents()
        self.discrete_parameters = [
            self._make_parameter(
                latent,
                f"{place}_" if len(latents) > 1 else "",
                output_axes(self.layer, latent),
                self._spreads.get(id(latent)),
                self._first_scales.get(id(latent)),
            )
            for place, latent in enumerate(latents)
        ]
        if self.finalized:
            self._settle(flatten_layers(self.layer))

    def get_build_config(self) -> dict[str, Any] | None:
        # Of a built wrapper only: around a built layer it may still be unbuilt itself.
        return None if self.discrete_parameters is None else self.layer.get_build_config()

    def build_from_config(self, config: dict[str, Any]) -> None:
        if not self.layer.built:
            self.layer.build_from_config(config)
            self._start_latents()
        # A layer without `build` of its own gets its weights in its first call.
        if self._matching():
            self.build()

    def _matching(self) -> list[keras.Variable]:
        """The wrapped layer's variables that `weights` names, so far.

        Not those that a discrete layer inside it holds on a list already.
        """
        taken = {
            id(parameter.latent)
            for inner in flatten_layers(self.layer)
            for parameter in getattr(inner, "discrete_parameters", None) or ()
        }
        names = [name for name in self.weight_names if isinstance(name, str)]
        return [
            variable
            for place, variable in enumerate(unwrapped(self).weights)
            if id(variable) not in taken
            and (
                place in self.weight_names
                or any(f"/{variable.path}".endswith(f"/{name}") for name in names)
            )
        ]

    def _latents(self) -> list[keras.Variable]:
        found = self._matching()
        if not found:
            paths = ", ".join(variable.path for variable in self.layer.weights) or "none"
            raise ValueError(
                f"weights is {list(self.weight_names)}, but the layer {self.layer.name!r} has "
                f"no such weight. It has: {paths}. Give a name, or the end of a path, of these."
            )
        return found

    def _start_latents(self) -> None:
        """Draw the first latents of weights that the layer did not bring along."""
        for place, latent in enumerate(self._matching()):
            if id(latent) in self._kept:
                continue
            if self.scale is not None:
                self._spreads[id(latent)] = _own_spread(latent)
            seed = None if self.seed is None else self.seed + place

            def draw(shape: Any, dtype: Any, seed: int | None = seed) -> Any:
                return ops.cast(draw_latents(self.values, shape, seed), dtype)

            _initialize(latent, draw)

    def _refuse_other_kernels(self) -> None:
        for layer in flatten_layers(self.layer):
            refuse_substitute(layer, "Wrap a layer without it.", f" inside {self.name!r}")

    def _call_listed(self, *args: Any, **kwargs: Any) -> Any:
        """The wrapped layer's call, with listed values in place of the latents."""
        self._refuse_other_kernels()
        training = kwargs.get("training")
        if not self._layer_takes_training:
            kwargs.pop("training", None)
        if training and self._passes_moments():
            return self._call_moderated(*args, **kwargs)
        listed: dict[int, Any] = {}
        for parameter in self.discrete_parameters or ():
            weight = parameter.compute(bool(training))
            listed[id(parameter.latent)] = _like_a_variable(weight, parameter.latent)
            if training:
                parameter.advance()
        return self._call_with(listed, *args, **kwargs)

    def _call_with(self, listed: dict[int, Any], *args: Any, **kwargs: Any) -> Any:
        """The wrapped layer's call, with given tensors in place of some variables.

        Args:
            listed: The tensors, by the id of their variables.
            *args: Of the wrapped layer's call.
            **kwargs: Of the wrapped layer's call.
        """
        variables = self.layer.variables
        # Every variable is mapped: within a scope Keras asks no scope around it, so
        # what is left out would lose the value that a JAX trainer gave it.
        # Only these are asked for a value: a JAX trainer takes those of others away.
        mapping = [(v, listed[id(v)] if id(v) in listed else v.value) for v in variables]  # noqa: SIM401
        with keras.StatelessScope(mapping, collect_losses=True) as scope:
            before = {id(v): scope.get_current_value(v) for v in variables}
            outputs = self.layer(*args, **kwargs)
        for variable in variables:
            after = scope.get_current_value(variable)
            if id(variable) not in listed and after is not before[id(variable)]:
                variable.assign(after)
        # A loss belongs to the layer that added it and to one scope; adding it to a
        # second layer within an outer scope would count it twice.
        outer = scope_outside(scope)
        for loss in scope.losses:
            if outer is None:
                self.add_loss(loss)
            elif outer.collect_losses:
                outer.add_loss(loss)
        return outputs

    def _passes_moments(self) -> bool:
        """Whether the layer is linear in one weight whose mean and variance are known."""
        parameters = self.discrete_parameters or ()
        return (
            len(parameters) == 1
            and isinstance(parameters[0].estimator, MeanField)
            and isinstance(self.layer, _LINEAR)
            and self.layer.activation is keras.activations.linear
            and parameters[0].path.endswith("kernel")
        )

    def _call_moderated(self, inputs: Any, **kwargs: Any) -> Any:
        """The layer's output with random weights: its mean, moderated by its variance."""
        parameter = self._only_parameter()
        mean, variance = parameter.moments()
        means = self._call_with({id(parameter.latent): mean}, inputs, **kwargs)
        others = {id(v): ops.zeros(v.shape, v.dtype) for v in self.layer.variables}
        # In a scope of its own: what it adds to losses is not the layer's.
        with keras.StatelessScope([], collect_losses=True):
            variances = self._call_with(
                {**others, id(parameter.latent): variance}, ops.square(inputs), **kwargs
            )
        return moderated(means, variances)

    def compute_output_spec(self, *args: Any, **kwargs: Any) -> Any:
        return self.layer.compute_output_spec(*args, **kwargs)

    def compute_output_shape(self, *args: Any, **kwargs: Any) -> Any:
        return self.layer.compute_output_shape(*args, **kwargs)

    def compute_mask(self, *args: Any, **kwargs: Any) -> Any:
        return self.layer.compute_mask(*args, **kwargs)

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        # The wrapped layer keeps its own.
        del config["dtype"]
        return {**config, "weights": list(self.weight_names)}

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> Self:
        arguments = dict(config)
        finalized = arguments.pop("finalized", False)
        discrete = super().from_config(arguments, custom_objects)
        discrete.finalized = finalized
        # Keras has built the layer from its config; those random weights mean nothing.
        discrete._kept = frozenset()
        discrete._first_scales = {}
        discrete._start_latents()
        return discrete


def unwrapped(layer: keras.Layer) -> keras.Layer:
    """Return the layer inside all `Discrete` wrappers around it, or the layer itself."""
    while isinstance(layer, Discrete):
        layer = layer.layer
    return layer


_LINEAR = (
    keras.layers.Dense,
    keras.layers.EinsumDense,
    keras.layers.Conv1D,
    keras.layers.Conv2D,
    keras.layers.Conv3D,
    keras.layers.DepthwiseConv1D,
    keras.layers.DepthwiseConv2D,
    keras.layers.Conv1DTranspose,
    keras.layers.Conv2DTranspose,
    keras.layers.Conv3DTranspose,
)


def _checked_names(weights: Any) -> tuple[str | int, ...]:
    names = (weights,) if isinstance(weights, (str, int)) else tuple(weights or ())

    def is_name(name: Any) -> bool:
        if isinstance(name, str):
            return bool(name.strip("/"))
        return isinstance(name, int) and not isinstance(name, bool) and name >= 0

    if not names or not all(is_name(name) for name in names):
        raise TypeError(
            f"weights is {weights!r}. Expected the name of a weight or several names. Give, "
            "for example, 'kernel' or ('kernel', 'recurrent_kernel')."
        )
    return tuple(name.strip("/") if isinstance(name, str) else name for name in names)


def _initialize(variable: keras.Variable, initializer: Callable[[Any, Any], Any]) -> None:
    """Give a variable its first value, also while Keras builds a model within `fit`."""
    if not is_allocated(variable):
        # Made within a stateless scope, where assigning is lost: Keras calls the
        # initializer when it leaves the scope.
        set_initializer(variable, initializer)
    else:
        with _outside_graphs():
            variable.assign(initializer(variable.shape, variable.dtype))


def _outside_graphs() -> AbstractContextManager[Any]:
    """Where variables have numbers and assigning is no step of a TensorFlow graph."""
    if keras.config.backend() != "tensorflow":
        return contextlib.nullcontext()
    import tensorflow

    return tensorflow.init_scope()  # type: ignore[no-any-return]


def _own_spread(variable: keras.Variable) -> Callable[[], Any]:
    """Gives the root mean square of what a layer's own initializer draws: float or tensor."""
    if not is_allocated(variable):
        initializer = initializer_of(variable)
        # Keras asks for first values while it traces, too: tensors then hold no numbers.
        return lambda: ops.sqrt(
            ops.mean(ops.square(initializer(variable.shape, dtype=variable.dtype)))
        )
    with _outside_graphs():
        drawn = ops.convert_to_numpy(variable.value)
    found = float(np.sqrt(np.mean(np.square(drawn, dtype=float))))
    return lambda: found


def _like_a_variable(value: Any, latent: keras.Variable) -> Any:
    """The value; in PyTorch requiring a gradient where its latent does, also in inference.

    PyTorch chooses between ways to multiply matrices by whether the weight requires a
    gradient, and they differ in the last bit. So a discrete layer computes as the plain
    layer with the listed weights does.
    """
    if keras.config.backend() != "torch":
        return value
    import torch

    if value.requires_grad or torch.is_grad_enabled() or torch.is_inference_mode_enabled():
        return value
    if torch.compiler.is_compiling() or value.device.type == "meta":
        return value
    return value.detach().requires_grad_(latent.value.requires_grad)


def _is_built(layer: keras.Layer) -> bool:
    return all(inner.built for inner in flatten_layers(layer))


def _with_training(signature: inspect.Signature) -> inspect.Signature:
    """The signature of a call, with the keyword `training` if it has none."""
    if "training" in signature.parameters:
        return signature
    parameters = list(signature.parameters.values())
    place = len(parameters) - bool(
        parameters and parameters[-1].kind is inspect.Parameter.VAR_KEYWORD
    )
    training = inspect.Parameter("training", inspect.Parameter.KEYWORD_ONLY, default=None)
    return signature.replace(parameters=[*parameters[:place], training, *parameters[place:]])


def _with_signature(
    function: Callable[..., Any], signature: inspect.Signature
) -> Callable[..., Any]:
    """`function` under another signature."""

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    call.__signature__ = signature  # type: ignore[attr-defined]
    return call


def _symbolic(arguments: Any) -> Any:
    """The arguments of a call, with its shape and dtype in place of every tensor and array."""

    def symbol(x: Any) -> Any:
        if not (hasattr(x, "shape") and hasattr(x, "dtype")):
            return x
        # A new one also for a symbolic tensor: the call must not become part of its graph.
        return keras.KerasTensor(x.shape, dtype=keras.backend.standardize_dtype(x.dtype))

    return keras.tree.map_structure(symbol, arguments)


def _hold_in_float32(layer: keras.Layer, dtype: Any) -> None:
    """Set a layer's dtype policy where one is given, with variables in float32.

    Latents move in steps that half precision would round away.
    """
    for inner in flatten_layers(layer):
        policy = inner.dtype_policy if dtype is None else keras.dtype_policies.get(dtype)
        half = policy.variable_dtype if policy.variable_dtype in ("float16", "bfloat16") else None
        if half is not None:
            if inner.built and inner.weights:
                raise ValueError(
                    f"The layer {inner.name!r} has its weights in {half}. Latents move in "
                    "steps that only float32 holds. Give the layer the dtype "
                    f"'mixed_{half}', which computes in {half} too, before it is built."
                )
            policy = keras.DTypePolicy(f"mixed_{half}")
        if policy != inner.dtype_policy:
            inner.dtype_policy = policy
