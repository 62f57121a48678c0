"""The laws that every list, estimator and layer obeys, as checks for anyone's tests.

Each check raises AssertionError with what was found. Use them for a list, an estimator
or a layer of your own:

>>> import quantal
>>> assert_nearest(quantal.Values([1, -1, 0.5, -0.5]), [0.2, -3.0, 0.75])
>>> assert_hard(quantal.estimators.StraightThrough(), quantal.Values("ternary"))
"""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import ops
from numpy.typing import ArrayLike, NDArray

from quantal._core.estimator import Estimator
from quantal._core.keras_internals import flatten_layers
from quantal._core.numbers.values import Values
from quantal._core.parameter import Parameter, parameters_of
from quantal._core.tensors import backend
from quantal._core.tensors.projection import projection_of
from quantal.testing.tracing import allowed_numbers, uses_of


def _demand(truth: Any, message: str) -> None:
    if not truth:
        raise AssertionError(message)


compiled = backend.compile
gradient_of = backend.gradient


def edge_cases(values: Values, seed: int = 0) -> NDArray[np.float32]:
    """Numbers where a nearest-value search goes wrong first: a vector for the checks.

    The listed values, the midpoints and their float32 neighbours, numbers between and
    far beyond, zeros of both signs, infinities and NaN. No subnormal numbers: some
    processors read them as zero.
    """
    random = np.random.default_rng(seed)
    largest = np.finfo(np.float32).max
    near = np.concatenate([values.numbers, values.midpoints])
    span = min(max(values.high - values.low, abs(values.high), 1e-30), float(largest) / 4)
    spread = values.low + span * random.uniform(-0.5, 1.5, 100)
    numbers = np.concatenate(
        [
            near,
            np.nextafter(near, np.float32(np.inf)),
            np.nextafter(near, np.float32(-np.inf)),
            np.clip(spread, -float(largest), float(largest)).astype(np.float32),
            np.array([0.0, -0.0, largest, -largest, np.inf, -np.inf, np.nan], np.float32),
        ]
    )
    subnormal = (np.abs(numbers) < np.finfo(np.float32).smallest_normal) & (numbers != 0)
    # Repeated up to a round length, so that compilers meet few shapes.
    numbers = numbers[~subnormal]
    return np.resize(numbers, -(-numbers.size // 1024) * 1024)


def assert_nearest(values: Values, x: ArrayLike, compile: bool = False) -> None:
    """Laws 1 and 2: nearest is nearest and idempotent; codes, NumPy and tensors agree.

    Args:
        values: The list.
        x: Numbers of any shape.
        compile: Whether the tensor part runs under the backend's compiler too.
    """
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
    chosen = np.abs(x[finite].astype(float) - nearest[finite].astype(float))
    closest = distances.min(axis=1, initial=np.inf)
    _demand(np.all(chosen <= closest), f"{x[finite][chosen > closest]} has a nearer value")
    projection = projection_of(values)
    for name, expected in (("nearest", nearest), ("codes", codes)):
        step_function = getattr(projection, name)
        function = compiled(step_function) if compile else step_function
        got = ops.convert_to_numpy(function(ops.convert_to_tensor(x)))
        _demand(got.dtype == expected.dtype, f"{name} is {got.dtype}, not {expected.dtype}")
        wrong = got != expected
        _demand(
            not wrong.any(),
            f"{name} of {x[wrong][:5]} is {got[wrong][:5]} as a tensor, "
            f"{expected[wrong][:5]} in NumPy",
        )


def assert_members(tensor: Any, values: Values) -> None:
    """Law 3: every element is in the list by equality, rounded once to the tensor's dtype.

    Args:
        tensor: The numbers, of any shape and floating dtype.
        values: The list.
    """
    dtype = keras.backend.standardize_dtype(tensor.dtype)
    listed = ops.cast(ops.convert_to_tensor(values.numbers), dtype)
    found = ops.convert_to_numpy(ops.cast(tensor, "float32"))
    strange = found[~np.isin(found, ops.convert_to_numpy(ops.cast(listed, "float32")))]
    _demand(strange.size == 0, f"{strange.size} elements are not in {values}: {strange[:5]}")


def assert_listed(model: keras.Layer, inputs: Any = None, training: bool = False) -> None:
    """Law 3 for a whole model: what meets the data in place of its latents is listed.

    The forward pass is traced (`quantal.testing.tracing`), so that no layer is taken at its
    word. Every number that was made from a latent alone and met the data must be one
    of the list, times the scale where there is one, rounded once to the dtype in which
    a layer computes; and every latent must have been used.

    A soft estimator passes in inference only.

    Args:
        model: A built model or layer.
        inputs: Example data; None draws some for a model that has Inputs.
        training: Whether the forward pass is one of training.

    Raises:
        AssertionError: Nothing in the model is discrete, a latent was not used, or
            other numbers than the listed ones met the data.
        TypeError, ValueError: As `quantal.testing.tracing.uses_of`.

    >>> import keras, quantal
    >>> kernel = quantal.Discrete(keras.layers.Dense(4), [0.1, -0.1, 0.3, -0.3])
    >>> assert_listed(keras.Sequential([keras.Input((3,)), kernel]))
    """
    parameters = parameters_of(model)
    _demand(parameters, f"nothing in {model.name!r} is discrete: it has no parameters")
    halves = {layer.compute_dtype for layer in flatten_layers(model)} & {"float16", "bfloat16"}
    uses = uses_of(model, inputs, training)
    for use in uses:
        paths = " and ".join(parameter.path for parameter in use.parameters)
        _demand(
            len(use.parameters) == 1,
            f"a mixture of {paths} met the data in {use.operation}: its numbers are of no one list",
        )
        # PyTorch widens some operands of half precision on a processor.
        allowed = _rounded(allowed_numbers(use.parameters[0]), {use.dtype, *halves})
        strange = use.value[~np.isin(use.value, allowed)]
        scaled = " times its scale" if use.parameters[0].scale is not None else ""
        _demand(
            strange.size == 0,
            f"{strange.size} of {use.value.size} numbers with which {paths} met the data in "
            f"{use.operation} ({use.dtype}) are not in {use.parameters[0].values}{scaled}: "
            f"{strange[:5]}",
        )
    used = {id(parameter) for use in uses for parameter in use.parameters}
    for parameter in parameters:
        _demand(
            id(parameter) in used,
            f"{parameter.path}: its latent was never used, nothing made from it met the data",
        )


def _rounded(numbers: NDArray[np.float32], dtypes: set[str]) -> NDArray[np.float64]:
    """Numbers rounded once to each dtype; to one without fractions, not at all."""
    found = [numbers.astype(float)]
    for dtype in dtypes:
        if "float" in dtype:
            tensor = ops.cast(ops.convert_to_tensor(numbers), dtype)
            found.append(np.asarray(ops.convert_to_numpy(tensor)).astype(float))
    return np.concatenate(found)


def assert_hard(estimator: Estimator, values: Values, within: bool = True) -> None:
    """Laws 3 and 4: listed in inference; in training too, or at the end of the schedule.

    Args:
        estimator: The estimator.
        values: The list.
        within: Whether soft values, too, must lie between the ends of the list.
    """
    latent = edge_cases(values)
    latent = ops.convert_to_tensor(latent[np.isfinite(latent)])
    assert_members(estimator(latent, values, training=False), values)
    if estimator.initial_state is None:
        assert_members(estimator(latent, values, training=True), values)
        return
    soft = ops.convert_to_numpy(estimator(latent, values, training=True))
    outside = soft[(soft < values.low) | (soft > values.high)]
    _demand(outside.size == 0 or not within, f"soft values leave the list's range: {outside[:5]}")
    done = ops.convert_to_tensor([7.0, 7.0], "float32")
    assert_members(estimator(latent, values, training=True, state=done), values)


def assert_gradient(
    estimator: Estimator,
    values: Values,
    surrogate: Callable[[NDArray[np.float64]], NDArray[np.float64]],
    x: ArrayLike,
    compile: bool = False,
    tolerance: float = 1e-4,
) -> None:
    """Law 6: the gradient is there, not zero, and the central difference of the surrogate.

    Args:
        estimator: The estimator.
        values: The list.
        surrogate: Its surrogate in NumPy, elementwise, float64.
        x: Latents away from the surrogate's kinks and jumps.
        compile: Whether to trace and compile.
        tolerance: Largest difference allowed, relative to the largest derivative.
    """
    x = np.asarray(x, np.float32)
    found = gradient_of(lambda latent: estimator(latent, values, training=True), x, compile)
    _demand(found is not None, f"{estimator} passes no gradient")
    _demand(np.any(found != 0), f"{estimator} passes a gradient that is zero everywhere")
    step = 1e-6 * max(values.high - values.low, 1e-30)
    point = x.astype(float)
    expected = (surrogate(point + step) - surrogate(point - step)) / (2 * step)
    error = np.abs(found - expected) / max(np.abs(expected).max(), 1e-30)
    _demand(
        error.max() <= tolerance,
        f"the gradient of {estimator} at {x[error.argmax()]} is {found[error.argmax()]}, its "
        f"surrogate's central difference {expected[error.argmax()]}",
    )


def assert_right_inverse(parameter: Parameter, codes: ArrayLike) -> None:
    """Law 5: after set_codes, the parameter has these codes and their values."""
    codes = np.asarray(codes)
    parameter.set_codes(codes)
    found = ops.convert_to_numpy(parameter.codes)
    _demand(np.array_equal(found, codes), f"set codes {codes}, got {found}")
    kernel = ops.convert_to_numpy(parameter.kernel)
    _demand(np.array_equal(kernel, parameter.values.take(codes)), f"the kernel is {kernel}")
