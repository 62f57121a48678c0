"""An autosave writes the checkpoint of an optimization by the clock."""

import threading
import types
import warnings
from collections.abc import Callable
from typing import Any, Self

from numpy.typing import NDArray

from quantal._optimize.checkpoint import Checkpoint
from quantal._optimize.interruption import interrupts_ignored

SECONDS_BETWEEN_WRITES = 15.0
"""An optimization that is killed loses the improvements of so many seconds at most, and of the
time that writing takes: together less than half a minute."""


class Autosave:
    """An autosave writes a checkpoint at once, then every so many seconds, and in the end.

    A thread writes, so that no loss that takes minutes and no waiting for other processes holds
    it up. The end is that of a `with` block, by an exception, too. A checkpoint that can no longer
    be written ends nothing: it is a warning, once for each cause.

    Args:
        checkpoint: The file; without a path nothing is done.
        snapshot: Returns the arrays to write. It is called in the thread while the optimization
            goes on, so that what it reads has to be replaced as a whole, never changed in place.
        seconds: The seconds between two writes.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        snapshot: Callable[[], dict[str, NDArray[Any]]],
        seconds: float = SECONDS_BETWEEN_WRITES,
    ) -> None:
        self._checkpoint, self._snapshot, self._seconds = checkpoint, snapshot, seconds
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._write_regularly, daemon=True)
        self._causes: set[str] = set()
        self._unreported: list[str] = []

    def __enter__(self) -> Self:
        if self._checkpoint.keeps:
            self._write()
            self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: types.TracebackType | None,
    ) -> None:
        if not self._checkpoint.keeps:
            return
        with interrupts_ignored():
            self._ended.set()
            self._thread.join()
            self._write()
        self.warn()

    def warn(self) -> None:
        """Warn of what could not be written since the last call, in the thread that calls."""
        while self._unreported:
            warnings.warn(self._unreported.pop(0), stacklevel=2)

    def _write_regularly(self) -> None:
        while not self._ended.wait(self._seconds):
            self._write()

    def _write(self) -> None:
        try:
            self._checkpoint.write(**self._snapshot())
        except (OSError, MemoryError) as error:
            cause = f"{type(error).__name__}: {getattr(error, 'strerror', None) or error}"
            if cause not in self._causes:
                self._causes.add(cause)
                self._unreported.append(
                    f"{self._checkpoint} cannot be written: {cause}. What is reached from now on "
                    "is not in the file until that is mended; the run goes on, and returns its "
                    "result."
                )
