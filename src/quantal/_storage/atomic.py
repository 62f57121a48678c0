"""Replace files as a whole: a reader sees the old file or the new one, never a part.

Everything that quantal writes is written here: models, exported files, checkpoints of a
search and the command's results.
"""

import contextlib
import os
import pathlib
import secrets
import shutil
import stat
from collections.abc import Iterator, Mapping
from typing import BinaryIO

Path = str | os.PathLike[str]


@contextlib.contextmanager
def replace_file(path: Path) -> Iterator[BinaryIO]:
    """Yield a temporary file that replaces `path` when the block ends without an error.

    Whatever goes wrong, an interrupt included, `path` is as it was and the temporary
    file is removed. Writers at the same time do not mix: the last one to finish stays.
    A file that exists keeps its mode; a new one gets the mode that `open` gives.

    Args:
        path: The file; its folder exists.

    Raises:
        OSError: The folder is missing or cannot be written.

    >>> import tempfile
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "numbers"
    >>> with replace_file(path) as file:
    ...     _ = file.write(b"1 2 3")
    >>> path.read_bytes()
    b'1 2 3'
    """
    target = pathlib.Path(path)
    # In the same folder, since a file can be moved at once only within a file system.
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(8)}")
    try:
        # "x" means O_CREAT | O_EXCL with 0o666, and the kernel applies the umask.
        with open(temporary, "xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        _move(temporary, target)
    finally:
        # After the move there is none.
        temporary.unlink(missing_ok=True)


def move_file(temporary: Path, path: Path) -> None:
    """Move a finished file to `path`, with the mode of the file that it replaces, if any.

    Use it for files that another library wrote into a temporary folder.

    Args:
        temporary: The finished file, in the same file system as `path`.
        path: The file that it becomes.
    """
    with open(temporary, "rb") as file:
        os.fsync(file.fileno())
    _move(pathlib.Path(temporary), pathlib.Path(path))


def move_files(files: Mapping[pathlib.Path, pathlib.Path]) -> None:
    """Move finished files to their paths, all of them or none.

    Where one cannot be moved, or the program is interrupted, the files that were moved
    before it are exchanged for those that they replaced.

    Args:
        files: The path that each finished file becomes, in the same file system, by the
            path of the finished file. The file that is opened first stands last.

    Raises:
        OSError: A file cannot be moved; then no file has changed.
    """
    for temporary in files:
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
    old: dict[pathlib.Path, pathlib.Path | None] = {}
    try:
        for target in files.values():
            old[target] = _copy_of(target)
        for temporary, target in files.items():
            _move(temporary, target)
    except BaseException:
        for (temporary, target), copy in zip(files.items(), old.values(), strict=False):
            if temporary.exists():  # Not moved yet.
                continue
            if copy is None:
                target.unlink(missing_ok=True)
            else:
                os.replace(copy, target)
        raise
    finally:
        for copy in old.values():
            if copy is not None:
                copy.unlink(missing_ok=True)


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
    """
    path = pathlib.Path(path)
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


def _move(temporary: pathlib.Path, target: pathlib.Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.chmod(temporary, stat.S_IMODE(target.stat().st_mode))
    os.replace(temporary, target)
