"""What both layers share: their parameters, and the variables these need."""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops
from numpy.typing import ArrayLike, NDArray

from quantal._core.keras_internals import own_variables
from quantal._core.numbers.values import Values, ValuesLike
from quantal._core.parameter import Parameter
from quantal._core.scale import Scale, ScaleState, nearest_powers
from quantal._core.tensors.latent_units import entry_units
from quantal._core.types import Tensor
from quantal._storage.record import Record, record_of, restore
from quantal.estimators.policy import AUTO, parse, resolve


class DiscreteLayer:
    """What both layers share: what makes a parameter, and the parameters as properties."""

    discrete_parameters: list[Parameter] | None
    seed_generator: keras.random.SeedGenerator | None
    name: str
    add_weight: Callable[..., keras.Variable]
    finalized = False
    """Whether the layer is as `quantal.finalize` makes it: it does not learn, and files
    hold its packed codes in place of latents."""

    def _set_up(self, values: ValuesLike, estimator: Any, scale: Any, seed: int | None) -> None:
        """Keep the arguments that both layers take; the parameters come with `build`."""
        self.values = Values.get(values)
        self.estimator = parse(estimator)
        self.scale = Scale.of(scale)
        self.seed = seed
        self.discrete_parameters = None
        is_random = self.estimator != AUTO and self.estimator.random
        # Of the layer, so that Keras finds its state: compiled steps would not see another.
        self.seed_generator = keras.random.SeedGenerator(seed) if is_random else None

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments, for saving."""
        return {
            **super().get_config(),  # type: ignore[misc]
            **({"finalized": True} if self.finalized else {}),
            "values": self.values.get_config(),
            "estimator": keras.saving.serialize_keras_object(self.estimator),
            "scale": None if self.scale is None else self.scale.to_config(),
            "seed": self.seed,
        }

    def _make_parameter(
        self,
        latent: keras.Variable,
        prefix: str = "",
        output_axes: Sequence[int] = (-1,),
        spread: Callable[[], Any] | None = None,
        first_scale: Any = None,
    ) -> Parameter:
        """A parameter on a latent, with the variables that estimator, scale and list need.

        Args:
            latent: The variable that the optimizer moves.
            prefix: Of the names of the other variables.
            output_axes: The axes of the weight's output channels.
            spread: Gives the root mean square that the weight would have had, for a
                scale to start at.
            first_scale: What the scale starts at, if that is known; 1 if neither is.
        """

        def variable(name: str, shape: Any, start: Callable[[], Any], trainable: bool) -> Any:
            return self.add_weight(
                name=prefix + name,
                shape=shape,
                initializer=lambda shape, dtype=None: (
                    ops.ones(shape, "float32") * ops.convert_to_tensor(start(), "float32")
                ),
                dtype="float32",
                trainable=trainable,
                autocast=False,
            )

        state = scale = entries = None
        estimator = resolve(self.estimator, latent.shape, self.values.learnable)
        initial = estimator.initial_state
        if initial is not None:
            state = variable("estimator_state", (len(initial),), lambda: initial, False)
        if self.scale is not None:
            shape = self.scale.shape(latent.shape, output_axes)
            to_power, of_list = self.scale.power_of_two, _root_mean_square(self.values)

            def start() -> Any:
                if first_scale is not None or spread is None:
                    return 1.0 if first_scale is None else first_scale
                own = ops.convert_to_tensor(spread(), "float32")
                found = ops.where(own > 0, own / of_list, ops.ones_like(own))
                return nearest_powers()(found) if to_power else found

            scale = ScaleState(
                self.scale,
                self.values,
                variable("scale_start", shape, start, False),
                variable("scale", shape, lambda: 1.0, self.scale.method == "learned"),
            )
        if self.values.learnable:
            first = entry_units(self.values).latents_of(self.values.numbers)
            entries = variable("values", first.shape, lambda: first, True)
        seed = self.seed_generator
        return Parameter(latent, self.values, estimator, state, scale, entries, seed)

    def _settle(self, inner: Sequence[keras.Layer] = ()) -> None:
        """Stop the parameters' training, and keep their latents out of files.

        Args:
            inner: Layers that hold latents, but not this one.
        """
        parameters = self.discrete_parameters or []
        for parameter in parameters:
            for variable in parameter.variables:
                variable.trainable = False
        latents = {id(parameter.latent) for parameter in parameters}
        for layer in inner:
            # By their places among the layer's variables, which Keras's files count.
            own = own_variables(layer)
            left_out = {str(place): v for place, v in enumerate(own) if id(v) in latents}
            if left_out:
                layer.save_own_variables = functools.partial(_save_others, layer, left_out)
                layer.load_own_variables = functools.partial(_load_others, layer, left_out)

    def save_own_variables(self, store: Any) -> None:
        """Put the layer's variables into a file; of a finalized one packed codes."""
        if not self.finalized:
            super().save_own_variables(store)  # type: ignore[misc]
            return
        for place, parameter in enumerate(self.discrete_parameters or ()):
            record = record_of(parameter)
            store[f"{place}.coded"] = np.array(record.coded)
            for name, array in record.arrays.items():
                store[f"{place}.{name}"] = array

    def load_own_variables(self, store: Any) -> None:
        """Take the layer's variables from a file."""
        if not self.finalized:
            super().load_own_variables(store)  # type: ignore[misc]
            return
        for place, parameter in enumerate(self.discrete_parameters or ()):
            try:
                own = {
                    name.removeprefix(f"{place}."): array
                    for name, array in _arrays(store).items()
                    if name.startswith(f"{place}.")
                }
                restore(parameter, Record.from_arrays(own, bool(own["coded"])))
            except (KeyError, TypeError, ValueError) as error:
                raise ValueError(
                    f"{parameter.path} is not readable from the file: {error}. Expected the "
                    "packed codes of a finalized layer. Load an unchanged file of the model that "
                    "quantal.finalize made."
                ) from error

    def _only_parameter(self) -> Parameter:
        parameters = self.discrete_parameters
        if parameters is None:
            raise ValueError(
                f"The layer {self.name!r} is not built, so nothing is chosen yet. Its "
                "values exist once it knows its input's shape. Call it on data, or "
                "build it, first."
            )
        if len(parameters) != 1:
            paths = ", ".join(parameter.path for parameter in parameters)
            raise ValueError(
                f"The layer {self.name!r} has {len(parameters)} discrete weights "
                f"({paths}). kernel and codes are for a layer with one. Take them from "
                "its discrete_parameters."
            )
        return parameters[0]

    @property
    def kernel(self) -> Any:
        """The listed values that the elements have, without the scale.

        They are members of the list: float32 tensor without gradient. `weight` is what
        meets the data.
        """
        return self._only_parameter().kernel

    @property
    def weight(self) -> Tensor:
        """The numbers that meet the data in inference: `kernel` times the scale, if there is one.

        A float32 tensor without gradient.
        """
        return self._only_parameter().weight

    @property
    def codes(self) -> Any:
        """The positions of the chosen values in the user's list: int32 tensor."""
        return self._only_parameter().codes

    def set_codes(self, codes: ArrayLike) -> None:
        """Choose the values by their positions in the list; see `Parameter.set_codes`."""
        self._only_parameter().set_codes(codes)


def _arrays(store: Any) -> dict[str, NDArray[Any]]:
    """What is in a store of Keras's files, which knows its keys and no more of a mapping."""
    names = list(store.keys())
    return {name: np.asarray(store[name]) for name in names}


def _save_others(layer: keras.Layer, left_out: Mapping[str, keras.Variable], store: Any) -> None:
    """A layer's `save_own_variables`, but for some variables."""
    whole: dict[str, Any] = {}
    type(layer).save_own_variables(layer, whole)
    for name, array in whole.items():
        if name not in left_out:
            store[name] = array


def _load_others(layer: keras.Layer, left_out: Mapping[str, keras.Variable], store: Any) -> None:
    """A layer's `load_own_variables`, where some variables are as they are."""
    kept = {name: ops.convert_to_numpy(variable) for name, variable in left_out.items()}
    type(layer).load_own_variables(layer, {**_arrays(store), **kept})


def _root_mean_square(values: Values) -> float:
    """Of what the first latents choose: both ends of each gap alike often."""
    ascending = values.ascending.astype(float)
    chosen = [ascending[..., :-1], ascending[..., 1:]] if len(values) > 1 else ascending
    return float(np.sqrt(np.mean(np.square(chosen)))) or 1.0
