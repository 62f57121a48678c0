"""NumPy archives are read within limits: what is expected is known before."""

import io
import math
import os
import stat
import zipfile
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

Shape = tuple[int | None, ...]
"""The shape that an array must have; None stands for any length."""

_BYTES_AROUND = 65536
"""An archive has at most so many bytes besides the numbers of its arrays."""
_LARGEST_FILE = 2**26
"""Larger files are read only if so many numbers are expected: the list of an archive's members,
which may take all of a file, is read as a whole."""
_COMPRESSIONS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
"""NumPy writes these; others may ask for any amount of memory to be unpacked."""
_HEADERS = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}


def read_archive(
    path: str | os.PathLike[str], shapes: Mapping[str, Shape], most_bytes: int
) -> dict[str, NDArray[Any]]:
    """Read some arrays of a file that `numpy.savez` or `savez_compressed` wrote.

    No size that the file claims is believed: memory is taken for what is expected and not more.

    Args:
        path: The file.
        shapes: The arrays to read, with their shapes.
        most_bytes: The most bytes that the numbers of all arrays may have.

    Raises:
        OSError: The file cannot be opened.
        Exception: The file is no such archive, an array is missing, has another shape or too many
            numbers; errors of many types, as damaged files raise them.
    """
    limit = most_bytes + _BYTES_AROUND
    with open(path, "rb", opener=_open_at_once) as stream:
        status = os.fstat(stream.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise ValueError("it is no regular file")
        if status.st_size > max(limit, _LARGEST_FILE):
            raise ValueError(f"it has {status.st_size:,} bytes, more than {limit:,}")
        with zipfile.ZipFile(stream) as archive:
            return {name: _array(archive, name, shape, limit) for name, shape in shapes.items()}


def _open_at_once(path: str, flags: int) -> int:
    """Open a file; a pipe that nobody writes to would wait for ever."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def _array(archive: zipfile.ZipFile, name: str, expected: Shape, limit: int) -> NDArray[Any]:
    member = archive.getinfo(f"{name}.npy")
    if member.file_size > limit or member.compress_type not in _COMPRESSIONS:
        raise ValueError(f"{name} has {member.file_size:,} bytes, or is packed in another way")
    content = io.BytesIO(archive.read(member))
    header = _HEADERS[npy.read_magic(content)]
    shape, is_fortran, dtype = header(content)
    if len(shape) != len(expected) or any(
        length < 0 or wanted not in (None, length)
        for length, wanted in zip(shape, expected, strict=True)
    ):
        raise ValueError(f"{name} has the shape {shape}")
    numbers = content.read()
    if dtype.hasobject or math.prod(shape) * dtype.itemsize != len(numbers):
        raise ValueError(f"{name} has {len(numbers):,} bytes for the shape {shape}, {dtype}")
    return np.frombuffer(numbers, dtype).reshape(shape, order="F" if is_fortran else "C")
