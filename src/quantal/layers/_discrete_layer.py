"""The base class of layers whose weights come from a list."""

from collections.abc import Sequence
from typing import Any, Self

import keras
from numpy.typing import ArrayLike, NDArray

from quantal._core.by_identity import ByIdentity
from quantal._core.estimator import Estimator
from quantal._core.keras_internals.layers import refresh_names, track_state
from quantal._core.keras_internals.variables import lay_out, rename
from quantal._core.latent_name import LATENT_SUFFIX, paths_in_layouts
from quantal._core.numbers.short_name import short_name
from quantal._core.numbers.values import Values, ValuesLike
from quantal._core.parameter import Parameter, parameters_of
from quantal._core.scale import Scale, parse_scale, resolve_scale
from quantal._core.types import Tensor
from quantal.estimators.policy import parse, resolve
from quantal.layers._finalized import freeze, load_packed, save_packed
from quantal.layers._first_values import FirstScale, one
from quantal.layers._listed_count import ListedCount
from quantal.layers._parameter_variables import ParameterVariables
from quantal.layers._weight_arrays import arrays_for_user, arrays_of_weights, set_from_arrays


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
        variables = ParameterVariables(self, latent, prefix)
        state = variables.state(estimator)
        scale = variables.scale(self._resolved_scale, self.values, output_axes, first_scale)
        entries = variables.entries(self.values)
        effective = variables.effective(estimator, state)
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

    def get_weights(self) -> list[NDArray[Any]]:
        """Return the values of `weights` as arrays; those of listed weights are latents.

        `set_weights` of the same arrays restores the layer, with the same codes.
        """
        return arrays_for_user(self, self._all_parameters())

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
        parameters = self._all_parameters()
        arrays, is_plain = arrays_of_weights(self, parameters, weights)
        super().set_weights(arrays)
        set_from_arrays(self, parameters, arrays, is_plain)

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
