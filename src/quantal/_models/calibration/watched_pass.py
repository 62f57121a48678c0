"""A forward pass is watched: a function computes each product, or a layer's call."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import keras

from quantal._core.keras_internals.interception import products_replaced
from quantal._core.keras_internals.layers import flatten_layers
from quantal._core.tensors.backend import loops_unrolled, without_gradients
from quantal._core.types import Tensor
from quantal._models.calibration.products import Call


class SeenAll(BaseException):
    """The exception ends a pass that has seen what it is for.

    Keras adds its own words to exceptions of layers, but not to those that are no errors.
    """


def kernels_in(call: Call, kernels: Any) -> list[tuple[keras.Variable, int]]:
    """Return the kernels among the arguments of a call, with their positions."""
    return [(a, position) for position, a in enumerate(call.arguments) if a in kernels]


def watched_pass(
    model: keras.Model, inputs: Any, watch: Callable[[Call], Tensor] | None, has_loops: bool
) -> None:
    """Call a model in inference, with a function in place of each product of the backend."""

    def replace(name: str, function: Any, arguments: Any, options: Any) -> Tensor:
        return watch(Call(name, function, arguments, options))  # type: ignore[misc]

    with contextlib.ExitStack() as stack:
        stack.enter_context(without_gradients())
        stack.enter_context(_without_fused_loops(model))
        if has_loops:
            stack.enter_context(loops_unrolled())
        stack.enter_context(contextlib.suppress(SeenAll))
        if watch is not None:
            stack.enter_context(products_replaced(replace))
        for layer in flatten_layers(model):
            if getattr(layer, "stateful", False) and hasattr(layer, "reset_state"):
                layer.reset_state()
        model(inputs, training=False)


@contextlib.contextmanager
def _without_fused_loops(model: keras.Model) -> Iterator[None]:
    """Let recurrent layers multiply step by step in the block, and not within one operation."""
    before = [
        (vars(layer), vars(layer)["use_cudnn"])
        for layer in flatten_layers(model)
        if "use_cudnn" in vars(layer)
    ]
    try:
        for attributes, _ in before:
            attributes["use_cudnn"] = False
        yield
    finally:
        for attributes, setting in before:
            attributes["use_cudnn"] = setting


@contextlib.contextmanager
def called_instead(layer: keras.Layer, call: Callable[..., Tensor]) -> Iterator[None]:
    """Let a layer call another function in the block."""
    attributes = vars(layer)
    before = attributes.get("call")
    attributes["call"] = call
    try:
        yield
    finally:
        if before is None:
            del attributes["call"]
        else:
            attributes["call"] = before
