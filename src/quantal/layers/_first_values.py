"""The first values of latents and scales of a layer that is not trained yet."""

import contextlib
import contextvars
import inspect
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray

from quantal._core.keras_internals.allocation import initializer_of, is_allocated, set_initializer
from quantal._core.keras_internals.layers import flatten_layers, own_variables
from quantal._core.latent_name import weight_name
from quantal._core.numbers.values import Values
from quantal._core.scale import Scale
from quantal._core.scale_state import nearest_powers
from quantal._core.tensors.backend import concrete_section, eager_section
from quantal._core.tensors.distributed import whole_array
from quantal._core.types import Tensor

FirstScale = Callable[[], Any]
"""A function without arguments that returns a scale's first value: number, array or tensor.

Keras asks for first values while it traces, too: tensors then hold no numbers.
"""

_DRAW_BY_ELEMENT = (
    keras.initializers.RandomNormal,
    keras.initializers.RandomUniform,
    keras.initializers.TruncatedNormal,
    keras.initializers.VarianceScaling,
)
"""The initializers that draw each number by itself: they say how large numbers are, not which."""

_SUFFIX = "_initializer"
_STEMS_OF_KERNEL = ("kernel", "depthwise")
"""The starts of names of arguments with the initializer of a weight called kernel.

A depthwise convolution calls its weight so, but the argument `depthwise_initializer`.
"""

_values_follow = contextvars.ContextVar("values_follow", default=False)


@contextlib.contextmanager
def values_follow() -> Iterator[None]:
    """Leave out the draw of first latents within: the caller sets all values right after."""
    token = _values_follow.set(True)
    try:
        yield
    finally:
        _values_follow.reset(token)


def do_values_follow() -> bool:
    """Return whether the caller sets all values right after."""
    return _values_follow.get()


def is_drawn(seed: int | None) -> bool:
    """Return whether first latents are to be drawn; if not, use up what their seed would have.

    So what is drawn later, such as dropout, is the same either way.
    """
    if _values_follow.get():
        keras.initializers.RandomUniform(seed=seed)
    return not _values_follow.get()


def one() -> float:
    """Return 1, the first value of a scale of which nothing is known."""
    return 1.0


def chosen_initializer(layer: keras.Layer, variable: keras.Variable) -> Callable[..., Any] | None:
    """Return the initializer that a user chose so that a weight has certain numbers, or None.

    It is an argument of the weight's layer, other than the default of the layer's class, seeds
    aside, and none of those that draw each number by itself.

    Args:
        layer: The layer that has the weight, or that has layers inside it of which one has it.
        variable: The weight.
    """
    name = weight_name(variable)
    stems = _STEMS_OF_KERNEL if name == "kernel" else (name, name.removesuffix("_kernel"))
    for owner in flatten_layers(layer):
        if any(variable is each for each in own_variables(owner)):
            for stem in stems:
                initializer = _chosen_argument(owner, f"{stem}{_SUFFIX}")
                if initializer is not None:
                    return initializer
    return None


def _chosen_argument(layer: keras.Layer, name: str) -> Callable[..., Any] | None:
    """Return a layer's initializer of this name, if it is a choice of certain numbers."""
    kinds: list[Any] = list(type(layer).__mro__)
    signatures = [inspect.signature(kind.__init__).parameters for kind in kinds]
    arguments = [parameters[name] for parameters in signatures if name in parameters]
    initializer = getattr(layer, name, None)
    if not arguments or initializer is None:
        return None
    default = arguments[0].default
    initializer = keras.initializers.get(initializer)
    is_default = default is not inspect.Parameter.empty and _is_alike(
        initializer, keras.initializers.get(default)
    )
    return None if is_default or isinstance(initializer, _DRAW_BY_ELEMENT) else initializer


def _is_alike(initializer: Any, other: Any) -> bool:
    """Return whether two initializers are the same but for their seeds."""
    if type(initializer) is not type(other) or not hasattr(initializer, "get_config"):
        return initializer is other
    config, other_config = ({**each.get_config(), "seed": None} for each in (initializer, other))
    return all(np.array_equal(config[name], other_config[name]) for name in config)


def numbers_of(initializer: Callable[..., Any], variable: keras.Variable) -> NDArray[Any]:
    """Return the numbers that an initializer gives a variable, also while Keras traces."""
    with concrete_section():
        return whole_array(initializer(tuple(variable.shape), dtype=variable.dtype))


def scale_from_initializer(variable: keras.Variable, scale: Scale, values: Values) -> FirstScale:
    """Return the scale at which listed values have the spread of a layer's own initializer.

    Args:
        variable: The weight, with the value or the initializer that its layer gave it.
        scale: The scale's method.
        values: The list.
    """
    spread, spread_of_list = _root_mean_square_of(variable), _root_mean_square(values)

    def first_scale() -> Tensor:
        size = ops.convert_to_tensor(spread(), "float32")
        ratio = ops.where(size > 0, size / spread_of_list, ops.ones_like(size))
        return nearest_powers()(ratio) if scale.power_of_two else ratio

    return first_scale


def initialize(variable: keras.Variable, initializer: Callable[[Any, Any], Tensor]) -> None:
    """Give a variable its first value, also while Keras builds a model within `fit`."""
    if not is_allocated(variable):
        # Created within a stateless scope, where assigning is lost: Keras calls the
        # initializer when it leaves the scope.
        set_initializer(variable, initializer)
    else:
        with eager_section():
            variable.assign(initializer(variable.shape, variable.dtype))


def _root_mean_square_of(variable: keras.Variable) -> Callable[[], Any]:
    """Return a function that returns the root mean square of what an initializer draws."""
    if not is_allocated(variable):
        initializer = initializer_of(variable)
        return lambda: ops.sqrt(
            ops.mean(ops.square(initializer(variable.shape, dtype=variable.dtype)))
        )
    with eager_section():
        # As a tensor: a large variable may lie on many devices.
        root_mean_square = float(whole_array(ops.sqrt(ops.mean(ops.square(variable.value)))))
    return lambda: root_mean_square


def _root_mean_square(values: Values) -> float:
    """Return the root mean square of first values: both ends of each gap, equally likely."""
    ascending = values.ascending.astype(float)
    ends = [ascending[..., :-1], ascending[..., 1:]] if len(values) > 1 else ascending
    return float(np.sqrt(np.mean(np.square(ends)))) or 1.0
