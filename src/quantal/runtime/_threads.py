"""Split a loop over several threads where there is enough to do."""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

_LEAST_WORK = 2**24
"""A thread gets at least so many products: of one bit they take a tenth of a millisecond, several
times what starting a thread's work takes."""


class Threads:
    """Threads split ranges, if a range is worth it.

    Args:
        count: The most threads that work at a time.
    """

    def __init__(self, count: int) -> None:
        self.count = count
        self._pool: ThreadPoolExecutor | None = None
        self._process = 0

    def each_part(self, length: int, work: int, part: Callable[[int, int], None]) -> None:
        """Call a function with the start and the stop of each part of a range.

        Args:
            length: The range is 0 to `length`.
            work: The products of the whole range.
            part: The function; parts may run at the same time.
        """
        count = max(1, min(self.count, length, work // _LEAST_WORK))
        stops = [length * (index + 1) // count for index in range(count)]
        parts = list(zip([0, *stops], stops, strict=False))
        if count == 1:
            part(0, length)
            return
        # A process that was forked off has no thread of its parent's.
        if self._pool is None or self._process != os.getpid():
            self._pool, self._process = ThreadPoolExecutor(self.count - 1), os.getpid()
        others = [self._pool.submit(part, *bounds) for bounds in parts[1:]]
        part(*parts[0])
        for other in others:
            other.result()


def available_cores() -> int:
    """Return how many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
