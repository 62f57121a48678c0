"""Functions are compiled by numba, and kept in its cache where one can be written."""

import contextlib
from collections.abc import Callable
from typing import Any, TypeVar

from numba import njit
from numba.core.caching import FunctionCache

Function = TypeVar("Function", bound=Callable[..., Any])


def compiled(**options: Any) -> Callable[[Function], Function]:
    """Return a decorator that compiles a function, as `numba.njit(cache=True)` does.

    The cache saves seconds of compiling in later processes, and nothing else: where no folder can
    be written (a container whose user owns neither the package nor a home), the disk is full or
    the cache is damaged, the function is compiled without it.

    Args:
        options: The options of `numba.njit`, such as `fastmath`.
    """

    def decorate(function: Function) -> Function:
        dispatcher = njit(**options)(function)
        # A RuntimeError says that there is no folder for a cache.
        with contextlib.suppress(RuntimeError):
            dispatcher._cache = _ForgivingCache(function)
        return dispatcher

    return decorate


class _ForgivingCache(FunctionCache):
    """A forgiving cache is numba's, except that its failures are never errors.

    numba lets each of its files' errors through, though the compiled function is at hand.
    """

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        """Return a compiled function of the cache; None if there is none or it is damaged."""
        try:
            return super().load_overload(sig, target_context)
        except Exception:
            # A damaged pickle raises errors of many types.
            return None

    def save_overload(self, sig: Any, data: Any) -> None:
        """Write a compiled function to the cache, if that is possible."""
        # A damaged index is read before it is written again.
        with contextlib.suppress(Exception):
            super().save_overload(sig, data)
