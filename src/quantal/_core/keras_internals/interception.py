"""A function is called in place of a layer, or of a product of the backend."""

import contextlib
import functools
import threading
from collections.abc import Callable, Iterator
from typing import Any

import keras

from quantal._core.keras_internals.lock import one_at_a_time

_PRODUCTS = {
    "matmul": keras.src.backend.numpy,
    "dot": keras.src.backend.numpy,
    "tensordot": keras.src.backend.numpy,
    "einsum": keras.src.backend.numpy,
    "conv": keras.src.backend.nn,
    "depthwise_conv": keras.src.backend.nn,
    "conv_transpose": keras.src.backend.nn,
    "separable_conv": keras.src.backend.nn,
}
"""The backend's functions that multiply inputs and weights, with the modules that layers ask."""
ReplaceProduct = Callable[[str, Callable[..., Any], tuple[Any, ...], dict[str, Any]], Any]
"""A function of a product's name, its function, its arguments and its arguments by name."""


@contextlib.contextmanager
def products_replaced(replace: ReplaceProduct) -> Iterator[None]:
    """Let a function compute every product of the backend that this thread asks for in the block.

    It is called in place of `keras.ops.matmul` and its like, whoever asks for them, with the
    variables themselves where a layer gives variables. Products within it are the backend's own.
    """
    thread, is_within = threading.get_ident(), False

    def replaced(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def product(*arguments: Any, **options: Any) -> Any:
            nonlocal is_within
            if is_within or threading.get_ident() != thread:
                return function(*arguments, **options)
            is_within = True
            try:
                return replace(name, function, arguments, options)
            finally:
                is_within = False

        return product

    with one_at_a_time:
        functions = {name: getattr(module, name) for name, module in _PRODUCTS.items()}
        try:
            for name, module in _PRODUCTS.items():
                setattr(module, name, replaced(name, functions[name]))
            yield
        finally:
            for name, module in _PRODUCTS.items():
                setattr(module, name, functions[name])


ReplaceCall = Callable[[Any, Callable[..., Any], tuple[Any, ...], dict[str, Any]], Any]
"""A function of a layer or operation, what calls it, its arguments and its arguments by name."""


@contextlib.contextmanager
def calls_replaced(replace: ReplaceCall) -> Iterator[None]:
    """Let a function stand for every call of a layer that this thread makes in the block.

    It is called in place of the layer, at every depth, and may call it by what it is given. So it
    is for the operations on arrays that are nodes of a graph, and for `keras.ops.pad`.
    """
    thread = threading.get_ident()
    call_layer, call_operation = keras.Layer.__call__, keras.Operation.__call__

    def call(layer: keras.Layer, *arguments: Any, **options: Any) -> Any:
        if threading.get_ident() != thread:
            return call_layer(layer, *arguments, **options)
        return replace(layer, functools.partial(call_layer, layer), arguments, options)

    def call_other(operation: Any, *arguments: Any, **options: Any) -> Any:
        # A layer comes here on its way from its own call.
        if threading.get_ident() != thread or isinstance(operation, keras.Layer):
            return call_operation(operation, *arguments, **options)
        return replace(operation, functools.partial(call_operation, operation), arguments, options)

    with one_at_a_time:
        keras.Layer.__call__, keras.Operation.__call__ = call, call_other
        try:
            yield
        finally:
            keras.Layer.__call__, keras.Operation.__call__ = call_layer, call_operation


def symbolic_outputs(function: Callable[..., Any], *inputs: Any) -> Any:
    """Return what a function returns for symbolic tensors, which have shapes and no numbers.

    The backend traces the function, so that nothing is computed. PyTorch calls it again if that
    fails, and then computes.
    """
    return keras.src.backend.compute_output_spec(function, *inputs)
