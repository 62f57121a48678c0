"""A parameter has variables in addition to its latent, which a layer creates."""

from collections.abc import Callable, Sequence
from typing import Any

import keras
from keras import ops

from quantal._core.companion import add_companion
from quantal._core.effective_latent import EffectiveLatent
from quantal._core.estimator import Estimator
from quantal._core.keras_internals.layers import track_variable
from quantal._core.keras_internals.variables import layout_of
from quantal._core.latent_name import weight_path
from quantal._core.numbers.values import Values
from quantal._core.scale import Scale
from quantal._core.scale_state import ScaleState
from quantal._core.tensors.latent_units import entry_units
from quantal._core.types import Tensor
from quantal.layers._first_values import FirstScale, one


class ParameterVariables:
    """These methods create the variables of one parameter, in the order that files keep.

    Args:
        layer: The layer that owns them.
        latent: The variable that the optimizer moves.
        prefix: The first part of their names.
    """

    def __init__(self, layer: keras.Layer, latent: keras.Variable, prefix: str) -> None:
        self._layer, self._latent, self._prefix = layer, latent, prefix

    def state(self, estimator: Estimator) -> keras.Variable | None:
        """Create the state of an estimator; None for one without."""
        initial = estimator.initial_state
        if initial is None:
            return None
        return self._variable("estimator_state", (len(initial),), lambda: initial)

    def scale(
        self,
        scale: Scale | None,
        values: Values,
        output_axes: Sequence[int],
        first: FirstScale,
    ) -> ScaleState | None:
        """Create the variables of a scale; None for a parameter without.

        Args:
            scale: The method, or None.
            values: The list.
            output_axes: The axes of the weight's output channels.
            first: The scale's first value.
        """
        if scale is None:
            return None
        latent = self._latent
        shape = scale.shape(latent.shape, output_axes, weight_path(latent))
        start = self._variable("scale_start", shape, first)
        leader = latent if scale.method == "learned" else None
        relative = self._variable("scale", shape, one, leader)
        return ScaleState(scale, values, start, relative, latent.shape)

    def entries(self, values: Values) -> keras.Variable | None:
        """Create the variable of a learnable list; None for a fixed list."""
        if not values.learnable:
            return None
        first = entry_units(values).latents_of(values.numbers)
        return self._variable("values", first.shape, lambda: first, self._latent)

    def effective(
        self, estimator: Estimator, state: keras.Variable | None
    ) -> EffectiveLatent | None:
        """Create the effective latent of an estimator with steps of its own; None for others."""
        if not estimator.has_steps or state is None:
            return None
        # They lie where the latent lies, also on several devices.
        layout, shape = layout_of(self._latent), tuple(self._latent.shape)
        names = ["effective", "last", *(f"trace_{index}" for index in range(estimator.traces))]
        value, last, *traces = (self._state_variable(name, shape, layout) for name in names)
        follows = self._state_variable("follows", ())
        return EffectiveLatent(self._latent, estimator, state, value, last, follows, traces)

    def _state_variable(
        self, name: str, shape: Sequence[int], layout: Any = None
    ) -> keras.Variable:
        """Create a float32 variable of zeros that does not train, with a layout of its own."""
        with keras.name_scope(self._layer.name, caller=self._layer):
            variable = keras.Variable(
                "zeros",
                shape=shape,
                dtype="float32",
                trainable=False,
                autocast=False,
                name=f"{self._prefix}{name}",
                layout=layout,
            )
        track_variable(self._layer, variable)
        return variable

    def _variable(
        self,
        name: str,
        shape: Sequence[int],
        first: Callable[[], Any],
        leader: keras.Variable | None = None,
    ) -> keras.Variable:
        """Create a float32 variable whose first value a function gives.

        Args:
            name: The variable's name, without the prefix.
            shape: Its shape.
            first: Returns its first value.
            leader: The variable that it trains together with; None if it does not train.
        """

        def initializer(shape: Any, dtype: Any = None) -> Tensor:
            return ops.ones(shape, "float32") * ops.convert_to_tensor(first(), "float32")

        arguments: dict[str, Any] = {
            "name": f"{self._prefix}{name}",
            "shape": shape,
            "initializer": initializer,
            "dtype": "float32",
            "autocast": False,
        }
        if leader is None:
            return self._layer.add_weight(trainable=False, **arguments)
        return add_companion(self._layer, leader, **arguments)
