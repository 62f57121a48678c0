"""Trace on PyTorch: a call runs eagerly under a mode that sees each operation of its core."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras

from quantal._core.types import Tensor
from quantal.testing._ledger import DATA, NOTHING, Ledger, Marked, Origin


class _Origins:
    """Origins are kept by storage, which views share and in-place operations keep."""

    def __init__(self) -> None:
        # A weak reference keeps no memory, but no other storage gets the identity meanwhile.
        self._marked: dict[int, tuple[Any, Origin]] = {}

    def get(self, tensor: Tensor) -> Origin:
        """Return a tensor's origin, nothing where none is recorded."""
        return self._marked.get(_storage_of(tensor).cdata, (None, NOTHING))[1]

    def mark(self, tensor: Tensor, origin: Origin) -> Tensor:
        """Record a tensor's origin, and return the tensor."""
        # What is overwritten is among the operands, so an origin only ever grows.
        if origin and tensor.numel():
            storage = _storage_of(tensor)
            self._marked[storage.cdata] = storage, origin
        return tensor


def _storage_of(tensor: Tensor) -> Any:
    """Return a weak reference to a tensor's storage; its `cdata` identifies the storage."""
    from torch.multiprocessing.reductions import StorageWeakRef

    return StorageWeakRef(tensor.untyped_storage())


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
        origins.mark(latent.detach(), frozenset({index})) for index, latent in enumerate(latents)
    ]
    inputs = keras.tree.map_structure(
        lambda x: None if x is None else origins.mark(x.detach().clone(), DATA), inputs
    )
    saved = _Saved(latents)
    try:
        with torch.no_grad(), _listening(ledger, origins, saved):
            forward(latents, inputs)
    finally:
        saved.restore()


class _Saved:
    """What a call writes into latents is undone: a copy of all of them would be large.

    Args:
        latents: Their tensors.
    """

    def __init__(self, latents: Sequence[Tensor]) -> None:
        self._latents = {_storage_of(latent).cdata: latent for latent in latents}
        self._copies: dict[int, Tensor] = {}

    def save(self, tensor: Tensor) -> None:
        """Save the latent, if any, into which an operation on a tensor may write."""
        storage = _storage_of(tensor).cdata
        if storage in self._latents and storage not in self._copies:
            self._copies[storage] = self._latents[storage].clone()

    def restore(self) -> None:
        """Give latents the numbers back that they had."""
        for storage, copy in self._copies.items():
            self._latents[storage].copy_(copy)


def _listening(ledger: Ledger, origins: _Origins, saved: _Saved) -> Any:
    """Return PyTorch's mode under which each operation is entered into a ledger."""
    from torch.utils._python_dispatch import TorchDispatchMode

    class Listener(TorchDispatchMode):
        def __torch_dispatch__(
            self, function: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            name = function.overloadpacket.__name__
            marked = [Marked(x, origins.get(x)) for x in _tensors_in((args, kwargs))]
            if function._schema.is_mutable:
                # What it uses must be read before it is overwritten.
                for x in marked:
                    saved.save(x.tensor)
                marked = [x._replace(tensor=x.tensor.clone()) if x.origin else x for x in marked]
            results = function(*args, **(kwargs or {}))
            if not (name.endswith("_like") or name.startswith("new_")):
                written = list(_tensors_in(results))
                origin = ledger.enter(name, marked, written)
                for result in written:
                    origins.mark(result, origin)
            return results

    return Listener()


def _tensors_in(structure: Any) -> Iterator[Tensor]:
    """Yield the tensors in an operation's operands or results.

    Not by PyTorch's own function: it leaves what it visited to the garbage collector.
    """
    import torch

    if isinstance(structure, torch.Tensor):
        yield structure
    elif isinstance(structure, dict):
        for entry in structure.values():
            yield from _tensors_in(entry)
    elif isinstance(structure, (list, tuple)):
        for entry in structure:
            yield from _tensors_in(entry)
