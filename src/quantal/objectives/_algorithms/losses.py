"""What a function returns is checked before it counts as losses."""

import numbers
from typing import Any

import numpy as np

from quantal.objectives.problem import Floats

AS_A_BATCH = (
    "For a function f of one vector, give lambda vectors: np.array([f(v) for v in vectors])."
)
"""The advice for a function that does not take a batch."""


def checked_losses(losses: Any, count: int, name: str = "The loss") -> Floats:
    """Return losses (count,) in float64.

    Args:
        losses: What a function returned for so many vectors.
        count: The number of vectors.
        name: The function's name in an error.

    Raises:
        ValueError: They are not real numbers, or not one for each vector.
    """
    array = np.asarray(losses)
    if array.dtype.kind not in "fiub" and not _is_real(array):
        advice = "Take np.abs of it, or its real part" if array.dtype.kind == "c" else "Convert it"
        raise ValueError(
            f"{name} gave {_kind(array)}. Expected real numbers, shape ({count},). {advice}."
        )
    if array.shape != (count,):
        given = f"the shape {array.shape}" if array.ndim else "a single number"
        raise ValueError(
            f"{name} gave {given} for {count} vectors at once. Expected ({count},), a loss for "
            f"each: sum over the last axis alone. {AS_A_BATCH}"
        )
    return array.astype(np.float64)


def _is_real(array: np.ndarray[Any, Any]) -> bool:
    """Return whether an array of objects, or of a dtype such as bfloat16, holds real numbers."""
    if array.dtype.kind == "O":
        return all(isinstance(entry, numbers.Real) for entry in array.flat)
    return array.dtype.kind == "V" and np.can_cast(array.dtype, np.float64)


def _kind(array: np.ndarray[Any, Any]) -> str:
    if array.dtype.kind == "O":
        return f"objects such as {next(iter(array.flat), None)!r:.40}"
    return f"numbers of dtype {array.dtype}" if array.dtype.kind == "c" else f"{array.dtype}"
