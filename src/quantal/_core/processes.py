"""A program that runs in several processes decides once, and writes a file once.

All processes run the same program: those of JAX after `keras.distribution.initialize`, those of
PyTorch after `torch.distributed.init_process_group`. What may differ between them, such as a clock
or a metric of their own data, is read in process 0, which publishes it in the key-value store that
the processes already share, and never waits; the others wait for it. So what is called in process 0
alone does not hang.

A program of one process, and one that uses neither framework, decides for itself.
"""

import collections
import dataclasses
import datetime
import hashlib
import os
import pickle
import sys
import time
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import numpy as np

Result = TypeVar("Result")

_MOST_SECONDS = 1800
"""The other processes wait so long for process 0, then they say so. It may compile meanwhile."""

_calls: collections.Counter[str] = collections.Counter()
"""How often this process has asked for each decision: all processes count alike."""


@dataclasses.dataclass(frozen=True)
class Group:
    """A group of processes runs one program.

    Attributes:
        index: The number of this process, from 0.
        count: How many there are.
        put: Publishes bytes under a name.
        get: Waits for the bytes under a name, and returns them.
    """

    index: int
    count: int
    put: Callable[[str, bytes], None]
    get: Callable[[str], bytes]


def count() -> int:
    """Return how many processes run this program together."""
    group = _group()
    return 1 if group is None else group.count


def index() -> int:
    """Return the number of this process among those that run this program, from 0."""
    group = _group()
    return 0 if group is None else group.index


def done_once(topic: str, function: Callable[[], Result]) -> Result:
    """Call a function in process 0 alone, and return its result in every process.

    Args:
        topic: What it is about, as in "writing model.quantal": the same in all processes.
        function: A function without arguments. Its result is small, and can be pickled.

    Raises:
        RuntimeError: In the other processes, where the function failed in process 0.
        TimeoutError: In the other processes, where process 0 did not call this.

    >>> done_once("counting", lambda: 3)
    3
    """
    group = _group()
    if group is None or group.count == 1:
        return function()
    _calls[topic] += 1
    key = f"quantal/{topic}/{_calls[topic]}"
    if group.index > 0:
        return _published(group, topic, key)
    try:
        result = function()
    except Exception as error:
        group.put(key, pickle.dumps((False, f"{type(error).__name__}: {error}")))
        raise
    group.put(key, pickle.dumps((True, result)))
    return result


def agreed(topic: str, value: Result) -> Result:
    """Return the value that process 0 has, in every process.

    Args:
        topic: What it is about: the same in all processes.
        value: The value that this process has; small, and can be pickled.

    >>> agreed("the loss", 0.5)
    0.5
    """
    return done_once(topic, lambda: value)


def written_once(path: Any, write: Callable[[], Result]) -> Result:
    """Write a file in process 0 alone, while the others wait for it; return what `write` returns.

    A process that is given another path than process 0, or that waits in vain, writes it itself.

    Args:
        path: The file's path.
        write: Writes it.
    """
    path = os.path.abspath(os.fspath(path))
    try:
        first_path, result = done_once("writing a file", lambda: (path, write()))
    except TimeoutError:  # Process 0 may have written it, and ended before it was asked.
        return write()
    return result if path == first_path else write()


def agreed_clock() -> float:
    """Return the seconds of process 0's clock, so that all processes stop at the same moment."""
    return time.perf_counter() if count() == 1 else agreed("the clock", time.perf_counter())


def check_alike(what: str, arrays: Iterable[Any]) -> None:
    """Refuse data that differ between processes.

    Args:
        what: Names the data, as in "the data of polish".
        arrays: NumPy arrays.

    Raises:
        ValueError: This process has others than process 0.
    """
    if count() == 1:
        return
    digest = hashlib.sha256()
    for array in arrays:
        numbers = np.ascontiguousarray(array)
        digest.update(f"{numbers.dtype} {numbers.shape}".encode())
        digest.update(numbers.tobytes())
    if agreed(what, digest.hexdigest()) != digest.hexdigest():
        raise ValueError(
            f"Process {index()} of {count()} has {what} that differ from those of process 0. "
            "Expected the same in every process, since each computes the whole. Give all of them "
            "in each."
        )


def _published(group: Group, topic: str, key: str) -> Any:
    """Return what process 0 publishes under a name."""
    try:
        is_result, result = pickle.loads(group.get(key))
    except Exception as error:  # Each framework has an error of its own.
        raise TimeoutError(
            f"Process {group.index} of {group.count} waited for process 0 in vain ({topic}): that "
            f"has ended, or did not come to it within {_MOST_SECONDS} seconds. Expected the same "
            "calls in every process, or in process 0 alone."
        ) from error
    if not is_result:
        raise RuntimeError(f"Process 0 failed ({topic}). Expected what it says: {result}")
    return result


def _group() -> Group | None:
    """Return the group of processes that JAX or PyTorch knows; None for a single process."""
    jax, torch = sys.modules.get("jax"), sys.modules.get("torch")
    if jax is not None and jax.distributed.is_initialized():
        return _group_of_jax()
    if torch is None or not torch.distributed.is_available():
        return None
    return _group_of_torch() if torch.distributed.is_initialized() else None


def _group_of_jax() -> Group:
    from jax._src import distributed

    state = distributed.global_state
    return Group(
        state.process_id,
        state.num_processes,
        state.client.key_value_set_bytes,
        lambda key: state.client.blocking_key_value_get_bytes(key, 1000 * _MOST_SECONDS),
    )


def _group_of_torch() -> Group:
    import torch

    store = torch.distributed.distributed_c10d._get_default_store()

    def get(key: str) -> bytes:
        store.wait([key], datetime.timedelta(seconds=_MOST_SECONDS))
        return store.get(key)

    return Group(torch.distributed.get_rank(), torch.distributed.get_world_size(), store.set, get)
