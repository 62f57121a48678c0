"""A checkpoint is the file from which an optimization goes on."""

import contextlib
import hashlib
import io
import math
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quantal._storage.archive import Shape, read_archive
from quantal._storage.atomic import replace_file

_FINGERPRINT = "fingerprint"
_MOST_ROWS = 40
"""A file keeps so many assignments at most: a population, and what it has still to start from."""
_BYTES_OF_A_CODE = 8
"""The most bytes of a code."""
_TRIED_ROWS, _TRIED_BYTES = 12, 4096
"""A place is tried with a file for so many assignments, and so many bytes around them."""


class Unwritable(OSError, ValueError):
    """A place for a checkpoint cannot be written: a full disk, a folder without permission.

    It is a `ValueError` as well, because the argument `file` names the place.
    """


class _Tried(Exception):
    """The trial of a place ends with this exception, so that the file itself stays as it was."""


class Checkpoint:
    """A checkpoint keeps arrays of codes in a file, for one problem only.

    The place is tried when the checkpoint is created, before an optimization has spent hours.

    Args:
        file: The path; None keeps nothing.
        fingerprint: The name of the problem, as `fingerprint` makes it. A file of another
            problem is refused.
        shapes: The arrays, and the shape that each must have.

    Raises:
        ValueError: The folder does not exist, or the path is a folder, a pipe or a device.
        Unwritable: No file can be written there.
    """

    def __init__(
        self,
        file: str | os.PathLike[str] | None,
        fingerprint: str,
        shapes: Mapping[str, Shape],
    ) -> None:
        self._file, self._fingerprint, self._shapes = file, fingerprint, dict(shapes)
        if file is not None:
            _check_kind(pathlib.Path(file))
            self._try_to_write(file)

    def __str__(self) -> str:
        return "no file" if self._file is None else repr(os.fspath(self._file))

    @property
    def keeps(self) -> bool:
        """Return whether there is a path to write to."""
        return self._file is not None

    def exists(self) -> bool:
        """Return whether there is a file to go on from."""
        return self._file is not None and os.path.exists(self._file)

    def write(self, **arrays: Any) -> None:
        """Replace the file by these arrays, whole or not at all; do nothing without a path.

        Raises:
            OSError: The file cannot be written; it is as it was.
        """
        if self._file is None:
            return
        # In memory first: NumPy's writer hides a full disk behind errors of its own.
        content = io.BytesIO()
        codes: dict[str, Any] = {name: _narrow(array) for name, array in arrays.items()}
        np.savez_compressed(content, **{_FINGERPRINT: np.array(self._fingerprint), **codes})
        with replace_file(self._file) as stream:
            stream.write(content.getbuffer())

    def _try_to_write(self, file: str | os.PathLike[str]) -> None:
        """Write a file of the expected size beside the real one, and remove it again.

        Raises:
            Unwritable: That is not possible.
        """
        try:
            with contextlib.suppress(_Tried), replace_file(file) as stream:
                stream.write(bytes(_TRIED_BYTES + self._numbers(_TRIED_ROWS)))
                stream.flush()
                os.fsync(stream.fileno())
                raise _Tried
        except OSError as error:
            raise Unwritable(
                error.errno,
                f"file is {os.fspath(file)!r}, which cannot be written: {error.strerror or error}. "
                "Expected a place for a file. Give another path, or make room",
            ) from error

    def _numbers(self, rows: int) -> int:
        """Return how many codes all arrays have, with so many assignments."""
        shapes = self._shapes.values()
        return sum(math.prod(rows if n is None else n for n in shape) for shape in shapes)

    def read(self) -> dict[str, NDArray[np.int64]]:
        """Return the arrays of the file.

        Raises:
            ValueError: The file is damaged, or of another problem.
        """
        file = self._file or ""
        most_bytes = _BYTES_OF_A_CODE * self._numbers(_MOST_ROWS)
        arrays: dict[str, NDArray[np.int64]] = {}
        try:
            name = str(read_archive(file, {_FINGERPRINT: ()}, most_bytes)[_FINGERPRINT])
            same_problem = name == self._fingerprint
            if same_problem:
                read = read_archive(file, self._shapes, most_bytes)
                arrays = {key: _as_codes(key, array) for key, array in read.items()}
        except Exception as error:  # Damaged archives raise errors of many types.
            raise ValueError(
                f"{os.fspath(file)!r} is not readable as a search's file: {error!r}. Expected one "
                "that a search wrote. Give another path, or delete it to begin anew."
            ) from error
        if not same_problem:
            raise ValueError(
                f"{os.fspath(file)!r} is of another search: other lists, fixed elements, groups "
                "or constraints. Expected the same. Give another path, or the same arguments."
            )
        return arrays


def distinct(rows: Sequence[NDArray[np.int64]]) -> NDArray[np.int64]:
    """Return assignments (count, n) in their order, each once, at most `_MOST_ROWS` of them."""
    different: dict[str, NDArray[np.int64]] = {}
    for row in rows:
        different.setdefault(fingerprint(row), row)
    return np.stack(list(different.values())[:_MOST_ROWS])


def fingerprint(*parts: Any) -> str:
    """Return a name for a problem: the same for the same arrays."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(np.ascontiguousarray(part).tobytes() + repr(np.shape(part)).encode())
    return digest.hexdigest()


def _check_kind(path: pathlib.Path) -> None:
    """Raise a ValueError if a path is none of a file in a folder that exists."""
    if not path.parent.is_dir():
        raise ValueError(
            f"file is {str(path)!r}, and there is no folder {str(path.parent)!r}. Expected a path "
            "in a folder that exists."
        )
    if path.exists() and not path.is_file():
        kind = "a folder" if path.is_dir() else "a pipe, a socket or a device"
        raise ValueError(
            f"file is {str(path)!r}, which is {kind}. Expected a file, or a path where there is "
            "nothing yet."
        )


def _narrow(codes: NDArray[Any]) -> NDArray[Any]:
    """Return codes in the smallest unsigned dtype that holds them."""
    return codes.astype(np.min_scalar_type(int(codes.max(initial=0))))


def _as_codes(name: str, array: NDArray[Any]) -> NDArray[np.int64]:
    if array.dtype.kind not in "iu":
        raise ValueError(f"{name} has numbers of dtype {array.dtype}")
    return array.astype(np.int64)
