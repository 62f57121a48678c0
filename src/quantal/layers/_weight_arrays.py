"""The arrays that `get_weights` and `set_weights` of a discrete layer exchange with users.

An array for a listed weight means listed values if all its numbers are members of the list,
and latents otherwise. Latents that happen to be members of the list are told from listed
values by one unit in the last place of one of them.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from quantal._core.parameter import Parameter
from quantal._core.tensors.distributed import whole_array


def set_from_array(parameter: Parameter, array: ArrayLike) -> None:
    """Set a parameter whose latent has been assigned an array, if that has listed values."""
    codes = listed_codes(parameter, array)
    if codes is not None:
        parameter.set_codes(codes)


def listed_codes(parameter: Parameter, array: ArrayLike) -> NDArray[np.int32] | None:
    """Return the codes of an array all of whose numbers are listed; None for another array."""
    numbers = np.asarray(whole_array(array), np.float32)
    codes = parameter.values.codes(numbers)
    return codes if np.array_equal(parameter.values.take(codes), numbers) else None


def latents_for_user(parameter: Parameter, latents: NDArray[Any]) -> NDArray[Any]:
    """Return latents as an array that `set_from_array` takes for latents, with the same codes.

    Nearly always that is the array itself.
    """
    codes = listed_codes(parameter, latents)
    if codes is None or np.array_equal(parameter.latents_of(codes), latents):
        return latents
    for moved in _moved(latents):
        if listed_codes(parameter, moved) is None and np.array_equal(
            parameter.codes_of(moved), parameter.codes_of(latents)
        ):
            return moved
    return latents


def _moved(latents: NDArray[Any]) -> Iterator[NDArray[Any]]:
    """Yield the array with one number moved to the next float, up or down."""
    for index in np.ndindex(latents.shape):
        for end in (np.inf, -np.inf):
            moved = latents.copy()
            moved[index] = np.nextafter(latents[index], latents.dtype.type(end))
            yield moved
