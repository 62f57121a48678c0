"""A variable may be created first and get memory for its numbers later."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import keras
from keras.src.backend.common import global_state

from quantal._core.keras_internals.lock import one_at_a_time

_LATE_VARIABLES = "uninitialized_variables"
"""The name under which Keras lists, for each thread, variables that have no numbers yet."""
_AnyVariable: Any = next(
    kind
    for kind in keras.Variable.__mro__
    if kind.__module__ == "keras.src.backend.common.variables"
)
"""The class whose constructor every backend's variables share."""


def is_allocated(variable: keras.Variable) -> bool:
    """Say whether a variable has numbers yet; none has while Keras traces its creation."""
    return variable._value is not None


def initializer_of(variable: keras.Variable) -> Callable[..., Any]:
    """Return the initializer of a variable that is not allocated yet."""
    return variable._initializer


def set_initializer(variable: keras.Variable, initializer: Callable[..., Any]) -> None:
    """Set the initializer of a variable that is not allocated yet."""
    variable._initializer = initializer


def allocate(variable: keras.Variable) -> None:
    """Give a variable its memory, with the numbers of its initializer."""
    variable._deferred_initialize()


@contextlib.contextmanager
def variables_without_numbers(
    on_creation: Callable[[keras.Variable], None],
) -> Iterator[list[keras.Variable]]:
    """Let no variable that is created in the block take memory for its numbers.

    A variable then has a shape, a dtype and an initializer. Give each one that is to be
    used numbers with `allocate`, after the block. Initializers are called only by layers
    that compute with a weight while they are built.

    Args:
        on_creation: Is called with each new variable, and may raise an error.

    Yields:
        The variables, in the order of their creation; complete when the block ends.
    """

    class Ledger(list[keras.Variable]):
        def append(self, variable: keras.Variable) -> None:
            on_creation(variable)
            super().append(variable)

    variables = Ledger()
    scope = keras.StatelessScope(initialize_variables=False)
    create = _AnyVariable.__init__

    def create_late(
        self: Any, initializer: Any, shape: Any = None, dtype: Any = None, **options: Any
    ) -> None:
        """Create a variable from an array as if a function returned the array."""
        is_array = not isinstance(initializer, str) and not callable(initializer)
        if is_array and global_state.get_global_attribute("stateless_scope") is scope:
            array = self._convert_to_tensor(initializer, dtype=dtype)
            dtype = dtype or keras.backend.standardize_dtype(array.dtype)
            create(self, lambda *_, **__: array, array.shape, dtype, **options)
        else:
            create(self, initializer, shape, dtype, **options)

    # The class belongs to all threads; what is replaced acts within this scope alone.
    with one_at_a_time:
        others = global_state.get_global_attribute(_LATE_VARIABLES)
        global_state.set_global_attribute(_LATE_VARIABLES, variables)
        _AnyVariable.__init__ = create_late
        try:
            with scope:
                yield variables
        finally:
            _AnyVariable.__init__ = create
            global_state.set_global_attribute(_LATE_VARIABLES, others)
