"""Scopes say which tensors variables have now, how layers are named and what Keras may read."""

import contextlib
from collections.abc import Iterator
from typing import Any

import keras
from keras.src.backend.common import global_state
from keras.src.backend.common.variables import AutocastScope, get_autocast_scope
from keras.src.saving.serialization_lib import SafeModeScope

_NAME_COUNTS = "object_name_uids"
"""The name under which Keras counts, for each thread, the names that it has given."""


def is_stateless() -> bool:
    """Return whether a scope gives variables other tensors now, as `stateless_call` does."""
    return global_state.get_global_attribute("stateless_scope") is not None


def scope_outside(scope: keras.StatelessScope) -> keras.StatelessScope | None:
    """Return the scope that was active when a stateless scope was entered."""
    return scope.original_scope


@contextlib.contextmanager
def outside_of(scope: keras.StatelessScope) -> Iterator[None]:
    """Leave a stateless scope for the scope around it, or for none, and enter it again."""
    global_state.set_global_attribute("stateless_scope", scope.original_scope)
    try:
        yield
    finally:
        global_state.set_global_attribute("stateless_scope", scope)


def without_autocast() -> contextlib.AbstractContextManager[Any]:
    """Return a context in which variables are read in their own dtype, not a layer's."""
    if get_autocast_scope() is None:
        return contextlib.nullcontext()
    return AutocastScope(None)


@contextlib.contextmanager
def names_from_the_start() -> Iterator[None]:
    """Let layers within a scope be named as in a new process: Keras counts the names that it gives.

    So the same function makes a model of the same names, however many there are already.
    """
    counts = global_state.get_global_attribute(_NAME_COUNTS)
    global_state.set_global_attribute(_NAME_COUNTS, None)
    try:
        yield
    finally:
        global_state.set_global_attribute(_NAME_COUNTS, counts)


def safe_deserialization() -> contextlib.AbstractContextManager[Any]:
    """Return a context in which Keras runs no code of a config, whatever its global switch says."""
    return SafeModeScope(True)
