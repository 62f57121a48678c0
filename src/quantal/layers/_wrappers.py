"""Which wrapper has which weights, so that no weight is on the lists of two."""

import gc
import weakref
from collections.abc import Iterable

import keras
import numpy as np
from numpy.typing import NDArray

from quantal._core.latent_name import weight_path
from quantal._core.tensors.distributed import whole_array
from quantal.layers._discrete_layer import DiscreteLayer

# By the identity of the latents, which a wrapper that lives keeps alive.
_wrappers: "weakref.WeakValueDictionary[int, DiscreteLayer]" = weakref.WeakValueDictionary()


def note_wrapper(wrapper: DiscreteLayer, latents: Iterable[keras.Variable]) -> None:
    """Note that a wrapper has put weights on its list; one that had them gives them up."""
    for latent in latents:
        other = other_wrapper(wrapper, latent)
        if other is not None:
            other.give_up_to(wrapper)
        _wrappers[id(latent)] = wrapper


def refuse_second_wrapper(wrapper: DiscreteLayer, latents: Iterable[keras.Variable]) -> None:
    """Refuse weights that another wrapper has on another list.

    One with the same arguments gives them up (`note_wrapper`), as where a wrapper is made
    again around its layer.

    Args:
        wrapper: The wrapper that is to put them on its own list.
        latents: The weights.

    Raises:
        ValueError: Another wrapper that still is in use has one of them.
    """
    for latent in latents:
        if _has_other_list(wrapper, other_wrapper(wrapper, latent)):
            # Keras's layers refer to each other in circles, which Python removes now and then.
            gc.collect()
        other = other_wrapper(wrapper, latent)
        if other is not None and _has_other_list(wrapper, other):
            raise ValueError(
                f"The weight {weight_path(latent)} is on the list of the "
                f"wrapper {other.name!r} already, so {wrapper.name!r} would compute with that "
                "one's latents. Expected one wrapper for each weight. To share the layer, call "
                "the first wrapper in both places; for two lists, wrap a copy of it, such as "
                "type(layer).from_config(layer.get_config()) with its weights."
            )


def other_wrapper(wrapper: DiscreteLayer, latent: keras.Variable) -> DiscreteLayer | None:
    """Return another wrapper that has a latent and is still in use, or None."""
    other = _wrappers.get(id(latent))
    if other is None or other is wrapper:
        return None
    has_latent = any(p.latent is latent for p in other.discrete_parameters or ())
    return other if has_latent else None


def present_latents(wrapper: DiscreteLayer, latent: keras.Variable) -> NDArray[np.float32]:
    """Return the numbers of a weight that a wrapper is to put on its list.

    Those of another wrapper, which gives the weight up, are its effective latents.
    """
    other = other_wrapper(wrapper, latent)
    parameters = [] if other is None else other.discrete_parameters or []
    for parameter in parameters:
        if parameter.latent is latent:
            return np.array(whole_array(parameter.effective_latent))
    return np.array(whole_array(latent))


def _has_other_list(wrapper: DiscreteLayer, other: DiscreteLayer | None) -> bool:
    return other is not None and other.get_list_config() != wrapper.get_list_config()
