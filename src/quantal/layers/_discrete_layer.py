"""The base class of layers whose weights come from a list."""

from collections.abc import Callable, Sequence
from typing import Any, Self

import keras
from keras import ops
from numpy.typing import ArrayLike, NDArray

from quantal._core.by_identity import ByIdentity
from quantal._core.companion import add_companion
from quantal._core.effective_latent import EffectiveLatent
from quantal._core.estimator import Estimator
from quantal._core.keras_internals.calls import called_layer
from quantal._core.keras_internals.layers import refresh_names, track_state, track_variable
from quantal._core.keras_internals.scopes import is_stateless
from quantal._core.keras_internals.variables import lay_out, layout_of, rename
from quantal._core.latent_name import LATENT_SUFFIX, paths_in_layouts, weight_path
from quantal._core.numbers.short_name import short_name
from quantal._core.numbers.values import Values, ValuesLike
from quantal._core.parameter import Parameter, parameters_of
from quantal._core.scale import Scale, parse_scale, resolve_scale
from quantal._core.scale_state import ScaleState
from quantal._core.tensors.distributed import may_be_sharded, whole_array
from quantal._core.tensors.latent_units import entry_units
from quantal._core.types import Tensor
from quantal.estimators.policy import parse, resolve
from quantal.layers._finalized import freeze, load_packed, save_packed
from quantal.layers._first_values import FirstScale, one
from quantal.layers._listed_count import ListedCount
from quantal.layers._weight_arrays import latents_for_user, set_from_array


class DiscreteLayer(keras.layers.Layer):
    """A discrete layer creates parameters and gives their values, codes and weights.

    `LearnableMultiplier` and `Discrete` derive from it.

    Attributes:
        discrete_parameters: The layer's parameters; None before it is built.
        finalized: Whether the layer is as `quantal.finalize` returns it: it does not
            train, and files have its packed codes instead of latents.
    """

    discrete_parameters: list[Parameter] | None
    seed_generator: keras.random.SeedGenerator | None
    finalized = False
    _successor: str | None = None
    """The name of the wrapper that has the layer's weights now; None for none."""
    _axis_of_auto_scale: Any = "output"
    """The axis of the scale that `scale="auto"` stands for."""

    def _configure(
        self,
        values: ValuesLike,
        estimator: str | dict[str, Any] | Estimator,
        scale: str | Scale | dict[str, Any] | None,
        seed: int | None,
    ) -> None:
        """Keep the arguments that both layers take; the parameters come with `build`."""
        self.values = Values.get(values)
        self.estimator = parse(estimator)
        self.scale = parse_scale(scale)
        self.seed = seed
        self._resolved_scale = resolve_scale(self.scale, self.values, self._axis_of_auto_scale)
        self.discrete_parameters = None
        is_random = isinstance(self.estimator, Estimator) and self.estimator.random
        # Owned by the layer, so that Keras tracks its state in compiled steps.
        draws = is_random or self.values.noise is not None
        self.seed_generator = keras.random.SeedGenerator(seed) if draws else None

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments, for saving."""
        return {**super().get_config(), **self.get_list_config()}

    def get_list_config(self) -> dict[str, Any]:
        """Return the arguments that say what is on which list, without the layer's others."""
        scale = self.scale
        return {
            **({"finalized": True} if self.finalized else {}),
            "values": self.values.get_config(),
            "estimator": keras.saving.serialize_keras_object(self.estimator),
            "scale": scale.get_config() if isinstance(scale, Scale) else scale,
            "seed": self.seed,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any], *args: Any, **kwargs: Any) -> Self:
        """Return the layer that `get_config` described.

        Args:
            config: What `get_config` returned.
            *args: As in the Keras class; a wrapper takes `custom_objects`.
            **kwargs: Alike.
        """
        arguments = dict(config)
        finalized = arguments.pop("finalized", False)
        layer = super().from_config(arguments, *args, **kwargs)
        layer.finalized = finalized
        return layer

    def __repr__(self) -> str:
        scale = "" if self.scale is None else f", scale={self._scale_name()}"
        return (
            f"<{type(self).__name__} name={self.name}{self._repr_of_layer()}, "
            f"values={short_name(self.values)}, bits={self.values.bits}{scale}, built={self.built}>"
        )

    def _repr_of_layer(self) -> str:
        """Return what `repr` says of a wrapped layer."""
        return ""

    def _scale_name(self) -> str:
        return self.scale.method if isinstance(self.scale, Scale) else str(self.scale)

    def count_params(self) -> int:
        """Return the number of the layer's scalars, of which Keras's summary names the list."""
        return ListedCount(super().count_params(), self.values)

    def give_up_to(self, other: "DiscreteLayer") -> None:
        """Give the weights up to another wrapper around the same layer; then calls are refused."""
        self._successor = other.name

    def _refuse_if_given_up(self) -> None:
        if self._successor is not None:
            raise ValueError(
                f"The wrapper {self.name!r} has given its weights to {self._successor!r}, which "
                "was made around the same layer later. Expected one wrapper for each weight. "
                "To share the layer, call one wrapper in both places."
            )

    def _refuse_sharded(self) -> None:
        """Refuse to train in a model that has other tensors than its variables.

        FullyShardedDataParallel and `fully_shard` put tensors of their own into a module, and
        optimizers move these. Keras computes with those of its variables, which would stay.
        """
        if not may_be_sharded() or is_stateless():
            return
        model = called_layer()
        if model is None:
            return
        tensors = model.torch_params
        for parameter in self.discrete_parameters or ():
            latent = parameter.latent
            if latent.path in tensors and getattr(tensors, latent.path, None) is not latent.value:
                raise RuntimeError(
                    f"{latent.path!r} of the model {model.name!r} is another tensor than that of "
                    "its variable: FullyShardedDataParallel or fully_shard has put it there. "
                    "Expected the variable's own, with which Keras computes: no step would move "
                    "it. Wrap the model in torch.nn.parallel.DistributedDataParallel."
                )

    def _set_parameters(
        self, parameters: list[Parameter], owners: Sequence[keras.Layer] = ()
    ) -> None:
        """Set the parameters at the end of `build`.

        Args:
            parameters: The parameters.
            owners: Other layers that own their latents.
        """
        self.discrete_parameters = parameters
        if self.finalized:
            freeze(parameters, owners)
        for layer in owners:
            refresh_names(layer)
        listed_by_keras = ByIdentity.of_keys(self.weights)
        seeds = [variable for variable in self.variables if variable not in listed_by_keras]
        for index, seed in enumerate(seeds):
            track_state(self, f"_seed_{index}", seed)

    def _create_parameter(
        self,
        latent: keras.Variable,
        prefix: str = "",
        output_axes: Sequence[int] = (-1,),
        first_scale: FirstScale = one,
    ) -> Parameter:
        """Create a parameter on a latent, with the variables that it needs.

        Args:
            latent: The variable that the optimizer moves.
            prefix: The first part of the names of the other variables.
            output_axes: The axes of the weight's output channels.
            first_scale: The scale's first value.
        """
        estimator = resolve(self.estimator, latent.shape, self.values.learnable)
        # First, since others lie where the latent lies.
        lay_out(latent, paths_in_layouts(latent))
        # In this order, which files keep.
        state = self._create_state(estimator, prefix)
        scale = self._create_scale(latent, prefix, output_axes, first_scale)
        entries = self._create_entries(latent, prefix)
        effective = self._create_effective(latent, prefix, estimator, state)
        seed = self.seed_generator
        # A layer that had a wrapper before has its latents' names already.
        if not latent.name.endswith(LATENT_SUFFIX):
            rename(latent, f"{latent.name}{LATENT_SUFFIX}")
        parameter = Parameter(
            latent, self.values, estimator, state, scale, entries, seed, effective
        )
        for variable in parameter.other_variables:
            # TensorFlow tracks attributes alone.
            setattr(self, f"_{variable.name}_variable", variable)
        return parameter

    def _create_state(self, estimator: Estimator, prefix: str) -> keras.Variable | None:
        initial = estimator.initial_state
        if initial is None:
            return None
        name = f"{prefix}estimator_state"
        return self._create_variable(name, (len(initial),), lambda: initial)

    def _create_scale(
        self,
        latent: keras.Variable,
        prefix: str,
        output_axes: Sequence[int],
        first_scale: FirstScale,
    ) -> ScaleState | None:
        scale = self._resolved_scale
        if scale is None:
            return None
        path = weight_path(latent)
        shape = scale.shape(latent.shape, output_axes, path)
        start = self._create_variable(f"{prefix}scale_start", shape, first_scale)
        leader = latent if scale.method == "learned" else None
        relative = self._create_variable(f"{prefix}scale", shape, one, leader)
        return ScaleState(scale, self.values, start, relative, latent.shape)

    def _create_entries(self, latent: keras.Variable, prefix: str) -> keras.Variable | None:
        if not self.values.learnable:
            return None
        first = entry_units(self.values).latents_of(self.values.numbers)
        return self._create_variable(f"{prefix}values", first.shape, lambda: first, latent)

    def _create_effective(
        self,
        latent: keras.Variable,
        prefix: str,
        estimator: Estimator,
        state: keras.Variable | None,
    ) -> EffectiveLatent | None:
        if not estimator.has_steps or state is None:
            return None
        # They lie where the latent lies, also on several devices.
        layout, shape = layout_of(latent), tuple(latent.shape)
        names = ["effective", "last", *(f"trace_{index}" for index in range(estimator.traces))]
        value, last, *traces = (
            self._create_state_variable(f"{prefix}{name}", shape, layout) for name in names
        )
        follows = self._create_state_variable(f"{prefix}follows", ())
        return EffectiveLatent(latent, estimator, state, value, last, follows, traces)

    def _create_state_variable(
        self, name: str, shape: Sequence[int], layout: Any = None
    ) -> keras.Variable:
        """Create a float32 variable of zeros that does not train, with a layout of its own."""
        with keras.name_scope(self.name, caller=self):
            variable = keras.Variable(
                "zeros",
                shape=shape,
                dtype="float32",
                trainable=False,
                autocast=False,
                name=name,
                layout=layout,
            )
        track_variable(self, variable)
        return variable

    def _create_variable(
        self,
        name: str,
        shape: Sequence[int],
        first: Callable[[], Any],
        leader: keras.Variable | None = None,
    ) -> keras.Variable:
        """Create a float32 variable whose first value a function gives.

        Args:
            name: The variable's name.
            shape: Its shape.
            first: Returns its first value.
            leader: The variable that it trains together with; None if it does not train.
        """

        def initializer(shape: Any, dtype: Any = None) -> Tensor:
            return ops.ones(shape, "float32") * ops.convert_to_tensor(first(), "float32")

        arguments: dict[str, Any] = {
            "name": name,
            "shape": shape,
            "initializer": initializer,
            "dtype": "float32",
            "autocast": False,
        }
        if leader is None:
            return self.add_weight(trainable=False, **arguments)
        return add_companion(self, leader, **arguments)

    def get_weights(self) -> list[NDArray[Any]]:
        """Return the values of `weights` as arrays; those of listed weights are latents.

        `set_weights` of the same arrays restores the layer, with the same codes.
        """
        arrays = [whole_array(variable) for variable in self.weights]
        indices = ByIdentity((variable, i) for i, variable in enumerate(self.weights))
        for index, parameter in self._indices_of_parameters():
            if parameter.effective is not None:
                for variable, array in parameter.effective.restarted():
                    arrays[indices[variable]] = array
            arrays[index] = latents_for_user(parameter, arrays[index])
        return arrays

    def set_weights(self, weights: Sequence[ArrayLike]) -> None:
        """Set the values of `weights` from arrays.

        An array for a listed weight whose numbers are all members of the list gives its
        listed values, before any scale. Another one gives latents, as `get_weights` returns
        them. `set_weights` of a whole model takes latents alone.

        Args:
            weights: An array for each of the layer's `weights`, in their order; or for those
                alone that the plain layer has, which leaves scales, learned lists and
                states of estimators as they are.

        Raises:
            ValueError: The number of arrays or a shape is another.
        """
        arrays = [whole_array(array) for array in weights]
        others = ByIdentity.of_keys(v for p in self._all_parameters() for v in p.other_variables)
        plain = [variable for variable in self.weights if variable not in others]
        is_plain = bool(others) and len(arrays) == len(plain)
        if is_plain:
            by_variable = ByIdentity(zip(plain, arrays, strict=True))
            arrays = [
                by_variable[variable] if variable in by_variable else whole_array(variable)
                for variable in self.weights
            ]
        super().set_weights(arrays)
        # In the end, when a learned list and a scale are set, too.
        for index, parameter in self._indices_of_parameters():
            if is_plain:
                parameter.restart()
            set_from_array(parameter, arrays[index])

    def _indices_of_parameters(self) -> list[tuple[int, Parameter]]:
        """Return the position of each latent among the layer's weights, and its parameter."""
        by_latent = ByIdentity([(p.latent, p) for p in self._all_parameters()])
        return [(i, by_latent[v]) for i, v in enumerate(self.weights) if v in by_latent]

    def _all_parameters(self) -> list[Parameter]:
        """Return the layer's parameters and those of discrete layers inside it."""
        return [] if self.discrete_parameters is None else parameters_of(self)

    def save_own_variables(self, store: Any) -> None:
        """Put the layer's variables into a file; a finalized layer puts its packed codes."""
        if self.finalized:
            save_packed(self.discrete_parameters or (), store)
        else:
            super().save_own_variables(store)

    def load_own_variables(self, store: Any) -> None:
        """Take the layer's variables from a file."""
        if self.finalized:
            load_packed(self.discrete_parameters or (), store)
        else:
            super().load_own_variables(store)

    def _only_parameter(self) -> Parameter:
        parameters = self.discrete_parameters
        if parameters is None:
            raise ValueError(
                f"The layer {self.name!r} is not built, so it has no values yet: they "
                "exist once it knows its input's shape. Call it on data, or build it, first."
            )
        if len(parameters) != 1:
            paths = ", ".join(parameter.path for parameter in parameters)
            raise ValueError(
                f"The layer {self.name!r} has {len(parameters)} discrete weights "
                f"({paths}). kernel, listed_values and codes are for a layer with one. Take them "
                "from its discrete_parameters."
            )
        return parameters[0]

    @property
    def kernel(self) -> Tensor:
        """The weight that meets the data: the listed values times the scale, if there is one.

        It is a float32 tensor with the estimator's gradient, so a penalty on it or a second
        use of it trains the layer; see `Parameter.weight`.

        Raises:
            ValueError: The layer is not built, or has several discrete weights.
        """
        return self._only_parameter().weight

    @property
    def listed_values(self) -> Tensor:
        """The listed values that the elements have, without the scale.

        They are members of the list: float32 tensor without gradient. `kernel` is what
        meets the data.

        Raises:
            ValueError: The layer is not built, or has several discrete weights.
        """
        return self._only_parameter().listed_values

    @property
    def codes(self) -> Tensor:
        """The positions of the elements' values in the user's list: int32 tensor.

        Raises:
            ValueError: The layer is not built, or has several discrete weights.
        """
        return self._only_parameter().codes

    def set_codes(self, codes: ArrayLike) -> None:
        """Set the values by their positions in the list; see `Parameter.set_codes`."""
        self._only_parameter().set_codes(codes)
