"""A process claims the trial that it runs, so that another one with the same file runs others."""

import contextlib
import hashlib
import importlib
import os
import pathlib
from collections.abc import Iterator
from typing import Any

_fcntl: Any = None
"""Locks of files; Windows has none, so that there every process runs all trials."""
with contextlib.suppress(ImportError):
    _fcntl = importlib.import_module("fcntl")

ENDING = ".claims"
"""What a journal's name is followed by in that of the file of claims."""

_BYTES = 2**62
"""So many bytes of the file can be locked: those that every system can name."""


class Claims:
    """Claims are locks on single bytes of a file, a byte for each trial.

    The file is empty: a byte need not be there to be locked. A lock ends with its process, however
    that ends, so that no claim of a killed process is left. Where files cannot be locked, every
    claim succeeds.

    Args:
        path: The path of the journal.
    """

    def __init__(self, path: pathlib.Path) -> None:
        self._path = path.with_name(path.name + ENDING)

    @contextlib.contextmanager
    def claimed(self, key: str, wait: bool) -> Iterator[bool]:
        """Claim a trial within a scope; yields False where another process has claimed it.

        Args:
            key: The trial's key.
            wait: Wait until no other process has claimed it.
        """
        if _fcntl is None:
            yield True
            return
        byte = int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big") % _BYTES
        descriptor = self._locked(byte, wait)
        try:
            yield descriptor is not None
        finally:
            if descriptor is not None:
                self._remove_if_unused(descriptor)
                os.close(descriptor)

    def _locked(self, byte: int, wait: bool) -> int | None:
        """Return the open file with a byte locked, or None."""
        while True:
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o666)
            try:
                if not _lock(descriptor, 1, byte, wait):
                    os.close(descriptor)
                    return None
                # Another process may have removed the file between its opening and the lock.
                with contextlib.suppress(FileNotFoundError):
                    if os.path.samestat(os.fstat(descriptor), os.stat(self._path)):
                        return descriptor
            except BaseException:
                os.close(descriptor)
                raise
            os.close(descriptor)

    def _remove_if_unused(self, descriptor: int) -> None:
        """Remove the file where no other process has a claim."""
        if _lock(descriptor, 0, 0, wait=False):
            self._path.unlink(missing_ok=True)


def _lock(descriptor: int, length: int, start: int, wait: bool) -> bool:
    """Lock a part of a file; False where another process has a lock on it.

    Args:
        descriptor: The open file.
        length: The number of bytes; 0 for all from the start.
        start: The first byte.
        wait: Wait for the other process.
    """
    try:
        _fcntl.lockf(descriptor, _fcntl.LOCK_EX | (0 if wait else _fcntl.LOCK_NB), length, start)
    except (BlockingIOError, PermissionError):
        return False
    except OSError:  # A file system without locks.
        return length > 0
    return True
