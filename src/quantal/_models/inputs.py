"""Inputs for a model are created from its own Inputs, to trace, run or compare it."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


def symbolic_inputs(model: keras.Layer) -> Any:
    """Return a model's symbolic inputs in the structure that its call takes.

    Args:
        model: A model, or a layer that was called on a `keras.Input`.

    Returns:
        Symbolic tensors, alone or in a list or dict; None where the model has no Inputs.
    """
    try:
        # A Sequential has only the flat list, of its one input.
        return model.inputs[0] if isinstance(model, keras.Sequential) else model.input
    except (AttributeError, ValueError, TypeError, IndexError):
        return None


def inputs_like(
    symbolic: Any, make: Callable[[tuple[int, ...], str], Array], batch: int, open_length: int
) -> Any:
    """Return arrays in the structure of symbolic inputs, each created from its shape and dtype.

    Args:
        symbolic: What `symbolic_inputs` returns.
        make: A function of a shape and the name of a dtype that returns an array.
        batch: The length of the first axis.
        open_length: The length of every other axis that is left open.
    """

    def make_one(tensor: Any) -> Array:
        lengths = [open_length if n is None else int(n) for n in tensor.shape]
        if lengths and tensor.shape[0] is None:
            lengths[0] = batch
        return make(tuple(lengths), keras.backend.standardize_dtype(tensor.dtype))

    return keras.tree.map_structure(make_one, symbolic)


def zero_inputs(symbolic: Any) -> Any:
    """Return one sample of zeros for symbolic inputs."""
    return inputs_like(symbolic, lambda shape, dtype: np.zeros(shape, dtype), 1, 16)


def random_inputs(symbolic: Any, batch: int, open_length: int = 16, seed: int = 0) -> Any:
    """Draw inputs: standard normal numbers, and zeros and ones where integers are expected.

    Args:
        symbolic: What `symbolic_inputs` returns.
        batch: The number of samples.
        open_length: The length of every other axis that is left open.
        seed: The same seed draws the same numbers.

    Returns:
        NumPy arrays in the structure of `symbolic`, in its dtypes (`ml_dtypes` has bfloat16).

    >>> random_inputs(keras.Input((None, 2)), batch=5, open_length=3).shape
    (5, 3, 2)
    """
    generator = np.random.default_rng(seed)

    def draw(shape: tuple[int, ...], dtype: str) -> Array:
        if "int" in dtype or dtype == "bool":
            return generator.integers(0, 2, shape).astype(dtype)
        return generator.standard_normal(shape).astype(dtype)

    return inputs_like(symbolic, draw, batch, open_length)


def arrays_in_order(model: keras.Model, inputs: Any) -> list[Array]:
    """Return the arrays of given inputs in the order of `model.inputs`, in their dtypes.

    Args:
        model: A model that has Inputs.
        inputs: Arrays in the structure that the model takes.

    Raises:
        ValueError: The number of arrays or their shapes do not fit the model.
    """
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
            f"{expected}, as the model {model.name!r} has."
        )
    dtypes = [str(tensor.dtype).replace("bfloat16", "float32") for tensor in model.inputs]
    return [array.astype(dtype) for array, dtype in zip(arrays, dtypes, strict=True)]
