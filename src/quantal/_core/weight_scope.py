"""A scope within which tensors stand for the listed values of parameters."""

import contextlib
import threading
from collections.abc import Iterator, Mapping
from typing import Any

from quantal._core.by_identity import ByIdentity
from quantal._core.types import Tensor

# Each thread has its own: a function may be traced in one while another computes.
_active = threading.local()


@contextlib.contextmanager
def weights_replaced(tensors: Mapping[Any, Tensor]) -> Iterator[None]:
    """Let parameters compute with other tensors in place of their listed values.

    Within the scope `Parameter.compute` takes the tensor of its parameter, times the
    parameter's scale, and neither latent nor estimator. Use it to compute a loss of many
    assignments, or its gradient to the values, without moving a latent. Scopes nest; the
    inner one decides.

    Args:
        tensors: float32 tensors in the parameters' shapes, by parameter.
    """
    outer = getattr(_active, "tensors", None)
    outer_items = [] if outer is None else list(outer.items())
    _active.tensors = ByIdentity([*outer_items, *tensors.items()])
    try:
        yield
    finally:
        _active.tensors = outer


def replacement_of(parameter: object) -> Tensor | None:
    """Return the tensor that stands for a parameter's listed values, or None outside a scope."""
    tensors = getattr(_active, "tensors", None)
    return None if tensors is None else tensors.get(parameter)
