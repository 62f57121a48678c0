"""A parameter's numbers are in one of several coordinate systems, and go from one to another here.

| system | what a number is | read by |
|---|---|---|
| latent | a number of order one: `start units = offset + unit * latent` (`LatentUnits`) | `effective_latent` |
| start units | the latent in the units of the list at the scale's start; without a scale these are list units | `in_start_units` |
| list units | start units divided by the relative scale: here latents are compared with the list | `in_list_units` |
| value | a member of the list: the one nearest to the latent in list units | `listed_values` |
| weight | the value times the scale: what meets the data | `Parameter.weight` |
| code | the position of a value in the user's list | `Parameter.codes` |
| rank | the position of a value in the list in ascending order: for step functions, search and polish | `Values.order` |
| optimizer's | what the optimizer moves: the latent itself, or, for an estimator with steps of its own, another number whose moves alone count (`EffectiveLatent`) | `latent` |
| relative scale | the scale divided by its start: 1 at first, and what an optimizer moves | `scale_state.relative` |
"""  # noqa: E501 (a table)

import math
from typing import Any

import keras
import numpy as np
from keras import ops
from numpy.typing import ArrayLike, NDArray

from quantal._core.effective_latent import EffectiveLatent, Followed
from quantal._core.keras_internals.scopes import without_autocast
from quantal._core.numbers.values import Values
from quantal._core.scale_state import ScaleState
from quantal._core.tensors.distributed import whole, whole_array
from quantal._core.tensors.latent_units import LatentUnits, entry_units
from quantal._core.tensors.plain_torch import is_plain
from quantal._core.tensors.projection import Projection, moving_projection, projection_of
from quantal._core.tensors.torch_inward import plain_where_finite
from quantal._core.types import Tensor


class Coordinates:
    """Coordinates take a parameter's numbers from its latent to its list, and back.

    Args:
        latent: The float32 variable that the optimizer moves.
        values: The list; its first numbers, if it is learnable.
        scale: The scale's variables, or None.
        entries: The variable of a learnable list's numbers in latent units, or None.
        effective: The effective latent of an estimator with steps of its own, or None.
    """

    def __init__(
        self,
        latent: keras.Variable,
        values: Values,
        scale: ScaleState | None,
        entries: keras.Variable | None,
        effective: EffectiveLatent | None,
    ) -> None:
        self.latent, self.first_values, self.scale_state = latent, values, scale
        self.entries, self.effective = entries, effective
        self._rank = len(latent.shape)
        self._units = LatentUnits(values, self._rank)
        self._entry_units = entry_units(values)
        # Created here, outside any compiler's trace.
        self._fixed = None if values.learnable else projection_of(values, self._rank)

    def values(self) -> Values:
        """Return the list; a learnable one has its present numbers."""
        if self.entries is None:
            return self.first_values
        return self.first_values.moved(whole_array(self._entry_numbers()))

    def projection(self) -> Projection:
        """Return the list as tensors, with the gradient to its numbers where it is learnable."""
        if self._fixed is not None:
            return self._fixed
        return moving_projection(self._entry_numbers(), self.first_values.axis, self._rank)

    def followed(self) -> Followed | None:
        """Return the effective latent after all moves; None where the latent has no other one."""
        return None if self.effective is None else self.effective.followed()

    def effective_latent(self) -> Tensor:
        """Return the latent that everything computes with: float32, with gradient to `latent`."""
        followed = self.followed()
        if followed is not None:
            return followed.latent
        # Latents are read in float32, also where a layer of another dtype asks for the weight.
        with without_autocast():
            return ops.cast(ops.convert_to_tensor(self.latent), "float32")

    def in_start_units(self) -> Tensor:
        """Return the latent in the units of the list at the scale's start, with its gradient."""
        return self._units.values_of(self.effective_latent())

    def in_list_units(self, followed: Followed | None = None) -> Tensor:
        """Return the latent in list units: with gradient to the latent, and none to the scale.

        Args:
            followed: The effective latent, where it has been followed already.
        """
        if followed is None:
            return self._to_list_units(self.in_start_units())
        return self._to_list_units(self._units.values_of(followed.latent))

    def listed_values(self) -> Tensor:
        """Return the values nearest to the latent, without gradient; NaN where it is not finite."""
        latent = ops.stop_gradient(self.in_list_units())
        nearest = self.projection().nearest(latent)
        if keras.config.backend() == "torch" and is_plain(latent):
            return plain_where_finite(nearest, latent)
        return whole(ops.where(ops.isfinite(latent), nearest, math.nan))

    def latents_at(self, codes: NDArray[Any]) -> NDArray[np.float32]:
        """Return the latents that lie on the values with the given codes."""
        numbers = self.values().take(codes)
        if self.scale_state is not None:
            state = self.scale_state
            relative = state.spread(state.compact() / ops.convert_to_tensor(state.start))
            numbers = numbers * whole_array(relative)
        return self._units.latents_of(numbers)

    def latents_of(self, numbers: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return numbers in the units of the scale's start in latent units."""
        return self._units.latents_of(numbers)

    def codes_at(self, latents: ArrayLike) -> NDArray[np.int32]:
        """Return the codes that other latents than the present ones would have."""
        numbers = self._units.values_of(ops.convert_to_tensor(latents, "float32"))
        return whole_array(self.projection().codes(self._to_list_units(numbers)))

    def entry_latents(self, numbers: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the numbers of a list in the latent units of its entries."""
        return self._entry_units.latents_of(numbers)

    def _to_list_units(self, numbers: Tensor) -> Tensor:
        return numbers if self.scale_state is None else self.scale_state.to_list_units(numbers)

    def _entry_numbers(self) -> Tensor:
        return self._entry_units.values_of(self.entries)
