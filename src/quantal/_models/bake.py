"""Turn a discrete model into a plain Keras model."""

from collections.abc import Callable, Mapping

import keras
import numpy as np
from numpy.typing import NDArray

from quantal._core.by_identity import ByIdentity
from quantal._core.keras_internals.graph import input_shapes, takes_masks
from quantal._core.keras_internals.layers import flatten_layers
from quantal._core.parameter import parameters_of
from quantal._core.tensors.distributed import whole_array
from quantal._core.tensors.kept import nothing_kept
from quantal._models.clone import Clone, clone_replacing, copy_value
from quantal._models.compile_like import compile_like
from quantal._models.finalize import trainable
from quantal._models.parts import Replacement
from quantal._models.plain_activation import plain_activation
from quantal._models.walk import check_model
from quantal.layers.activation import DiscreteActivation
from quantal.layers.discrete import Discrete, unwrapped
from quantal.layers.multiplier import LearnableMultiplier

_CALLS = ("__call__", "call", "compute_output_shape", "compute_mask", "_call_listed")
"""The methods that say what a discrete layer computes."""


def bake(model: keras.Model) -> keras.Model:
    """Return a plain Keras model that computes what a discrete model computes in inference.

    Use it to hand a model on: nothing in it is quantal's. Every discrete weight becomes
    an ordinary one that holds the listed values (times their scale); a
    `LearnableMultiplier` becomes an EinsumDense, or where masks pass through it a
    Rescaling by constants; a `DiscreteActivation` becomes an Activation whose function is a small
    model of Keras's operations. Predictions are equal to the bit. What is learned through a baked
    activation is nothing: its steps have no gradient.

    `discretize` puts the weights back on their list: a raw list with `scale=None`. With a
    fitted scale the codes come back where the weights determine them. A channel that
    uses only the smaller ones of some powers of two does not.

    Args:
        model: A built model.

    Returns:
        A new model, compiled as the old one is. The old one is left as it is.

    Raises:
        TypeError: The model is no Keras model.
        ValueError: It is not built, a number of a discrete weight is NaN or infinite, a
            layer in it cannot be created from its config, or is of a class derived from
            quantal's that computes in a way of its own.

    Example:
    >>> import keras, quantal
    >>> model = keras.Sequential([keras.Input((3,)), quantal.LearnableMultiplier([1, -1])])
    >>> plain = quantal.bake(model)
    >>> [type(layer).__name__ for layer in plain.layers]
    ['EinsumDense']
    """
    check_model(model)
    model = trainable(model)
    return plain_clone(model, _plain_multiplier, compiles=True)


def plain_clone(
    model: keras.Model,
    replace: Callable[[LearnableMultiplier], Replacement],
    factors: Mapping[object, NDArray[np.float32]] | None = None,
    *,
    compiles: bool = False,
    activation: Callable[[DiscreteActivation], keras.layers.Layer] = plain_activation,
) -> keras.Model:
    """Return a copy of a model with ordinary weights in place of discrete ones.

    Args:
        model: As in `plain_copy`.
        replace: Alike.
        factors: Alike.
        compiles: Alike.
        activation: Alike.
    """
    return plain_copy(model, replace, factors, compiles=compiles, activation=activation).model


def plain_copy(
    model: keras.Model,
    replace: Callable[[LearnableMultiplier], Replacement],
    factors: Mapping[object, NDArray[np.float32]] | None = None,
    *,
    compiles: bool = False,
    activation: Callable[[DiscreteActivation], keras.layers.Layer] = plain_activation,
) -> Clone:
    """Clone a model with ordinary weights in place of discrete ones.

    Args:
        model: A built model, not finalized.
        replace: Returns the replacement of a multiplier.
        factors: Arrays that weights are multiplied by, as a `ByIdentity` of their
            variables.
        compiles: Whether the clone of a compiled model is compiled, too.
        activation: Returns the plain layer that takes the place of a discrete activation.

    Raises:
        ValueError: A number of a parameter is not finite, or a layer's class computes in a
            way of its own.
    """
    _refuse_other_calls(model)
    for parameter in parameters_of(model):
        parameter.check_finite()
    listed = ByIdentity([(parameter.latent, parameter) for parameter in parameters_of(model)])

    def replace_discrete(layer: keras.Layer, _: object) -> Replacement | None:
        if isinstance(layer, LearnableMultiplier):
            return replace(layer)
        if isinstance(layer, DiscreteActivation):
            plain = activation(layer)
            return Replacement(plain, plain, [])
        return None

    clone = clone_replacing(model, replace_discrete, unwrapped)

    def set_weights() -> None:
        for old_variable, new_variable in clone.pairs:
            if old_variable in listed:
                with nothing_kept():  # Else the old model would keep a second one of its size.
                    new_variable.assign(whole_array(listed[old_variable].weight))
            else:
                copy_value(old_variable, new_variable)
            if factors and old_variable in factors:
                numbers = whole_array(new_variable)
                new_variable.assign(numbers * factors[old_variable])

    if compiles and model.compiled:
        compile_like(model, clone.model)
    clone.set_state(set_weights)
    return clone


def _plain_multiplier(layer: LearnableMultiplier) -> Replacement:
    """Replace a multiplier by a plain layer that multiplies as it does."""
    if takes_masks(layer):
        return _rescaling(layer)
    sizes = _sizes(layer)
    labels = "abcdefghijklmnopqrstuvwxyz"[: len(sizes)]
    kernel = "".join(labels[axis] for axis in layer.kernel_axes)
    plain = keras.layers.EinsumDense(
        f"{labels},{kernel}->{labels}",
        output_shape=sizes[1:],
        activity_regularizer=layer.activity_regularizer,
        dtype=layer.dtype_policy,
        name=layer.name,
        trainable=layer.trainable,
    )
    return Replacement(plain, plain, [parameter.latent for parameter in parameters_of(layer)])


def _rescaling(layer: LearnableMultiplier) -> Replacement:
    """Replace a multiplier by a Rescaling, since an EinsumDense stops masks."""
    (parameter,) = parameters_of(layer)
    factors = np.reshape(whole_array(parameter.weight), layer.broadcast_shape[1:])
    plain = keras.layers.Rescaling(
        factors.tolist(),
        activity_regularizer=layer.activity_regularizer,
        dtype=layer.dtype_policy,
        name=layer.name,
    )
    return Replacement(plain, plain, [])


def _sizes(layer: LearnableMultiplier) -> tuple[int | None, ...]:
    """Return the sizes that all inputs of a multiplier share; None where they differ."""
    built = (layer.get_build_config() or {})["input_shape"]
    shapes = [tuple(built), *input_shapes(layer)]
    return tuple(sizes[0] if len(set(sizes)) == 1 else None for sizes in zip(*shapes, strict=True))


def _refuse_other_calls(model: keras.Model) -> None:
    """Refuse layers of derived classes that compute in a way of their own."""
    for layer in flatten_layers(model):
        for kind in (LearnableMultiplier, Discrete, DiscreteActivation):
            if isinstance(layer, kind) and any(
                getattr(type(layer), name, None) is not getattr(kind, name, None) for name in _CALLS
            ):
                raise ValueError(
                    f"The layer {layer.name!r} of type {type(layer).__name__} derives from "
                    f"{kind.__name__} and computes in a way of its own, which no plain layer "
                    f"has. Expected {kind.__name__} itself, or a class with its call. Put what "
                    "your class adds into a layer before or behind it."
                )
