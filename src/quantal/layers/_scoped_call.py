"""A layer's call with tensors in place of some of its variables."""

from collections.abc import Callable, Mapping
from typing import Any

import keras

from quantal._core.by_identity import ByIdentity
from quantal._core.keras_internals.scopes import outside_of, scope_outside
from quantal._core.keras_internals.variables import stored_value
from quantal._core.latent_name import weight_path
from quantal._core.types import Tensor


def call_with(
    function: Callable[..., Any],
    tensors: ByIdentity[Tensor],
    add_loss: Callable[[Tensor], None],
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
) -> Any:
    """Call a layer, or a method of one, with tensors in place of some variables.

    All other variables work as ever, those that Keras does not list, too: what the call
    assigns to them stays.

    Args:
        function: A built layer or a method of one.
        tensors: The tensors, by variable.
        add_loss: It is called with each loss that the call adds, where no outer scope
            collects losses.
        args: The positional arguments of the call.
        kwargs: The keyword arguments of the call.

    Returns:
        The outputs of the call.
    """
    with ReplacingScope(tensors) as scope:
        outputs = function(*args, **kwargs)
    # A loss belongs to the layer that added it and to one scope; adding it to a second
    # layer within an outer scope would count it twice.
    outer = scope_outside(scope)
    for loss in scope.losses:
        if outer is None:
            add_loss(loss)
        elif outer.collect_losses:
            outer.add_loss(loss)
    return outputs


class Watched(ByIdentity[Tensor]):
    """Watched tensors by variable remember which of them a call has read."""

    def __init__(self, tensors: ByIdentity[Tensor]) -> None:
        self._unread = ByIdentity.of_keys(tensors)
        super().__init__(tensors.items())

    def __getitem__(self, key: object) -> Tensor:
        self._unread.pop(key, None)
        return super().__getitem__(key)

    def refuse_unread(self, layer: keras.Layer) -> None:
        """Refuse a layer whose call has used something that it keeps of a weight instead of it.

        Args:
            layer: The layer, which has a `finalize_state`.

        Raises:
            ValueError: It has not read one of the variables.
        """
        for variable in self._unread:
            path = weight_path(variable)
            raise ValueError(
                f"The call of the layer {layer.name!r} has not read its weight {path}, which is on "
                "a list. Its finalize_state may keep what it computed from the latent instead. "
                "Expected a call that computes with the weight itself. Do so in the layer, or "
                "leave this weight free."
            )


class ReplacingScope(keras.StatelessScope):
    """The scope puts tensors in place of some variables and leaves all others as they are.

    A plain `StatelessScope` has a value for the variables that it is given, and forgets what
    is assigned to any other. Within this one the others, listed or not, are read and
    assigned as outside it.

    Args:
        tensors: The tensors, by variable.
    """

    def __init__(self, tensors: ByIdentity[Tensor]) -> None:
        super().__init__([], collect_losses=True)
        self._tensors = tensors

    def get_current_value(self, variable: keras.Variable) -> Tensor | None:
        """Return the tensor in place of a variable, or the variable's value outside."""
        if variable in self._tensors:
            return self._tensors[variable]
        outer = scope_outside(self)
        return stored_value(variable) if outer is None else outer.get_current_value(variable)

    def add_update(self, update: tuple[keras.Variable, Tensor]) -> None:
        """Assign a value to a variable that is not replaced.

        Raises:
            ValueError: The variable is replaced, so that what is assigned would be lost.
        """
        variable, value = update
        if variable in self._tensors:
            path = weight_path(variable)
            raise ValueError(
                f"The wrapped layer assigns to its weight {path}, which is on a list: what "
                "meets the data is computed from its latent. Expected a layer that leaves "
                "listed weights to the optimizer, other than SpectralNormalization. Leave this "
                "weight free, or wrap a layer that assigns to none."
            )
        with outside_of(self):
            variable.assign(value)
