"""A parameter's weight is computed from its latent, and its state moves on, here.

In inference the weight is kept until a variable changes; in training it has the estimator's
gradient, noise if the list has any, and the moves of the optimizer that it followed.
"""

import math
from collections.abc import Sequence

import keras
from keras import ops

from quantal._core.coordinates import Coordinates
from quantal._core.effective_latent import Followed
from quantal._core.estimator import Estimator
from quantal._core.keras_internals.scopes import without_autocast
from quantal._core.tensors.computed_once import computed_once
from quantal._core.tensors.distributed import with_mean_gradient
from quantal._core.tensors.fused import FusedFunction
from quantal._core.tensors.gradients import as_if
from quantal._core.tensors.kept import KeptTensor
from quantal._core.tensors.level_noise import LevelNoise
from quantal._core.types import Tensor


class WeightComputation:
    """A computation gives the weight of one parameter, in training and in inference.

    Args:
        coordinates: The parameter's latent, list and scale.
        estimator: How gradients pass.
        state: float32 variable of the estimator's state, or None.
        seed: The seed generator for an estimator that draws random numbers and for a list with
            noise; None for others.
        sources: All variables that the weight depends on.
    """

    def __init__(
        self,
        coordinates: Coordinates,
        estimator: Estimator,
        state: keras.Variable | None,
        seed: keras.random.SeedGenerator | None,
        sources: Sequence[keras.Variable],
    ) -> None:
        self._coordinates, self._estimator = coordinates, estimator
        self._state, self._seed, self._sources = state, seed, sources
        self._kept = KeptTensor()
        self._moves, self._fused = FusedFunction(), FusedFunction()
        values = coordinates.first_values
        self._noise = None if values.noise is None else LevelNoise(values)

    def stand_still(self) -> None:
        """Expect that variables change by assignment alone, since training has ended for good."""
        self._kept = KeptTensor(are_still=True)

    def unshared(self, tensor: Tensor) -> Tensor:
        """Return a tensor that shares no memory with what is kept: users may write into it."""
        return self._kept.unshared(tensor)

    def in_inference(self) -> Tensor:
        """Return the weight of listed values, which is kept until a variable changes."""
        with without_autocast():
            return self._kept.get(self._sources, self.compute)

    def in_training(self, advance: bool) -> Tensor:
        """Return the weight that training sees, with its gradient and with noise, if there is any.

        Args:
            advance: Whether to move state and scale on afterwards.
        """
        self._kept.forget()
        weight, followed = self._with_gradient()
        if not self._estimator.random:  # Whose derivative is that of each replica's own draw.
            weight = with_mean_gradient(weight)
        if self._noise is not None:
            weight = computed_once(weight + self._drawn_noise(self._noise, followed))
        if advance:
            self.advance(followed)
        return weight

    def compute(self, training: bool = False, followed: Followed | None = None) -> Tensor:
        """Compute the weight, without noise.

        Args:
            training: Whether the estimator may show what training sees.
            followed: The effective latent, where it has been followed already.
        """
        coordinates = self._coordinates
        scale = coordinates.scale_state
        projection, followed = coordinates.projection(), followed or coordinates.followed()
        latent = coordinates.in_list_units(followed)
        if followed is None:
            state = None if self._state is None else ops.convert_to_tensor(self._state)
        else:
            state = followed.state
        value = self._estimator.forward(latent, projection, training, state, self._seed)
        if coordinates.entries is not None:
            value = projection.with_entries(value, latent)  # type: ignore[attr-defined]
        if scale is not None:
            value = scale.apply(value, latent, projection)
        return computed_once(value, training)

    def with_gradients(self, values: Tensor) -> Tensor:
        """Return listed values as they are, with the gradients to a learned list and scale."""
        coordinates = self._coordinates
        if coordinates.entries is not None:
            values = as_if(values, coordinates.projection().entry(values))  # type: ignore[attr-defined]
        return values if coordinates.scale_state is None else values * coordinates.scale_state.one()

    def advance(self, followed: Followed | None) -> None:
        """Move the estimator's state, a computed scale and the effective latent by one step.

        Args:
            followed: The effective latent after all moves; None where there is no other one.
        """
        coordinates = self._coordinates
        scale = coordinates.scale_state
        if coordinates.effective is not None and followed is not None:
            coordinates.effective.advance(followed)
        elif self._state is not None:
            self._state.assign(self._estimator.next_state(ops.convert_to_tensor(self._state)))
        if scale is not None and scale.is_computed:
            numbers = ops.stop_gradient(coordinates.in_start_units())
            scale.advance(numbers, coordinates.listed_values)

    def moments(self) -> tuple[Tensor, Tensor]:
        """Return mean and variance of a weight whose elements are random, with gradients."""
        coordinates = self._coordinates
        scale_state = coordinates.scale_state
        latent, projection, scale = coordinates.in_start_units(), coordinates.projection(), None
        if scale_state is not None:
            elements = math.prod(coordinates.latent.shape)
            scale, relative = scale_state.differentiable(elements, projection)
            latent = latent * (1.0 / relative)
        mean, variance = self._estimator.moments(latent, projection)  # type: ignore[attr-defined]
        if self._noise is not None:
            deviation = self._noise.deviations(ops.stop_gradient(latent), projection)
            variance = variance + deviation * deviation
        return (mean, variance) if scale is None else (scale * mean, scale * scale * variance)

    def _with_gradient(self) -> tuple[Tensor, Followed | None]:
        """Return the weight with its gradient, and the effective latent after all moves."""
        if self._estimator.random:
            followed = self._coordinates.followed()
            return self.compute(True, followed), followed

        def moved() -> tuple[Tensor, ...]:
            followed = self._coordinates.followed()
            return () if followed is None else tuple(followed.parts())

        def computed(*parts: Tensor) -> tuple[Tensor]:
            return (self.compute(True, self._followed_of(parts)),)

        with without_autocast():
            # By themselves, or the gradient would compute the moves anew.
            has_steps = self._coordinates.effective is not None
            parts = self._moves.without_gradient(self._sources, moved) if has_steps else ()
            (weight,) = self._fused(self._sources, computed, parts)
            return weight, self._followed_of(parts)

    def _followed_of(self, parts: Sequence[Tensor]) -> Followed | None:
        if not parts:
            return None
        optimized = ops.cast(ops.convert_to_tensor(self._coordinates.latent), "float32")
        return Followed.of(parts, ops.stop_gradient(optimized))

    def _drawn_noise(self, noise: LevelNoise, followed: Followed | None) -> Tensor:
        """Return the noise of the values that the elements have now, times the scale."""
        scale = self._coordinates.scale_state
        with without_autocast():
            latent = ops.stop_gradient(self._coordinates.in_list_units(followed))
            drawn = noise.draw(latent, self._coordinates.projection(), self._seed)
            return drawn if scale is None else scale.value() * drawn
