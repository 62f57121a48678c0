"""What both layers share: their parameters, and the variables these need."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import ops
from numpy.typing import ArrayLike

from quantal import estimators
from quantal.parameters import Parameter
from quantal.values import Values, ValuesLike


class DiscreteLayer:
    """What both layers share: what makes a parameter, and the parameters as properties."""

    discrete_parameters: list[Parameter] | None
    name: str
    add_weight: Callable[..., keras.Variable]

    def _set_up(self, values: ValuesLike, estimator: Any, scale: Any, seed: int | None) -> None:
        """Keep the arguments that both layers take; the parameters come with `build`."""
        if scale not in (None, "learned"):
            raise ValueError(
                f"scale is {scale!r}. Expected None (the values as listed) or 'learned' (one "
                "trainable factor on all of them). Leave it out to keep the list."
            )
        self.values = Values(values)
        self.estimator = estimators.get(estimator)
        self.scale_mode: str | None = scale
        self.seed = seed
        self.discrete_parameters = None

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments, for saving."""
        return {
            **super().get_config(),  # type: ignore[misc]
            "values": self.values.tolist(),
            "estimator": keras.saving.serialize_keras_object(self.estimator),
            "scale": self.scale_mode,
            "seed": self.seed,
        }

    def _make_parameter(self, latent: keras.Variable, prefix: str = "") -> Parameter:
        """A parameter on a latent, with the variables that estimator and scale need."""
        state = scale = None
        initial = self.estimator.initial_state
        if initial is not None:
            state = self.add_weight(
                name=f"{prefix}estimator_state",
                shape=(len(initial),),
                initializer=lambda shape, dtype=None: ops.convert_to_tensor(
                    np.array(initial, np.float32)
                ),
                dtype="float32",
                trainable=False,
                autocast=False,
            )
        if self.scale_mode == "learned":
            scale = self.add_weight(
                name=f"{prefix}scale",
                shape=(),
                initializer="ones",
                dtype="float32",
                autocast=False,
            )
        return Parameter(latent, self.values, self.estimator, state, scale)

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
        """The chosen values, exactly from the list: float32 tensor without gradient."""
        return self._only_parameter().kernel

    @property
    def codes(self) -> Any:
        """The positions of the chosen values in the user's list: int32 tensor."""
        return self._only_parameter().codes

    def set_codes(self, codes: ArrayLike) -> None:
        """Choose the values by their positions in the list; see `Parameter.set_codes`."""
        self._only_parameter().set_codes(codes)
