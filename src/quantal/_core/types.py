"""Names of types that no framework shares."""

from typing import Any, TypeAlias

Tensor: TypeAlias = Any
"""A tensor of the backend: `tf.Tensor`, `jax.Array` or `torch.Tensor`."""
