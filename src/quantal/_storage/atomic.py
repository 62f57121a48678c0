"""Replace files as a whole: a reader sees the old file or the new one, never a part.

Everything that quantal writes is written here: models, exported files, checkpoints of a
search and the command's results.
"""

import contextlib
import os
import pathlib
import secrets
import stat
from collections.abc import Iterator
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


def _move(temporary: pathlib.Path, target: pathlib.Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.chmod(temporary, stat.S_IMODE(target.stat().st_mode))
    os.replace(temporary, target)
