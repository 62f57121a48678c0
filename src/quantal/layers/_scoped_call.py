"""A layer's call with tensors in place of some of its variables."""

from collections.abc import Callable, Mapping
from typing import Any

import keras

from quantal._core.by_identity import ByIdentity
from quantal._core.keras_internals import scope_outside
from quantal._core.types import Tensor


def call_with(
    layer: keras.Layer,
    tensors: ByIdentity[Tensor],
    add_loss: Callable[[Tensor], None],
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
) -> Any:
    """Call a layer with tensors in place of some of its variables.

    The layer's other variables work as ever: what the call assigns to them stays.

    Args:
        layer: A built layer.
        tensors: The tensors, by variable.
        add_loss: It is called with each loss that the call adds, where no outer scope
            collects losses.
        args: The positional arguments of the layer's call.
        kwargs: The keyword arguments of the layer's call.

    Returns:
        The outputs of the call.
    """
    variables = layer.variables
    # Every variable has an entry: within the scope Keras asks no scope around it, so a
    # variable without one would lose the value that a JAX trainer gave it. A replaced
    # variable is not asked for its value, which a JAX trainer may have taken away.
    mapping = [(v, tensors[v] if v in tensors else v.value) for v in variables]  # noqa: SIM401
    with keras.StatelessScope(mapping, collect_losses=True) as scope:
        values_before = [scope.get_current_value(variable) for variable in variables]
        outputs = layer(*args, **kwargs)
    for variable, before in zip(variables, values_before, strict=True):
        after = scope.get_current_value(variable)
        if variable not in tensors and after is not before:
            variable.assign(after)
    # A loss belongs to the layer that added it and to one scope; adding it to a second
    # layer within an outer scope would count it twice.
    outer = scope_outside(scope)
    for loss in scope.losses:
        if outer is None:
            add_loss(loss)
        elif outer.collect_losses:
            outer.add_loss(loss)
    return outputs
