"""Replace files as a whole: a reader sees the old file or the new one, never a part.

Everything that quantal writes is written here: models, exported files, checkpoints of a
search and the command's results.
"""

import contextlib
import errno
import importlib
import os
import pathlib
import re
import secrets
import shutil
import stat
from collections.abc import Callable, Iterator, Mapping
from typing import Any, BinaryIO

Path = str | os.PathLike[str]

_fcntl: Any = None
"""Locks of files, by which a writer knows what another one left behind; Windows has none."""
with contextlib.suppress(ImportError):
    _fcntl = importlib.import_module("fcntl")


@contextlib.contextmanager
def replace_file(path: Path) -> Iterator[BinaryIO]:
    """Yield a temporary file that replaces `path` when the block ends without an error.

    Whatever goes wrong, an interrupt included, `path` is as it was and the temporary
    file is removed. Writers at the same time do not mix: the last one to finish stays.
    A file that exists keeps its mode; a new one gets the mode that `open` gives. A
    symbolic link stays one, and the file that it names is replaced. Temporary files that
    a killed writer of the same path left behind are removed.

    Args:
        path: The file; its folder exists.

    Raises:
        OSError: The folder is missing or cannot be written, or the path is a folder, a
            device or a pipe.

    >>> import tempfile
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "numbers"
    >>> with replace_file(path) as file:
    ...     _ = file.write(b"1 2 3")
    >>> path.read_bytes()
    b'1 2 3'
    """
    check_path(path)
    target = _followed(path)
    _remove_leftovers(target)
    # "x" means O_CREAT | O_EXCL with 0o666, and the kernel applies the umask.
    temporary, lock = _create_beside(target, lambda path: open(path, "xb").close())
    try:
        with open(temporary, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        _move(temporary, target)
    finally:
        # After the move there is none.
        temporary.unlink(missing_ok=True)
        _unlock(lock)


@contextlib.contextmanager
def folder_beside(path: Path) -> Iterator[pathlib.Path]:
    """Yield an empty temporary folder beside a file, for what is moved to its path later.

    The folder is removed when the block ends, and by the next writer of the same path
    where the program was killed.

    Args:
        path: The file; its folder exists.
    """
    target = _followed(path)
    _remove_leftovers(target)
    folder, lock = _create_beside(target, lambda path: path.mkdir())
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        _unlock(lock)


def move_file(temporary: Path, path: Path) -> None:
    """Move a finished file to `path`, with the mode of the file that it replaces, if any.

    Use it for files that another library wrote into a temporary folder. A symbolic link
    stays one, and the file that it names is replaced.

    Args:
        temporary: The finished file, in the same file system as `path`.
        path: The file that it becomes.
    """
    with open(temporary, "rb") as file:
        os.fsync(file.fileno())
    _move(pathlib.Path(temporary), _followed(path))


def move_files(files: Mapping[pathlib.Path, pathlib.Path], never_mixed: bool = False) -> None:
    """Move finished files to their paths, all of them or none.

    Where one cannot be moved, or the program is interrupted, the files that were moved
    before it are exchanged for those that they replaced. Symbolic links stay, and the files
    that they name are replaced. Second names of old files that a killed writer of the same
    paths left behind are removed.

    Args:
        files: The path that each finished file becomes, in the same file system, by the
            path of the finished file. The file that is opened first stands last.
        never_mixed: What a program leaves that is killed (kill -9) within the moves. True, for
            files that are read together: old files or new ones, where some may be missing,
            first of all the one that is opened first. False, for files that are read alone:
            each is there all the time, and some may be new and others old.

    Raises:
        OSError: A file cannot be moved; then no file has changed.
    """
    files = {temporary: _followed(path) for temporary, path in files.items()}
    for temporary in files:
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
    old: dict[pathlib.Path, pathlib.Path | None] = {}
    locks: list[int | None] = []
    try:
        for target in files.values():
            _remove_leftovers(target)
            old[target] = copy = _copy_of(target)
            locks += [] if copy is None else [_lock(copy)]
        for temporary, target in files.items():
            _take_mode(temporary, target)
        if never_mixed and len(files) > 1:
            for target in reversed(files.values()):
                target.unlink(missing_ok=True)
        for temporary, target in files.items():
            os.replace(temporary, target)
    except BaseException:
        for (temporary, target), copy in zip(files.items(), old.values(), strict=False):
            if copy is not None:
                os.replace(copy, target)
            elif not temporary.exists():  # It was moved to where there was no file.
                target.unlink(missing_ok=True)
        raise
    finally:
        for copy in old.values():
            if copy is not None:
                copy.unlink(missing_ok=True)
        for lock in locks:
            _unlock(lock)


def _copy_of(path: pathlib.Path) -> pathlib.Path | None:
    """Return a temporary second name of a file, or a copy; None where there is no file."""
    copy = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        os.link(path, copy)
    except FileNotFoundError:
        return None
    except OSError:  # A file system without links.
        shutil.copy2(path, copy)
    return copy


def check_path(path: Path) -> None:
    """Refuse a path where no file can be written, before anything is computed for it.

    Raises:
        FileNotFoundError: Its folder does not exist.
        IsADirectoryError: It is a folder, a device or a pipe.
        OSError: It is a symbolic link that leads back to itself.
    """
    path = _followed(path)
    if not path.parent.is_dir():
        raise FileNotFoundError(
            f"The folder {os.fspath(path.parent)!r} of the file {path.name!r} does not exist. "
            "Expected one to write the file into. Create it with os.makedirs, or correct the path."
        )
    if path.exists() and not path.is_file():
        kind = "a folder" if path.is_dir() else "a device or pipe"
        raise IsADirectoryError(
            f"{os.fspath(path)!r} is {kind}. Expected the path of a file, which can be replaced. "
            "Give another name."
        )


def _followed(path: Path) -> pathlib.Path:
    """Return the path of the file that a symbolic link names, or the path itself.

    Raises:
        OSError: The link leads back to itself.
    """
    path = pathlib.Path(path)
    if not path.is_symlink():
        return path
    target = pathlib.Path(os.path.realpath(path))
    if target.is_symlink():
        raise OSError(
            errno.ELOOP,
            "A symbolic link leads back to itself. Expected a file, or a link to one. Remove it",
            os.fspath(path),
        )
    return target


def _create_beside(
    target: pathlib.Path, create: Callable[[pathlib.Path], None]
) -> tuple[pathlib.Path, int | None]:
    """Create a temporary file or folder beside a file; return it and its lock."""
    while True:
        # In the same folder, since a file can be moved at once only within a file system.
        path = target.with_name(f".{target.name}.{secrets.token_hex(8)}")
        create(path)
        # Another writer may have taken it for a leftover before it was locked. It holds the
        # lock until it has removed it.
        lock = _lock(path, wait=True)
        if path.exists():
            return path, lock
        _unlock(lock)


def _remove_leftovers(target: pathlib.Path) -> None:
    """Remove the temporary files and folders of killed writers of the same file."""
    if _fcntl is None:
        return
    pattern = re.compile(rf"\.{re.escape(target.name)}\.[0-9a-f]{{16}}")
    with contextlib.suppress(OSError):
        for path in [path for path in target.parent.iterdir() if pattern.fullmatch(path.name)]:
            lock = _lock(path)
            if lock is None:
                continue
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)
            _unlock(lock)


def _lock(path: pathlib.Path, wait: bool = False) -> int | None:
    """Lock a file or folder until it is unlocked or the process ends; None if that fails.

    Args:
        path: The file or folder.
        wait: Wait for one who holds the lock, which fails otherwise.
    """
    if _fcntl is None:
        return None
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError:
        return None
    try:
        _fcntl.flock(descriptor, _fcntl.LOCK_EX | (0 if wait else _fcntl.LOCK_NB))
    except OSError:
        os.close(descriptor)
        return None
    return descriptor


def _unlock(lock: int | None) -> None:
    if lock is not None:
        os.close(lock)


def _move(temporary: pathlib.Path, target: pathlib.Path) -> None:
    _take_mode(temporary, target)
    os.replace(temporary, target)


def _take_mode(temporary: pathlib.Path, target: pathlib.Path) -> None:
    """Give a file the mode of the one that it will replace, if any."""
    with contextlib.suppress(FileNotFoundError):
        os.chmod(temporary, stat.S_IMODE(target.stat().st_mode))
