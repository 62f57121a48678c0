"""Memory of large tensors in PyTorch, which Linux gives in large pages.

PyTorch's own memory of many megabytes is given back to the system and asked for anew in each step,
and each page of 4 KB takes a microsecond or two when it is written first: ten times as long as to
write it. So large tensors get memory of their own, in pages of 2 MB. It lies outside what the C
library manages: more memory there would make it give back the more.
"""

import functools
import math
import mmap
import pathlib
from collections.abc import Sequence

import numpy as np

from quantal._core.types import Tensor

_PAGE = 2**21
"""The bytes of a large page."""

_FEWEST_BYTES = 3 * 2**20
"""The C library keeps and reuses less memory than that more often than not."""

_SETTING = pathlib.Path("/sys/kernel/mm/transparent_hugepage/enabled")
"""The file in which Linux says whether programs get large pages."""


def unwritten(shape: Sequence[int], dtype: str = "float32") -> Tensor:
    """Return a tensor on the processor whose numbers are not set."""
    import torch

    count = math.prod(shape)
    size = count * np.dtype(dtype).itemsize
    if size < _FEWEST_BYTES or not _has_large_pages():
        return torch.empty(tuple(shape), dtype=getattr(torch, dtype))
    # Two pages more, to begin and to end where a page does: what is not written takes no memory.
    memory = mmap.mmap(-1, size + 2 * _PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    memory.madvise(mmap.MADV_HUGEPAGE)
    address = np.frombuffer(memory, np.uint8).ctypes.data
    flat = torch.frombuffer(
        memory, dtype=getattr(torch, dtype), count=count, offset=-address % _PAGE
    )
    return flat.view(tuple(shape))


@functools.cache
def _has_large_pages() -> bool:
    try:
        return hasattr(mmap, "MADV_HUGEPAGE") and "[never]" not in _SETTING.read_text()
    except OSError:
        return False
