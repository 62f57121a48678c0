"""An optimization ends well when its process is interrupted or asked to terminate."""

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any


@contextlib.contextmanager
def termination_as_interrupt() -> Iterator[None]:
    """Raise KeyboardInterrupt on SIGTERM within a scope, as Ctrl-C does.

    Schedulers and containers send SIGTERM before they kill. Only the main thread can handle
    signals, and a handler that the program has set itself, or its wish to ignore the signal,
    stays as it is.
    """
    if _in_main_thread() and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        with _handlers({signal.SIGTERM: _interrupt}):
            yield
    else:
        yield


@contextlib.contextmanager
def interrupts_ignored() -> Iterator[None]:
    """Ignore Ctrl-C and SIGTERM within a scope, for what has to be done as a whole.

    Use it where an optimization ends anyway and takes only a moment more: to write its last file
    and to change a model.
    """
    if not _in_main_thread():
        yield
        return
    handled = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: _interrupt}
    ignored = {
        number: _ignore
        for number, handler in handled.items()
        if signal.getsignal(number) is handler
    }
    with _handlers(ignored):
        yield


@contextlib.contextmanager
def stop_requests() -> Iterator[Callable[[], bool]]:
    """Yield a function that returns whether Ctrl-C or SIGTERM came within a scope.

    Use it where work can only stop between two steps. A second Ctrl-C raises KeyboardInterrupt at
    once. Handlers of the program stay, as they do for `termination_as_interrupt`.
    """
    requests: list[int] = []

    def request(number: int, frame: Any) -> None:
        if requests and number == signal.SIGINT:
            raise KeyboardInterrupt
        requests.append(number)

    defaults = {
        signal.SIGINT: (signal.default_int_handler,),
        signal.SIGTERM: (signal.SIG_DFL, _interrupt),
    }
    handled = {
        number: request
        for number, known in defaults.items()
        if _in_main_thread() and signal.getsignal(number) in known
    }
    with _handlers(handled):
        yield lambda: bool(requests)


@contextlib.contextmanager
def _handlers(handlers: Mapping[signal.Signals, Callable[[int, Any], Any]]) -> Iterator[None]:
    """Set handlers of signals, and set the old ones again."""
    old = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)


def _in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()


def _interrupt(number: int, frame: Any) -> None:
    raise KeyboardInterrupt


def _ignore(number: int, frame: Any) -> None:
    """Do nothing; unlike `SIG_IGN`, this is not inherited by new processes."""
