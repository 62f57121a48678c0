"""Trace which numbers, computed from latents alone, meet the data in a forward pass.

The answer is read off the call itself, operation by operation, and not from what
layers say of themselves. So it shows every silent float: a layer that computes with
its latents, a list that rounding has left, a low-rank term added to the listed kernel.

Each tensor of a call depends on nothing that matters here, on latents alone, or on the
data. Where an operation has operands of both the second and the third kind, it *uses*
those of the second:

>>> import keras, quantal
>>> model = keras.Sequential([keras.Input((3,)), quantal.LearnableMultiplier([2, 4])])
>>> model.layers[0].set_codes([0, 1, 1])
>>> [use.value.tolist() for use in uses_of(model)]
[[[2.0, 4.0, 4.0]]]

Limits: what leaves the framework for Python or NumPy is not followed. A product
of a listed kernel and another weight, such as a learned query or the embeddings of
relative positions, uses the kernel as a product with data does; anything else that a layer
makes of a weight and a constant counts as the weight. All zeros, such as the first
state of a recurrent layer, do not count. Recurrent kernels that a GPU library takes as
one flat buffer are reported as a mixture.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray

from quantal._core.by_identity import ByIdentity
from quantal._core.keras_internals.layers import flatten_layers
from quantal._core.parameter import Parameter, parameters_of
from quantal._core.tensors.distributed import whole_array
from quantal._core.tensors.kept import nothing_kept
from quantal._core.types import Tensor
from quantal._models.inputs import random_inputs, symbolic_inputs
from quantal.testing import _trace_jax, _trace_tensorflow, _trace_torch
from quantal.testing._ledger import Ledger
from quantal.testing._ledger import Use as Use

HALVES = {"float16", "bfloat16"}
"""The dtypes of half precision."""

_CHECKED_AT_ONCE = 2**18
"""So many numbers are compared with a list at once."""

_TRACERS = {
    "jax": _trace_jax.trace,
    "tensorflow": _trace_tensorflow.trace,
    "torch": _trace_torch.trace,
}


def uses_of(model: keras.Layer, inputs: Any = None, training: bool = False) -> list[Use]:
    """Return every use of a parameter in one forward pass, an operation's equal ones once.

    The model is unchanged afterwards: statistics, seeds and states of estimators too.

    Args:
        model: A built model or layer, called as `model(inputs, training=training)`.
        inputs: Example data in the structure that the model takes; None draws some
            for a model that has Inputs.
        training: Whether the pass is one of training.

    Raises:
        TypeError: It is not a Keras layer or model.
        ValueError: It is not built, has no Inputs to draw data for, or the backend is
            not TensorFlow, JAX or PyTorch.

    Example:
    >>> import keras, quantal
    >>> layer = quantal.Discrete(keras.layers.Dense(4), "ternary", name="dense")
    >>> model = keras.Sequential([keras.Input((3,)), layer])
    >>> [(use.value.shape, use.dtype) for use in uses_of(model)]
    [((3, 4), 'float32')]
    """
    uses: list[Use] = []
    watch_uses(
        model,
        inputs,
        training,
        lambda use: uses.append(dataclasses.replace(use, value=use.value.astype(np.float64))),
    )
    return uses


def watch_uses(
    model: keras.Layer, inputs: Any, training: bool, report: Callable[[Use], None]
) -> None:
    """Report every use of a parameter in one forward pass while it goes on.

    So the numbers of one operation are in memory at a time, and not those of all.

    Args:
        model: As in `uses_of`.
        inputs: As in `uses_of`.
        training: As in `uses_of`.
        report: Gets each use, an operation's equal ones once. Its numbers may be overwritten
            afterwards. What it raises would pass through the layers of the model.
    """
    parameters = parameters_of(model)
    backend = keras.config.backend()
    if backend not in _TRACERS:
        raise ValueError(
            f"The backend is {backend!r}. Expected tensorflow, jax or torch, whose calls "
            "can be traced. Set KERAS_BACKEND to one of them."
        )
    inputs = input_tensors(model, inputs)
    latents = ByIdentity.of_keys(parameter.latent for parameter in parameters)
    others = [variable for variable in model.variables if variable not in latents]

    def forward(values: Sequence[Tensor], inputs: Any) -> list[Tensor]:
        mapping = [*zip(latents, values, strict=True), *((v, v.value) for v in others)]
        with keras.StatelessScope(mapping, collect_losses=True) as scope:
            outputs = model(inputs, training=training)
        return [x for x in keras.tree.flatten((outputs, scope.losses)) if x is not None]

    halves = {layer.compute_dtype for layer in flatten_layers(model)} & HALVES

    def is_listed(use: Use) -> bool:
        return not numbers_off_the_list(use, halves).size

    ledger = Ledger(parameters, is_listed, report)
    with nothing_kept():
        _TRACERS[backend](ledger, forward, [p.latent.value for p in parameters], inputs)


def allowed_numbers(parameter: Parameter) -> NDArray[np.float32]:
    """Return the numbers that may meet the data for a parameter: the list, times its scale.

    Each is one float32 product; a layer then rounds it once to the dtype it computes in.

    Args:
        parameter: A parameter of a built layer.

    Returns:
        A float32 vector.

    Example:
    >>> import quantal
    >>> layer = quantal.LearnableMultiplier([1, 3], scale="learned")
    >>> layer.build((None, 2))
    >>> layer.discrete_parameters[0].scale_state.begin(0.5)
    >>> allowed_numbers(layer.discrete_parameters[0]).tolist()
    [0.5, 1.5]
    """
    numbers = parameter.values.numbers.ravel()
    if parameter.scale_state is None:
        return numbers
    scales = np.asarray(whole_array(parameter.scale_state.compact()), np.float32)
    return np.unique(np.multiply.outer(numbers, scales))


def numbers_off_the_list(use: Use, halves: set[str]) -> NDArray[np.float64]:
    """Return the numbers of a use of one parameter that are not ones which may meet the data.

    Args:
        use: The use.
        halves: The dtypes of half precision in which layers of the model compute.
    """
    # PyTorch widens some operands of half precision on a processor.
    allowed = _rounded(allowed_numbers(use.parameters[0]), {use.dtype, *halves})
    return numbers_besides(use.value, allowed)


def numbers_besides(value: NDArray[Any], allowed: NDArray[Any]) -> NDArray[np.float64]:
    """Return the numbers of an array that equal none of those allowed."""
    allowed = np.sort(allowed.astype(np.float64))
    others = []
    for block in np.array_split(value.ravel(), value.size // _CHECKED_AT_ONCE + 1):
        numbers = block.astype(np.float64)
        positions = np.searchsorted(allowed, numbers)
        nearest = allowed[np.minimum(positions, len(allowed) - 1)]
        others.append(numbers[nearest != numbers])
    return np.concatenate(others)


def _rounded(numbers: NDArray[np.float32], dtypes: set[str]) -> NDArray[np.float64]:
    """Return numbers rounded once to each dtype; to one without fractions, not at all."""
    rounded = [numbers.astype(float)]
    for dtype in dtypes:
        if "float" in dtype:
            tensor = ops.cast(ops.convert_to_tensor(numbers), dtype)
            rounded.append(np.asarray(whole_array(tensor)).astype(float))
    return np.concatenate(rounded)


def input_tensors(model: keras.Layer, inputs: Any) -> Any:
    """Return example data as tensors.

    Args:
        model: The model.
        inputs: The data; None draws some for the model's Inputs, the same in each call: 2 rows, and
            3 along other axes of open length.

    Raises:
        ValueError: There is no data, and the model has no Inputs.
    """
    if inputs is None:
        inputs = _random_inputs(model)
    return keras.tree.map_structure(
        lambda x: None if x is None else ops.convert_to_tensor(x), inputs
    )


def _random_inputs(model: keras.Layer) -> Any:
    symbolic = symbolic_inputs(model)
    if symbolic is None:
        raise ValueError(
            f"inputs is None, but {model.name!r} has no Input that says what it takes. "
            "Expected example data for such a model or layer. Give a batch of them."
        )
    return random_inputs(symbolic, batch=2, open_length=3)
