"""The weights of a wrapped layer become latents: at the numbers that they have, or drawn."""

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops
from numpy.typing import NDArray

from quantal._core.by_identity import ByIdentity
from quantal._core.latent_name import weight_path
from quantal._core.numbers.checks import check_finite_numbers
from quantal._core.numbers.scale_blocks import spread
from quantal._core.numbers.values import Values
from quantal._core.scale import Scale
from quantal._core.tensors.latent_units import LatentUnits, draw_latents
from quantal._core.types import Tensor
from quantal.layers._channels import output_axes
from quantal.layers._first_values import (
    FirstScale,
    chosen_initializer,
    do_values_follow,
    initialize,
    is_drawn,
    numbers_of,
    one,
    scale_from_initializer,
)


class FirstLatents:
    """First latents are what the weights of a wrapped layer start from; each has a first scale.

    Args:
        values: The list.
        scale: The scale's method, or None.
        seed: The seed of latents that are drawn, or None.
    """

    def __init__(self, values: Values, scale: Scale | None, seed: int | None) -> None:
        self._values, self._scale, self._seed = values, scale, seed
        # The weights that have their first latents, each with its scale's first value.
        self._first_scales: ByIdentity[FirstScale] = ByIdentity()

    def scale_of(self, latent: keras.Variable) -> FirstScale:
        """Return the first value of the scale of a weight."""
        return self._first_scales.get(latent, one)

    def start_from(self, layer: keras.Layer, latent: keras.Variable, trained: NDArray[Any]) -> None:
        """Turn a weight into a latent that starts at given numbers, each near its value."""
        self._values.check_channels(latent.shape)
        path = weight_path(latent)
        check_finite_numbers(f"weights of {path}", trained)
        self._first_scales[latent] = one
        if self._scale is not None:
            shape = self._scale.shape(trained.shape, output_axes(layer, latent), path)
            scales = self._scale.fitted(trained, self._values, shape)
            self._first_scales[latent] = lambda: scales
            trained = trained / spread(scales, trained.shape)
        latents = LatentUnits(self._values, trained.ndim).latents_of(trained)
        initialize(latent, lambda _, dtype: ops.cast(latents, dtype))

    def draw(self, layer: keras.Layer, weights: Sequence[keras.Variable]) -> None:
        """Set the first latents of those weights of a layer that have none yet."""
        for index, latent in enumerate(weights):
            if latent in self._first_scales:
                continue
            self._first_scales[latent] = one
            chosen = chosen_initializer(layer, latent)
            if chosen is None:
                self._draw(latent, None if self._seed is None else self._seed + index)
            elif not do_values_follow():
                self.start_from(layer, latent, numbers_of(chosen, latent))

    def _draw(self, latent: keras.Variable, seed: int | None) -> None:
        """Draw the first latents of a weight near the list's midpoints."""
        if not is_drawn(seed):
            return
        if self._scale is not None:
            self._first_scales[latent] = scale_from_initializer(latent, self._scale, self._values)

        def drawn(shape: Any, dtype: Any) -> Tensor:
            return ops.cast(draw_latents(self._values, shape, seed), dtype)

        initialize(latent, drawn)
