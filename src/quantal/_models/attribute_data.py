"""Attributes of layers hold data, which is told from other things, compared and copied here."""

import copy
import datetime
import enum
from pathlib import PurePath
from types import BuiltinFunctionType, FunctionType, ModuleType
from typing import Any

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray

from quantal._core.tensors.distributed import whole_array
from quantal._core.types import Tensor

_TIMES = (datetime.date, datetime.time, datetime.timedelta)
_PLAIN = (
    *(type(None), bool, int, float, complex, str, bytes, np.ndarray, np.generic),
    *(PurePath, enum.Enum, range, slice, np.dtype, *_TIMES),
)
"""The types of attributes that are data and nothing else."""
_OF_LIBRARIES = (
    *("builtins", "functools", "jax", "jaxlib", "keras", "keras_hub", "keras_nlp"),
    *("numpy", "quantal", "tensorflow", "torch"),
)
"""The packages whose objects are not compared: what they hold follows from configs or weights."""
_DEEPEST = 4
"""How deep objects within objects are looked into; they may hold themselves."""


def keeps_the_same_data(one: Any, other: Any) -> bool:
    """Return whether two objects of one class hold the same, where that is data."""
    return vars(one).keys() == vars(other).keys() and all(
        are_equal(value, vars(other)[name]) for name, value in vars(one).items() if is_data(value)
    )


def is_data(value: Any, depth: int = 0) -> bool:
    """Return whether an attribute is plain, or a user's object that holds plain data alone."""
    if _is_plain(value):
        return True
    return (
        depth < _DEEPEST
        and _is_of_a_user(value)
        and all(is_data(entry, depth + 1) for entry in vars(value).values())
    )


def is_function(value: Any) -> bool:
    """Return whether an attribute is a function that belongs to no object."""
    of_a_module = isinstance(value, BuiltinFunctionType) and isinstance(value.__self__, ModuleType)
    return of_a_module or isinstance(value, (FunctionType, np.ufunc))


def captured(function: Any) -> list[Any]:
    """Return what a function refers to in the functions around it."""
    cells = getattr(function, "__closure__", None) or ()
    return [cell.cell_contents for cell in cells if _is_filled(cell)]


def _is_filled(cell: Any) -> bool:
    try:
        _ = cell.cell_contents
    except ValueError:  # The name is not assigned yet.
        return False
    return True


def is_kept_by_keras(value: Any) -> bool:
    """Return whether an attribute holds what Keras tracks, which is compared elsewhere."""
    if isinstance(value, (dict, list, tuple)):
        entries = list(value.values()) if isinstance(value, dict) else list(value)
        return bool(entries) and all(map(is_kept_by_keras, entries))
    tracked = (keras.Layer, keras.Variable, keras.KerasTensor, keras.metrics.Metric)
    return isinstance(value, (*tracked, keras.random.SeedGenerator))


def are_alike(one: Any, other: Any) -> bool:
    """Return whether nothing shows that two attributes, which are no data, hold different things.

    Data in lists and in objects of a user's class is compared; whatever else is there is not.
    """
    if one is other or is_kept_by_keras(one) or ops.is_tensor(one):
        return True
    if is_data(one) or is_data(other) or is_function(one):
        return are_equal(one, other)
    if isinstance(one, (list, tuple)) and isinstance(other, (list, tuple)):
        return len(one) == len(other) and all(map(are_alike, one, other))
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(are_alike(one[key], other[key]) for key in one)
    # An object may hold itself, so no further objects are looked into.
    if _is_of_a_user(one):
        return type(one) is type(other) and all(
            name in vars(other) and are_equal(value, vars(other)[name])
            for name, value in vars(one).items()
            if is_data(value)
        )
    return True


def are_equal(one: Any, other: Any) -> bool:
    """Return whether two attributes hold the same data, or do the same."""
    if isinstance(one, FunctionType):
        return one is other or (
            isinstance(other, FunctionType)
            and one.__code__ == other.__code__
            and are_alike(one.__defaults__, other.__defaults__)
            and are_alike(captured(one), captured(other))
        )
    if _is_of_a_user(one) and not _is_plain(one):
        return type(one) is type(other) and are_equal(vars(one), vars(other))
    if ops.is_tensor(one) or isinstance(one, (np.ndarray, np.generic)):
        is_comparable = type(one) is type(other) and _is_plain(other)
        return is_comparable and same_numbers(*map(whole_array, (one, other)))
    if isinstance(one, dict):
        return (
            isinstance(other, dict)
            and one.keys() == other.keys()
            and all(are_equal(one[key], other[key]) for key in one)
        )
    if isinstance(one, (list, tuple)):
        return (
            isinstance(other, (list, tuple))
            and len(one) == len(other)
            and all(map(are_equal, one, other))
        )
    return type(one) is type(other) and bool(one == other or one != one)


def same_numbers(one: NDArray[Any], other: NDArray[Any]) -> bool:
    """Return whether two arrays are equal to the bit, in type and shape too."""
    return (
        one.dtype == other.dtype and one.shape == other.shape and one.tobytes() == other.tobytes()
    )


def copied(value: Any) -> Any:
    """Return data in separate memory."""
    if not _is_plain(value):
        return copy.deepcopy(value)
    if isinstance(value, dict):
        return {key: copied(entry) for key, entry in value.items()}
    if isinstance(value, tuple):
        entries = tuple(map(copied, value))
        return type(value)(*entries) if hasattr(value, "_fields") else entries
    if isinstance(value, list):
        return list(map(copied, value))
    if ops.is_tensor(value):
        return ops.convert_to_tensor(np.array(whole_array(value)))
    return value.copy() if isinstance(value, (np.ndarray, set)) else value


def _is_plain(value: Any) -> bool:
    """Return whether an attribute is data and nothing else."""
    if isinstance(value, dict):
        return all(map(_is_plain, value)) and all(map(_is_plain, value.values()))
    if isinstance(value, (list, tuple, set, frozenset)):
        return all(map(_is_plain, value))
    # A variable of TensorFlow is a tensor, too.
    if ops.is_tensor(value):
        return not hasattr(value, "assign") and _has_numbers(value)
    return isinstance(value, _PLAIN)


def _has_numbers(tensor: Tensor) -> bool:
    """Return whether a tensor has numbers, as one that only traces shapes has not."""
    try:
        whole_array(tensor)
    except Exception:  # Each backend raises another type.
        return False
    return True


def _is_of_a_user(value: Any) -> bool:
    """Return whether an object is of a class that no library of ours defines."""
    kind = type(value)
    return (
        hasattr(value, "__dict__")
        and not isinstance(value, (type, dict, list, tuple))
        and not isinstance(value, (keras.Layer, keras.Variable, keras.metrics.Metric))
        and kind.__module__.split(".")[0] not in _OF_LIBRARIES
    )
