"""A tensor that is computed from variables is kept until one of them changes.

Outside a compiler a model computes each weight anew in every call. In inference that is
most of the time of a small model, so the weight is kept. A kept tensor is never stale:

| backend | how a change is seen |
|---|---|
| JAX | arrays do not change: an assignment puts another one in the variable's place |
| TensorFlow | tensors do not change: while one is kept, an assignment writes into other memory |
| PyTorch | tensors change, also by ways that leave no trace (`.data`, NumPy): numbers are compared with a copy; those of a finalized layer, which nothing is to move, by PyTorch's version counter |

Nothing is kept within a compiler's trace, where tensors have no numbers, nor on a device
other than the processor, where comparing costs more than it saves.
"""  # noqa: E501 (a table)

import contextlib
import dataclasses
import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, Self

import keras
import numpy as np
from numpy.typing import NDArray

from quantal._core.tensors.backend import transforms_in_torch
from quantal._core.tensors.plain_torch import is_on_processor
from quantal._core.types import Tensor

Compute = Callable[[], Tensor]

# Each thread has its own: one may trace while another computes.
_active = threading.local()


@contextlib.contextmanager
def nothing_kept() -> Iterator[None]:
    """Compute every tensor anew within a scope, for whoever watches the operations."""
    outer = getattr(_active, "computes_anew", False)
    _active.computes_anew = True
    try:
        yield
    finally:
        _active.computes_anew = outer


_LARGE = 2**16
"""Arrays of so many bytes are compared in blocks: smaller ones gain nothing from it."""

_BLOCK = 2**17
"""The length of a block: its comparison, one boolean a number, stays in the processor's cache."""


class _Kept(NamedTuple):
    """What is kept: the sources in the form in which they are compared, and the result."""

    sources: list[Any]
    result: Tensor
    version: int = 0
    by_version: bool = False


@dataclasses.dataclass(frozen=True, eq=False)
class _Version:
    """A version of a tensor of PyTorch: another write, or other memory, makes another one.

    Attributes:
        memory: The tensor's memory, so that nothing else gets its address.
        address: Where it lies.
        count: How often it was written.
    """

    memory: Tensor
    address: int
    count: int

    @classmethod
    def of(cls, tensor: Tensor) -> Self:
        return cls(tensor.detach(), tensor.data_ptr(), tensor._version)

    def is_same(self, other: object) -> bool:
        return (
            isinstance(other, _Version)
            and self.address == other.address
            and self.count == other.count
        )


def _array(tensor: Tensor) -> NDArray[Any]:
    return np.asarray(tensor.detach().numpy())


class KeptTensor:
    """A kept tensor is the result of a computation, as long as its sources stay the same.

    Copies and pickles of it are empty. Threads may share it.

    Args:
        are_still: Whether the variables are those of a finalized layer. Then PyTorch's version
            counters say whether they have changed: reading large ones in each call takes longer
            than the call.
    """

    def __init__(self, are_still: bool = False) -> None:
        self._are_still = are_still
        self._kept: _Kept | None = None

    def __reduce__(self) -> tuple[type[Self], tuple[bool]]:
        return type(self), (self._are_still,)

    def forget(self) -> None:
        """Forget what is kept."""
        self._kept = None

    def unshared(self, tensor: Tensor) -> Tensor:
        """Return a tensor that shares no memory with what is kept: users may write into it.

        Args:
            tensor: What `get` returned, or another tensor, which is returned as it is.
        """
        if keras.config.backend() != "torch" or self._kept is None or transforms_in_torch():
            return tensor
        is_shared = tensor.data_ptr() == self._kept.result.data_ptr()
        return tensor.clone() if is_shared else tensor

    def get(self, variables: Sequence[keras.Variable], compute: Compute) -> Tensor:
        """Return what a function computes from variables, with its gradient to them.

        Args:
            variables: All variables that the result depends on, in value and gradient.
            compute: The function. It reads the variables' values itself.
        """
        if getattr(_active, "computes_anew", False):
            return compute()
        backend = keras.config.backend()
        if backend == "jax":
            return self._get_in_jax(variables, compute)
        if backend == "tensorflow":
            return self._get_in_tensorflow(variables, compute)
        if backend == "torch":
            return self._get_in_torch(variables, compute)
        return compute()

    def _get_in_jax(self, variables: Sequence[keras.Variable], compute: Compute) -> Tensor:
        import jax

        values = [variable.value for variable in variables]
        # Within a trace that takes gradients, values are tracers. Deleted arrays were given away.
        if not all(map(_is_array_of_jax, values)):
            return compute()
        kept = self._kept
        if kept is not None and all(
            reference() is value for reference, value in zip(kept.sources, values, strict=True)
        ):
            return kept.result
        result = compute()
        if not isinstance(result, jax.core.Tracer):
            # Weak references: whoever replaces an array frees its memory.
            self._kept = _Kept([weakref.ref(value) for value in values], result)
        return result

    def _get_in_tensorflow(self, variables: Sequence[keras.Variable], compute: Compute) -> Tensor:
        import tensorflow
        from tensorflow.python.eager import record

        if not tensorflow.executing_eagerly() or record.could_possibly_record():
            return compute()
        values = [variable.value for variable in variables]
        tensors = [v.value() if isinstance(v, tensorflow.Variable) else v for v in values]
        if not all(map(_is_on_processor_in_tensorflow, tensors)):
            return compute()
        kept = self._kept
        if kept is not None and all(map(_share_memory_in_tensorflow, kept.sources, tensors)):
            return kept.result
        result = compute()
        # The tensors themselves are kept: nothing else gets their memory meanwhile.
        self._kept = _Kept(tensors, result)
        return result

    def _get_in_torch(self, variables: Sequence[keras.Variable], compute: Compute) -> Tensor:
        import torch

        values = [variable.value for variable in variables]
        if transforms_in_torch() or not all(map(is_on_processor, values)):
            return compute()
        by_version = self._are_still and not any(value.is_inference() for value in values)
        form: Callable[[Tensor], Any] = _Version.of if by_version else _array
        are_same: Callable[[Any, Any], bool] = _Version.is_same if by_version else _are_equal
        forms = [form(value) for value in values]
        kept = self._kept
        if (
            kept is None
            # The version counts changes of the result itself, by whoever got it.
            or kept.result._version != kept.version
            or kept.by_version != by_version
            or not all(map(are_same, kept.sources, forms))
        ):
            # Outside inference mode, so that gradients may pass through its users later.
            with torch.inference_mode(False), torch.no_grad():
                result = compute().detach()
            copies = forms if by_version else [array.copy() for array in forms]
            kept = self._kept = _Kept(copies, result, result._version, by_version)
        if torch.is_grad_enabled() and any(value.requires_grad for value in values):
            return _recomputed_in_torch().apply(kept.result, variables, compute, *values)
        return kept.result.detach()


def _is_array_of_jax(value: Any) -> bool:
    import jax

    is_array = isinstance(value, jax.Array) and not isinstance(value, jax.core.Tracer)
    return is_array and not value.is_deleted()


def _is_on_processor_in_tensorflow(tensor: Any) -> bool:
    return hasattr(tensor, "_numpy_internal") and "CPU" in tensor.device


def _share_memory_in_tensorflow(one: Tensor, other: Tensor) -> bool:
    first, second = (np.asarray(t).__array_interface__["data"][0] for t in (one, other))
    return bool(first == second)


def _are_equal(one: NDArray[Any], other: NDArray[Any]) -> bool:
    """Return whether two arrays have the same numbers; large ones as fast as memory is read."""
    if one.nbytes < _LARGE or not (one.flags.c_contiguous and other.flags.c_contiguous):
        return np.array_equal(one, other)
    if one.shape != other.shape or one.dtype != other.dtype:
        return False
    bits = np.uint64 if one.nbytes % 8 == 0 else one.dtype
    first, second = one.reshape(-1).view(bits), other.reshape(-1).view(bits)
    return all(
        np.array_equal(first[start : start + _BLOCK], second[start : start + _BLOCK])
        for start in range(0, len(first), _BLOCK)
    )


def _recomputed_in_torch() -> Any:
    """Return the function whose value is kept and whose gradient is that of a computation."""
    global _recomputed
    if _recomputed is None:
        _recomputed = _create_recomputed()
    return _recomputed


_recomputed: Any = None


def _create_recomputed() -> Any:
    import torch

    class Recomputed(torch.autograd.Function):
        """A kept result costs a computation in the backward pass alone."""

        # The gradients' context comes first: PyTorch's other form costs four times as much.
        @staticmethod
        def forward(
            ctx: Any,
            result: Tensor,
            variables: Sequence[keras.Variable],
            compute: Compute,
            *values: Tensor,
        ) -> Tensor:
            ctx.variables, ctx.compute = variables, compute
            ctx.save_for_backward(*values)
            return result.detach()

        @staticmethod
        def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
            values, is_differentiated = ctx.saved_tensors, torch.is_grad_enabled()
            needed = [value for value in values if value.requires_grad]
            mapping = list(zip(ctx.variables, values, strict=True))
            with torch.enable_grad(), keras.StatelessScope(mapping):
                result = ctx.compute()
            gradients = iter(
                torch.autograd.grad(
                    result, needed, upstream, allow_unused=True, create_graph=is_differentiated
                )
            )
            # In the order of the values; there is none to the first three arguments.
            return (
                None,
                None,
                None,
                *(next(gradients) if value.requires_grad else None for value in values),
            )

    return Recomputed
