"""Checks of the laws that every list, estimator and layer obeys, for anyone's tests.

A check raises AssertionError with a message that says what broke the law.

| law | checked by |
|---|---|
| 1: nearest is nearest, and a listed value is its own nearest | `assert_nearest` |
| 2: the value of a number's code is its nearest value, in NumPy and in tensors | `assert_nearest` |
| 3: in inference every value is in the list, by equality | `assert_members`, `assert_listed` |
| 4: in training too, or at the end of a soft estimator's schedule | `assert_hard` |
| 5: codes that are set are the codes that are read | `assert_right_inverse` |
| 6: the gradient is the derivative of the estimator's formula | `assert_gradient` |
| 7: wrapping a layer whose weights are listed changes nothing | tests/test_discrete.py |
| 8: a wrapped layer is the plain layer with the listed weights | tests/test_discrete.py |
| 9: unpacked codes are the packed ones; damage is refused by name | tests/test_files.py |
| 10: an exported model is the Keras model | `quantal.export` |
| 11: configs, files and clones give the same layer back | tests/test_saving.py |
| 12: bytes and texts of yesterday are still read | tests/test_golden.py |

Use them for a list, an estimator or a layer of your own:

>>> import quantal
>>> assert_nearest([1, -1, 0.5, -0.5], [0.2, -3.0, 0.75])
>>> assert_hard(quantal.estimators.StraightThrough(), "ternary")
"""

import warnings
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import ops
from numpy.typing import ArrayLike, NDArray

from quantal._core.by_identity import ByIdentity
from quantal._core.estimator import Estimator
from quantal._core.keras_internals.layers import flatten_layers
from quantal._core.numbers.values import Values, ValuesLike
from quantal._core.parameter import Parameter, parameters_of
from quantal._core.tensors import backend
from quantal._core.tensors.distributed import whole_array
from quantal._core.tensors.projection import projection_of
from quantal._core.types import Tensor
from quantal._models.walk import activations_of
from quantal.testing._activations import problems_of_activations
from quantal.testing.edge_cases import edge_cases
from quantal.testing.tracing import HALVES, Use, numbers_off_the_list, watch_uses

SHOWN = 5
"""An error message shows at most so many wrong elements."""

DIFFERENCE_STEP = 1e-6
"""The step of central differences, relative to the span of the list: in float64 it leaves
about ten digits of a derivative."""

TINY = 1e-30
"""A lower bound of divisors and spans that may be zero."""


def assert_nearest(values: ValuesLike, x: ArrayLike, compile: bool = False) -> None:
    """Check laws 1 and 2: nearest is nearest and idempotent; codes, NumPy and tensors agree.

    Args:
        values: The list.
        x: Numbers of any shape.
        compile: Whether the tensor part runs under the backend's compiler too.

    Raises:
        AssertionError: A law is broken.

    Example:
    >>> assert_nearest("nf4", [0.2, -3.0, 0.75])
    """
    values = Values.get(values)
    x = np.asarray(x, np.float32)
    nearest, codes = values.nearest(x), values.codes(x)
    _demand(
        np.array_equal(values.codes(values.numbers), np.arange(len(values))),
        f"a listed value of {values} does not map to itself",
    )
    _demand(np.array_equal(values.nearest(nearest), nearest), "nearest is not idempotent")
    _demand(np.array_equal(values.take(codes), nearest), "codes and nearest disagree")
    finite = np.isfinite(x)
    distances = np.abs(x[finite].astype(float)[:, None] - values.numbers.astype(float))
    distance = np.abs(x[finite].astype(float) - nearest[finite].astype(float))
    closest = distances.min(axis=1, initial=np.inf)
    _demand(np.all(distance <= closest), f"{x[finite][distance > closest]} has a nearer value")
    projection = projection_of(values)
    for name, expected in (("nearest", nearest), ("codes", codes)):
        step_function = getattr(projection, name)
        function = backend.compiled(step_function) if compile else step_function
        result = whole_array(function(ops.convert_to_tensor(x)))
        _demand(result.dtype == expected.dtype, f"{name} is {result.dtype}, not {expected.dtype}")
        is_wrong = result != expected
        _demand(
            not is_wrong.any(),
            f"{name} of {x[is_wrong][:SHOWN]} is {result[is_wrong][:SHOWN]} as a tensor, "
            f"{expected[is_wrong][:SHOWN]} in NumPy",
        )


def assert_members(tensor: Tensor, values: ValuesLike) -> None:
    """Check law 3: every element equals a listed value, rounded once to the tensor's dtype.

    Args:
        tensor: The numbers, of any shape and floating dtype.
        values: The list.

    Raises:
        AssertionError: An element is not in the list.

    Example:
    >>> import keras
    >>> assert_members(keras.ops.convert_to_tensor([1.0, -1.0, 1.0]), "binary")
    """
    values = Values.get(values)
    dtype = keras.backend.standardize_dtype(tensor.dtype)
    listed = ops.cast(ops.cast(ops.convert_to_tensor(values.numbers), dtype), "float32")
    numbers = whole_array(ops.cast(tensor, "float32"))
    others = numbers[~np.isin(numbers, whole_array(listed))]
    _demand(others.size == 0, f"{others.size} elements are not in {values}: {others[:SHOWN]}")


def assert_listed(model: keras.Layer, inputs: Any = None, training: bool = False) -> None:
    """Check law 3 for a whole model: only listed values meet the data in place of latents.

    The forward pass is traced (`quantal.testing.uses_of`), so that no layer is taken at its
    word. Every number that was computed from a latent alone and met the data must be one
    of the list, times the scale where there is one, rounded once to the dtype in which
    a layer computes; and every latent must have been used.

    A soft estimator, and a list with noise, pass in inference only. Weights are checked one after
    another, so that a large model needs little memory besides its own.

    Discrete activations are followed through another forward pass, of inference: each output must
    be one of the list times the scale. A warning says where zeros are put around a list
    without 0 on its way into a convolution (`padding="same"`, `"causal"`, or a ZeroPadding layer),
    as Larq does by default. Between the two may be poolings of maxima, Reshape,
    Permute, Cropping and the like; what other operations make of an output is not followed.

    Args:
        model: A built model or layer.
        inputs: Example data; None draws some for a model that has Inputs.
        training: Whether the forward pass is one of training.

    Raises:
        AssertionError: Nothing in the model is discrete, a latent or an activation was not used,
            or other numbers than the listed ones met the data or left an activation.
        TypeError, ValueError: As `quantal.testing.uses_of`.

    Example:
    >>> import keras, quantal
    >>> kernel = quantal.Discrete(keras.layers.Dense(4), [0.1, -0.1, 0.3, -0.3])
    >>> assert_listed(keras.Sequential([keras.Input((3,)), kernel]))
    """
    parameters = parameters_of(model)
    _demand(
        parameters or activations_of(model),
        f"nothing in {model.name!r} is discrete: it has no parameters and no discrete activations",
    )
    halves = {layer.compute_dtype for layer in flatten_layers(model)} & HALVES
    used: ByIdentity[None] = ByIdentity()
    problems: list[str] = []

    def check(use: Use) -> None:
        used.update((parameter, None) for parameter in use.parameters)
        # Raised after the call: Keras would put words of its own around the message.
        problem = _problem_of(use, halves)
        if problem is not None:
            problems.append(problem)

    watch_uses(model, inputs, training, check)
    for problem in problems:
        raise AssertionError(problem)
    for parameter in parameters:
        _demand(
            parameter in used,
            f"{parameter.path}: its latent was never used, nothing computed from it met the data",
        )
    problems, zeros = problems_of_activations(model, inputs)
    for problem in problems:
        raise AssertionError(problem)
    for text in dict.fromkeys(zeros):
        warnings.warn(text, stacklevel=2)


def _problem_of(use: Use, halves: set[str]) -> str | None:
    """Return what is wrong with an operand: a mixture of parameters, or not on its list.

    Args:
        use: The operand.
        halves: The dtypes of half precision in which layers of the model compute.
    """
    paths = " and ".join(parameter.path for parameter in use.parameters)
    if len(use.parameters) > 1:
        return (
            f"a mixture of {paths} met the data in {use.operation}: its numbers are of no one list"
        )
    (parameter,) = use.parameters
    others = numbers_off_the_list(use, halves)
    if not others.size:
        return None
    scaled = " times its scale" if parameter.scale is not None else ""
    return (
        f"{others.size} of {use.value.size} numbers with which {paths} met the data in "
        f"{use.operation} ({use.dtype}) are not in {parameter.values}{scaled}: {others[:SHOWN]}"
        f"{_why(parameter)}"
    )


def _why(parameter: Parameter) -> str:
    """Return what a list with noise says of numbers that are not in it; nothing for others."""
    if parameter.values.noise is None:
        return ""
    return (
        ". In training a list with noise gives numbers around its values, unless the layer is "
        "frozen. Check inference, with training=False, where all are listed"
    )


def assert_hard(estimator: Estimator, values: ValuesLike, within: bool = True) -> None:
    """Check laws 3 and 4: listed in inference; in training too, or at the schedule's end.

    Args:
        estimator: The estimator.
        values: The list.
        within: Whether soft values, too, must lie between the ends of the list.

    Raises:
        AssertionError: A law is broken.

    Example:
    >>> import quantal
    >>> assert_hard(quantal.estimators.Annealed(), "ternary")
    """
    values = Values.get(values)
    latent = edge_cases(values)
    latent = ops.convert_to_tensor(latent[np.isfinite(latent)])
    assert_members(estimator(latent, values, training=False), values)
    if estimator.initial_state is None and not estimator.always_soft:
        assert_members(estimator(latent, values, training=True), values)
        return
    soft = whole_array(estimator(latent, values, training=True))
    outside = soft[(soft < values.low) | (soft > values.high)]
    _demand(
        outside.size == 0 or not within, f"soft values leave the list's range: {outside[:SHOWN]}"
    )
    if estimator.always_soft:
        return
    # The state of a paced estimator at its last step: seven steps of seven.
    others = (estimator.initial_state or ())[2:]
    last = ops.convert_to_tensor([7.0, 7.0, *others], "float32")
    assert_members(estimator(latent, values, training=True, state=last), values)


def assert_gradient(
    estimator: Estimator,
    values: ValuesLike,
    surrogate: Callable[[NDArray[np.float64]], NDArray[np.float64]],
    x: ArrayLike,
    compile: bool = False,
    tolerance: float = 1e-4,
) -> None:
    """Check law 6: a gradient passes, is not zero, and is the surrogate's central difference.

    Args:
        estimator: The estimator.
        values: The list.
        surrogate: Its surrogate in NumPy, elementwise, float64.
        x: Latents away from the surrogate's kinks and jumps.
        compile: Whether to trace and compile.
        tolerance: Largest difference allowed, relative to the largest derivative.

    Raises:
        AssertionError: The law is broken.

    Example:
    >>> import quantal
    >>> identity = quantal.estimators.StraightThrough()
    >>> assert_gradient(identity, "binary", lambda x: x, [0.3, -0.2])
    """
    values = Values.get(values)
    x = np.asarray(x, np.float32)
    projection_of(values)  # Created here: PyTorch's compiler cannot trace that.
    gradient = backend.gradient_of(
        lambda latent: estimator(latent, values, training=True), x, compile
    )
    if gradient is None:
        raise AssertionError(f"{estimator} passes no gradient")
    _demand(np.any(gradient != 0), f"{estimator} passes a gradient that is zero everywhere")
    step = DIFFERENCE_STEP * max(values.high - values.low, TINY)
    point = x.astype(float)
    expected = (surrogate(point + step) - surrogate(point - step)) / (2 * step)
    error = np.abs(gradient - expected) / max(np.abs(expected).max(), TINY)
    worst = error.argmax()
    _demand(
        error.max() <= tolerance,
        f"the gradient of {estimator} at {x[worst]} is {gradient[worst]}, its "
        f"surrogate's central difference {expected[worst]}",
    )


def assert_right_inverse(parameter: Parameter, codes: ArrayLike) -> None:
    """Check law 5: after `set_codes`, a parameter has these codes and their values.

    Args:
        parameter: A parameter of a built layer; the check changes its codes.
        codes: Integers of the parameter's shape.

    Raises:
        AssertionError: The law is broken.

    Example:
    >>> import quantal
    >>> layer = quantal.LearnableMultiplier([1, -1])
    >>> layer.build((None, 3))
    >>> assert_right_inverse(layer.discrete_parameters[0], [0, 1, 1])
    """
    codes = np.asarray(codes)
    parameter.set_codes(codes)
    result = whole_array(parameter.codes)
    _demand(np.array_equal(result, codes), f"set codes {codes}, got {result}")
    kernel = whole_array(parameter.listed_values)
    _demand(np.array_equal(kernel, parameter.values.take(codes)), f"the kernel is {kernel}")


def _demand(truth: Any, message: str) -> None:
    if not truth:
        raise AssertionError(message)
