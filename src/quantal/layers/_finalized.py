"""Finalized layers: they do not train, and files have packed codes instead of latents.

Keras's stores of files support `keys()` and indexing, but are not mappings.
"""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from quantal._core.by_identity import ByIdentity
from quantal._core.keras_internals.layers import own_variables
from quantal._core.parameter import Parameter
from quantal._core.tensors.distributed import whole_array
from quantal._storage import packing
from quantal._storage.record import Record, record_of, restore


def freeze(parameters: Sequence[Parameter], owners: Sequence[keras.Layer] = ()) -> None:
    """Stop the training of parameters, and keep their latents out of files.

    Args:
        parameters: The parameters of a finalized layer, which saves their packed codes.
        owners: Other layers that own latents, such as a wrapped layer.
    """
    for parameter in parameters:
        parameter.stand_still()
    latents = ByIdentity.of_keys(parameter.latent for parameter in parameters)
    for owner in owners:
        # Keras's files name a layer's variables by their position among them.
        excluded = {str(i): v for i, v in enumerate(own_variables(owner)) if v in latents}
        if excluded:
            # The owner may be of any class, so its methods are replaced on the instance.
            owner.save_own_variables = functools.partial(_save_others, owner, excluded)
            owner.load_own_variables = functools.partial(_load_others, owner, excluded)


def save_packed(parameters: Sequence[Parameter], store: Any) -> None:
    """Put the packed codes, the list and the scale of each parameter into a store."""
    store["version"] = np.array(packing.VERSION)
    for index, parameter in enumerate(parameters):
        record = record_of(parameter)
        store[f"{index}.coded"] = np.array(record.coded)
        for name, array in record.arrays.items():
            store[f"{index}.{name}"] = array


def load_packed(parameters: Sequence[Parameter], store: Any) -> None:
    """Set parameters from a store that `save_packed` filled.

    Raises:
        ValueError: The store holds something else.
    """
    arrays = _arrays(store)
    version = arrays.get("version")
    if version is None or int(version) != packing.VERSION:
        raise ValueError(
            f"The file has packed codes of version {version}. Expected a finalized layer with "
            f"version {packing.VERSION}. Load it with the version of quantal that saved it."
        )
    for index, parameter in enumerate(parameters):
        prefix = f"{index}."
        try:
            arrays_of_parameter = {
                name.removeprefix(prefix): array
                for name, array in arrays.items()
                if name.startswith(prefix)
            }
            coded = bool(arrays_of_parameter["coded"])
            restore(parameter, Record.from_arrays(arrays_of_parameter, coded))
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(
                f"{parameter.path} is not readable from the file: {error}. Expected the "
                "packed codes of a finalized layer. Load an unchanged file of the model that "
                "quantal.finalize returned."
            ) from error


def _arrays(store: Any) -> dict[str, NDArray[Any]]:
    return {name: np.asarray(store[name]) for name in list(store.keys())}


def _save_others(layer: keras.Layer, excluded: Mapping[str, keras.Variable], store: Any) -> None:
    """Save a layer's own variables but for some, as `save_own_variables` does."""
    whole: dict[str, Any] = {}
    type(layer).save_own_variables(layer, whole)
    for name, array in whole.items():
        if name not in excluded:
            store[name] = array


def _load_others(layer: keras.Layer, excluded: Mapping[str, keras.Variable], store: Any) -> None:
    """Load a layer's own variables but for some, which stay as they are."""
    unchanged = {name: whole_array(variable) for name, variable in excluded.items()}
    type(layer).load_own_variables(layer, {**_arrays(store), **unchanged})
