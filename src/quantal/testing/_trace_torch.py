"""Trace on PyTorch: a call runs eagerly under a mode that sees each operation of its core."""

from collections.abc import Callable, Sequence
from typing import Any

import keras

from quantal._core.types import Tensor
from quantal.testing._ledger import DATA, NOTHING, Ledger, Marked, Origin


class _Origins:
    """Origins are kept by memory, which views share and in-place operations keep."""

    def __init__(self) -> None:
        # The tensors are kept alive, or another one might get the same memory.
        self._marked: dict[int, Marked] = {}

    def get(self, tensor: Tensor) -> Origin:
        """Return a tensor's origin, nothing where none is recorded."""
        marked = self._marked.get(_memory(tensor))
        return NOTHING if marked is None else marked.origin

    def mark(self, tensor: Tensor, origin: Origin) -> Tensor:
        """Record a tensor's origin, and return the tensor."""
        # What is overwritten is among the operands, so an origin only ever grows.
        if origin and tensor.numel():
            self._marked[_memory(tensor)] = Marked(tensor, origin)
        return tensor


def _memory(tensor: Tensor) -> int:
    return int(tensor.untyped_storage().data_ptr())


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
    import torch

    origins = _Origins()
    latents = [
        origins.mark(latent.detach().clone(), frozenset({index}))
        for index, latent in enumerate(latents)
    ]
    inputs = keras.tree.map_structure(
        lambda x: None if x is None else origins.mark(x.detach().clone(), DATA), inputs
    )
    with torch.no_grad(), _listening(ledger, origins):
        forward(latents, inputs)


def _listening(ledger: Ledger, origins: _Origins) -> Any:
    """Return PyTorch's mode under which each operation is entered into a ledger."""
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode

    def tensors_in(structure: Any) -> list[Tensor]:
        leaves = keras.tree.flatten(structure)
        return [leaf for leaf in leaves if isinstance(leaf, torch.Tensor)]

    class Listener(TorchDispatchMode):
        def __torch_dispatch__(
            self, function: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            name = function.overloadpacket.__name__
            marked = [Marked(x, origins.get(x)) for x in tensors_in((args, kwargs))]
            if function._schema.is_mutable:
                # What it uses must be read before it is overwritten.
                marked = [x._replace(tensor=x.tensor.clone()) if x.origin else x for x in marked]
            results = function(*args, **(kwargs or {}))
            if not (name.endswith("_like") or name.startswith("new_")):
                written = tensors_in(results)
                origin = ledger.enter(name, marked, written)
                for result in written:
                    origins.mark(result, origin)
            return results

    return Listener()
