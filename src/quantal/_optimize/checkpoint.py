"""A checkpoint is the file from which an optimization goes on."""

import hashlib
import os
import pathlib
import zipfile
import zlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quantal._optimize.budget import Spending
from quantal._storage.atomic import replace_file

Shape = tuple[int | None, ...]
"""The shape that an array must have; None stands for any length."""

_READING_FAILS_WITH = (
    OSError, KeyError, EOFError, ValueError, TypeError, AttributeError,
    zipfile.BadZipFile, zlib.error,
)  # fmt: skip
"""NumPy raises these for archives that are damaged or hold something else."""

_SECONDS_BETWEEN_WRITES = 30.0
"""An optimization that is killed loses the improvements of so many seconds at most."""


class Checkpoint:
    """A checkpoint keeps arrays in a file, for one problem only.

    Args:
        file: The path; None keeps nothing.
        fingerprint: The name of the problem, as `fingerprint` makes it. A file of another
            problem is refused.
        shapes: The arrays, and the shape that each must have.

    Raises:
        ValueError: The folder does not exist.
    """

    def __init__(
        self,
        file: str | os.PathLike[str] | None,
        fingerprint: str,
        shapes: Mapping[str, Shape],
    ) -> None:
        _check_folder(file)
        self._file, self._fingerprint, self._shapes = file, fingerprint, dict(shapes)

    def exists(self) -> bool:
        """Return whether there is a file to go on from."""
        return self._file is not None and os.path.exists(self._file)

    def write(self, **arrays: Any) -> None:
        """Replace the file by these arrays, whole or not at all; do nothing without a path."""
        if self._file is None:
            return
        with replace_file(self._file) as stream:
            np.savez_compressed(stream, fingerprint=np.array(self._fingerprint), **arrays)

    def write_regularly(self, spending: Spending, save: Callable[[], None]) -> None:
        """Call `save` from time to time, while a budget is being spent.

        Args:
            spending: The budget; `save` may be called whenever a method asks what is left.
            save: Calls `write` with the current arrays.
        """
        if self._file is None:
            return
        last = spending.seconds

        def save_if_due() -> None:
            nonlocal last
            if spending.seconds - last >= _SECONDS_BETWEEN_WRITES:
                save()
                last = spending.seconds

        spending.watch(save_if_due)

    def read(self) -> dict[str, NDArray[Any]]:
        """Return the arrays of the file.

        Raises:
            ValueError: The file is damaged, or of another problem.
        """
        file = self._file or ""
        try:
            with open(file, "rb") as stream, np.load(stream, allow_pickle=False) as archive:
                arrays = {key: archive[key] for key in ("fingerprint", *self._shapes)}
            same_problem = str(arrays["fingerprint"]) == self._fingerprint
            for key, shape in self._shapes.items():
                if same_problem and not _fits(arrays[key].shape, shape):
                    raise KeyError(key)
        except _READING_FAILS_WITH as error:
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


def fingerprint(*parts: Any) -> str:
    """Return a name for a problem: the same for the same arrays."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(np.ascontiguousarray(part).tobytes() + repr(np.shape(part)).encode())
    return digest.hexdigest()


def _check_folder(file: str | os.PathLike[str] | None) -> None:
    """Raise a ValueError if the folder of a file does not exist."""
    folder = pathlib.Path(file or ".").parent
    if not folder.is_dir():
        raise ValueError(
            f"file is {os.fspath(file or '')!r}, and there is no folder {str(folder)!r}. Expected "
            "a path in a folder that exists."
        )


def _fits(shape: tuple[int, ...], expected: Shape) -> bool:
    return len(shape) == len(expected) and all(
        length in (None, actual) for length, actual in zip(expected, shape, strict=True)
    )
