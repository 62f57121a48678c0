"""Inputs for a model: what it is called with to be traced, and to be compared."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from quantal._core.keras_internals import inputs_structure

OPEN = 16
"""What stands for an axis of open length."""

Array = NDArray[Any]


def like_inputs(
    model: keras.Model, make: Callable[[tuple[int, ...], str], Array], batch: int = 1
) -> Any:
    """Arrays in the structure of a model's inputs, each made from its shape and dtype."""

    def made(tensor: Any) -> Array:
        shape = (batch, *(OPEN if n is None else int(n) for n in tensor.shape[1:]))
        return make(shape, str(tensor.dtype))

    return keras.tree.map_structure(made, _structure(model))


def drawn_inputs(model: keras.Model, batch: int, seed: int = 0) -> Any:
    """Random inputs: standard normal numbers; zeros and ones where integers are expected."""
    generator = np.random.default_rng(seed)

    def draw(shape: tuple[int, ...], dtype: str) -> Array:
        if "int" in dtype or dtype == "bool":
            return generator.integers(0, 2, shape).astype(dtype)
        return generator.standard_normal(shape).astype("float32" if "bfloat" in dtype else dtype)

    return like_inputs(model, draw, batch)


def in_order(model: keras.Model, inputs: Any) -> list[Array]:
    """The arrays of inputs in the order of `model.inputs`, in their dtypes."""
    arrays = [np.asarray(array) for array in keras.tree.flatten(inputs)]
    expected = [tuple(tensor.shape) for tensor in model.inputs]
    fits = len(arrays) == len(expected) and all(
        len(array.shape) == len(shape)
        and all(n is None or n == m for n, m in zip(shape, array.shape, strict=True))
        for array, shape in zip(arrays, expected, strict=True)
    )
    if not fits:
        raise ValueError(
            f"inputs have the shapes {[array.shape for array in arrays]}. Expected "
            f"{expected}, as the model {model.name!r} has. Give an array for each of its inputs."
        )
    dtypes = [str(tensor.dtype).replace("bfloat16", "float32") for tensor in model.inputs]
    return [array.astype(dtype) for array, dtype in zip(arrays, dtypes, strict=True)]


def _structure(model: keras.Model) -> Any:
    if not getattr(model, "inputs", None):
        raise ValueError(
            f"The model {model.name!r} of type {type(model).__name__} does not tell its inputs. "
            "Expected a Sequential or functional model. Call it on a keras.Input and make a "
            "keras.Model of that and of its output, or export to '.npz'."
        )
    return inputs_structure(model)
