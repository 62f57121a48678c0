"""Trace on TensorFlow: a call runs eagerly, and TensorFlow reports each operation."""

from collections.abc import Callable, Sequence
from typing import Any

import keras

from quantal._core.by_identity import ByIdentity
from quantal._core.types import Tensor
from quantal.testing._ledger import DATA, NOTHING, Ledger, Marked, Origin

_SHAPES_ONLY = ("Shape", "ShapeN", "Size", "Rank", "ZerosLike", "OnesLike")
"""Operations that read the shape of their operand and none of its numbers."""


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

    origins: ByIdentity[Origin] = ByIdentity()

    def mark(tensor: Tensor, origin: Origin) -> Tensor:
        copy = tensorflow.identity(tensor)
        origins[copy] = origin
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


def _listener(ledger: Ledger, origins: ByIdentity[Origin]) -> Callable[..., None]:
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
        marked = [Marked(x, origins.get(x, NOTHING)) for x in operands]
        origin = ledger.enter(name, marked, results)
        if origin:
            origins.update((result, origin) for result in results)

    return listen
