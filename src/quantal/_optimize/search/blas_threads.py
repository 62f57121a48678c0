"""A user's function that multiplies small matrices is faster without threads, often by far."""

import contextlib
import math
import time
import types
from collections import defaultdict
from collections.abc import Callable
from typing import Any, Self

from quantal._optimize.budget import Clock

_FIRST_CALLS = 2
"""Both ways are measured so often before one is preferred."""
_MEMORY, _UPDATE = 0.8, 0.2
"""The weights of earlier calls and of a new one in the mean seconds of a call."""
_EXPLORED = 0.01
"""The share of the time that the way which was slower may take: it may be the faster one once
another program on the machine has ended."""


class BlasThreads:
    """BLAS threads are limited to one within a scope, wherever that is faster.

    Threads that share a product of small matrices wait for each other longer than they compute,
    and on a busy machine a hundred times longer. Large batches gain by them. Which is which is
    measured, for batches of about the same size, and again from time to time.

    Outside the scope, and where threadpoolctl is not installed or BLAS has one thread anyway,
    nothing is changed or measured. The limit is that of the process, until the scope ends.

    Args:
        clock: The clock that measures calls.
    """

    def __init__(self, clock: Clock = time.perf_counter) -> None:
        self._clock = clock
        self._controller: Any = None
        self._limiter: Any = None
        self._of_size: defaultdict[int, _Ways] = defaultdict(_Ways)

    def __enter__(self) -> Self:
        # It comes with the extra `search`.
        with contextlib.suppress(ImportError):
            from threadpoolctl import ThreadpoolController

            controller = ThreadpoolController().select(user_api="blas")
            if any(library["num_threads"] > 1 for library in controller.info()):
                self._controller = controller
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: types.TracebackType | None,
    ) -> None:
        self._limit(False)
        self._controller = None

    def call(self, function: Callable[[Any], Any], batch: Any) -> Any:
        """Return what a function returns for a batch, computed in the faster way."""
        if self._controller is None:
            return function(batch)
        ways = self._of_size[len(batch).bit_length()]
        limited = ways.next_is_limited()
        self._limit(limited)
        began = self._clock()
        result = function(batch)
        ways.add(limited, (self._clock() - began) / max(1, len(batch)))
        return result

    def _limit(self, limited: bool) -> None:
        if limited and self._limiter is None:
            self._limiter = self._controller.limit(limits=1)
        elif not limited and self._limiter is not None:
            self._limiter.restore_original_limits()
            self._limiter = None


class _Ways:
    """The two ways of computing batches of a size are with one thread, and with all threads."""

    def __init__(self) -> None:
        self._calls = {True: 0, False: 0}
        self._mean = {True: math.inf, False: math.inf}
        self._since_exploring = 0.0

    def next_is_limited(self) -> bool:
        """Return whether the next call has one thread."""
        for limited in (True, False):
            if self._calls[limited] < _FIRST_CALLS:
                return limited
        faster = self._mean[True] <= self._mean[False]
        if self._mean[not faster] <= _EXPLORED * self._since_exploring:
            return not faster
        return faster

    def add(self, limited: bool, seconds: float) -> None:
        """Add the seconds of a call, for each vector."""
        slower = self._mean[limited] > self._mean[not limited]
        self._since_exploring = 0.0 if slower else self._since_exploring + seconds
        self._calls[limited] += 1
        mean = self._mean[limited]
        # The first call may start threads or compile.
        first = self._calls[limited] <= _FIRST_CALLS
        self._mean[limited] = min(mean, seconds) if first else _MEMORY * mean + _UPDATE * seconds
