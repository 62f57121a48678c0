"""Plain tensors of PyTorch: it computes with them at once, on the processor, and not as symbols."""

from typing import Any

from quantal._core.tensors.backend import transforms_in_torch
from quantal._core.types import Tensor


def is_on_processor(tensor: Any) -> bool:
    """Return whether a tensor of PyTorch lies in the processor's memory, and is no other class."""
    import torch

    return type(tensor) in (torch.Tensor, torch.nn.Parameter) and tensor.device.type == "cpu"


def is_plain(tensor: Tensor) -> bool:
    """Return whether operations may write into memory that is laid out as this tensor's is.

    It is a dense float32 tensor in the processor's memory, and operations compute at once.
    """
    import torch

    return (
        not transforms_in_torch()
        and is_on_processor(tensor)
        and tensor.dtype == torch.float32
        and tensor.layout == torch.strided
        and not torch._C._functorch.is_legacy_batchedtensor(tensor)
    )
