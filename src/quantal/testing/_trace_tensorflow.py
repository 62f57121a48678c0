"""Trace on TensorFlow: a call runs eagerly, and TensorFlow reports each operation."""

import weakref
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import keras

from quantal._core.types import Tensor
from quantal.testing._ledger import DATA, NOTHING, Ledger, Marked, Origin

_SHAPES_ONLY = ("Shape", "ShapeN", "Size", "Rank", "ZerosLike", "OnesLike")
"""Operations that read the shape of their operand and none of its numbers."""


class _Origins:
    """Origins are kept by a tensor's identity, as long as somebody else needs the tensor."""

    def __init__(self) -> None:
        self._origins: dict[int, tuple[weakref.ref[Any], Origin]] = {}

    def get(self, tensor: Tensor) -> Origin:
        """Return a tensor's origin, nothing where none is recorded."""
        reference, origin = self._origins.get(id(tensor), (None, NOTHING))
        return origin if reference is not None and reference() is tensor else NOTHING

    def mark(self, tensors: Iterable[Tensor], origin: Origin) -> None:
        """Record the origin of tensors."""
        for tensor in tensors:
            identity = id(tensor)

            def forget(reference: Any, identity: int = identity) -> None:
                # Another tensor may have the identity by now.
                if self._origins.get(identity, (None, NOTHING))[0] is reference:
                    del self._origins[identity]

            self._origins[identity] = weakref.ref(tensor, forget), origin


def trace(
    ledger: Ledger, forward: Callable[..., Any], latents: Sequence[Tensor], inputs: Any
) -> None:
    """Enter every operation of a forward pass into a ledger.

    Args:
        ledger: Where uses are recorded.
        forward: From the latents and the inputs to a list of tensors.
        latents: The latents' tensors.
        inputs: A structure of tensors.
    """
    import tensorflow

    # The one private module: TensorFlow's debugger listens in the same way.
    from tensorflow.python.framework import op_callbacks

    origins = _Origins()

    def mark(tensor: Tensor, origin: Origin) -> Tensor:
        # Another tensor with the same memory.
        copy = tensorflow.identity(tensor)
        origins.mark([copy], origin)
        return copy

    latents = [mark(latent, frozenset({index})) for index, latent in enumerate(latents)]
    inputs = keras.tree.map_structure(lambda x: None if x is None else mark(x, DATA), inputs)
    listen = _listener(ledger, origins)
    runs_eagerly = tensorflow.config.functions_run_eagerly()
    # A function that TensorFlow compiles would be one operation that uses everything.
    tensorflow.config.run_functions_eagerly(True)
    op_callbacks.add_op_callback(listen)
    try:
        forward(latents, inputs)
    finally:
        op_callbacks.remove_op_callback(listen)
        tensorflow.config.run_functions_eagerly(runs_eagerly)


def _listener(ledger: Ledger, origins: _Origins) -> Callable[..., None]:
    """Return a callback that enters each eager operation into a ledger."""
    import tensorflow

    def listen(
        operation: str | bytes,
        operands: Any,
        attributes: Any,
        results: Any,
        op_name: Any = None,
        graph: Any = None,
    ) -> None:
        name = tensorflow.compat.as_str(operation)
        if graph is not None or name in _SHAPES_ONLY:
            return
        marked = [Marked(x, origins.get(x)) for x in operands]
        origin = ledger.enter(name, marked, results)
        if origin:
            origins.mark(results, origin)

    return listen
