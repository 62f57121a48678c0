"""The arrays that `get_weights` and `set_weights` of a discrete layer exchange with users.

An array for a listed weight means listed values if all its numbers are members of the list,
and latents otherwise. Latents that happen to be members of the list are told from listed
values by one unit in the last place of one of them.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import keras
import numpy as np
from numpy.typing import ArrayLike, NDArray

from quantal._core.by_identity import ByIdentity
from quantal._core.parameter import Parameter
from quantal._core.tensors.distributed import whole_array

Arrays = list[NDArray[Any]]


def arrays_for_user(layer: keras.Layer, parameters: Sequence[Parameter]) -> Arrays:
    """Return the values of a layer's weights as arrays; those of listed weights are latents.

    Args:
        layer: The layer.
        parameters: All parameters in it.
    """
    arrays = [whole_array(variable) for variable in layer.weights]
    indices = ByIdentity((variable, index) for index, variable in enumerate(layer.weights))
    for index, parameter in _indices_of(layer, parameters):
        if parameter.effective is not None:
            for variable, array in parameter.effective.restarted():
                arrays[indices[variable]] = array
        arrays[index] = latents_for_user(parameter, arrays[index])
    return arrays


def arrays_of_weights(
    layer: keras.Layer, parameters: Sequence[Parameter], weights: Sequence[ArrayLike]
) -> tuple[Arrays, bool]:
    """Return an array for each of a layer's weights, and whether a user gave the plain layer's.

    Args:
        layer: The layer.
        parameters: All parameters in it.
        weights: An array for each weight, or for those alone that the plain layer has.
    """
    arrays = [whole_array(array) for array in weights]
    others = ByIdentity.of_keys(v for p in parameters for v in p.other_variables)
    plain = [variable for variable in layer.weights if variable not in others]
    if not others or len(arrays) != len(plain):
        return arrays, False
    by_variable = ByIdentity(zip(plain, arrays, strict=True))
    arrays = [
        by_variable[variable] if variable in by_variable else whole_array(variable)
        for variable in layer.weights
    ]
    return arrays, True


def set_from_arrays(
    layer: keras.Layer, parameters: Sequence[Parameter], arrays: Arrays, is_plain: bool
) -> None:
    """Set the parameters of a layer whose weights have been assigned arrays.

    Args:
        layer: The layer.
        parameters: All parameters in it.
        arrays: The arrays, of which those with listed values set codes.
        is_plain: Whether the arrays are those of the plain layer.
    """
    # In the end, when a learned list and a scale are set, too.
    for index, parameter in _indices_of(layer, parameters):
        if is_plain:
            parameter.restart()
        set_from_array(parameter, arrays[index])


def _indices_of(layer: keras.Layer, parameters: Sequence[Parameter]) -> list[tuple[int, Parameter]]:
    """Return the position of each latent among a layer's weights, and its parameter."""
    by_latent = ByIdentity([(parameter.latent, parameter) for parameter in parameters])
    return [(i, by_latent[v]) for i, v in enumerate(layer.weights) if v in by_latent]


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
