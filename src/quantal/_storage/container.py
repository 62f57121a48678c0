"""Named arrays in one file, in the safetensors format, with checksums.

Any safetensors reader opens these files. A file is written beside its place and moved
there when it is whole; a file that is not whole is refused by name.

Source of the format: https://github.com/huggingface/safetensors#format
"""

import json
import math
import os
import zlib
from collections.abc import Mapping
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from quantal._storage.atomic import replace_file

LONGEST_HEADER = 100_000_000
"""Bytes; safetensors' own limit."""
_DTYPES = {
    "BOOL": "?", "U8": "u1", "I8": "i1", "U16": "<u2", "I16": "<i2", "U32": "<u4", "I32": "<i4",
    "U64": "<u8", "I64": "<i8", "F16": "<f2", "F32": "<f4", "F64": "<f8",
}  # fmt: skip
_NAMES = {np.dtype(code): name for name, code in _DTYPES.items()}
_CHECKSUM = "00000000"


class Contents(NamedTuple):
    """What a file holds: its arrays by name, and what its writer says of them."""

    arrays: dict[str, NDArray[Any]]
    about: dict[str, Any]


def write(
    path: str | os.PathLike[str], arrays: Mapping[str, NDArray[Any]], about: Mapping[str, Any]
) -> int:
    """Write arrays to a file, in the order given; the file's size in bytes.

    The same arrays give the same bytes.

    Args:
        path: The file; its folder exists.
        arrays: By name; booleans, integers and floating-point numbers.
        about: What JSON can hold, to be read again as it is.

    Raises:
        TypeError: An array has a dtype that the format lacks.
    """
    header: dict[str, Any] = {}
    parts, checksums, end = [], {}, 0
    for name, array in arrays.items():
        code = _NAMES.get(
            array.dtype.newbyteorder("<") if array.dtype.itemsize > 1 else array.dtype
        )
        if code is None:
            raise TypeError(
                f"The array {name!r} has the dtype {array.dtype}. Expected one of "
                f"{', '.join(map(str, _NAMES))}. Convert it."
            )
        part = np.ascontiguousarray(array, _DTYPES[code]).tobytes()
        parts.append(part)
        checksums[name] = f"{zlib.crc32(part):08x}"
        header[name] = {
            "dtype": code,
            "shape": list(array.shape),
            "data_offsets": [end, end + len(part)],
        }
        end += len(part)
    told = json.dumps({**about, "checksums": checksums}, separators=(",", ":"))
    header = {"__metadata__": {"quantal": told, "checksum": _CHECKSUM}, **header}
    text = json.dumps(header, separators=(",", ":")).encode()
    # The data begins at a multiple of eight, for readers that map it into memory.
    text += b" " * (-len(text) % 8)
    own = f'"checksum":"{_CHECKSUM}"'.encode()
    text = text.replace(own, f'"checksum":"{zlib.crc32(text):08x}"'.encode(), 1)
    with replace_file(path) as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for part in parts:
            file.write(part)
    return 8 + len(text) + end


def read(path: str | os.PathLike[str]) -> Contents:
    """Read a file that `write` made.

    Every size is checked before memory is taken for it, and every byte against its
    checksum.

    Raises:
        ValueError: The file is another, or was changed; it names the file and the place.
        OSError: The file cannot be opened.
    """
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        header, about, start = _header(path, file, size)
        body = file.read(size - start)
    arrays: dict[str, NDArray[Any]] = {}
    end = 0
    for name, entry in header.items():
        dtype, shape, begin, stop = _entry(path, name, entry)
        if begin != end or stop > len(body):
            raise refused(path, f"the place of {name!r}", f"{begin} to {stop} after {end}")
        end = stop
        if math.prod(shape) * dtype.itemsize != stop - begin:
            raise refused(path, f"the size of {name!r}", f"{shape} in {stop - begin} bytes")
        part = memoryview(body)[begin:stop]
        if f"{zlib.crc32(part):08x}" != about["checksums"].get(name):
            raise refused(path, f"the bytes of {name!r}", "a wrong checksum")
        arrays[name] = np.frombuffer(part, dtype).reshape(shape)
    if end != len(body):
        raise refused(path, "the end", f"{len(body) - end} bytes more")
    return Contents(arrays, about)


def refused(path: str | os.PathLike[str], place: str, found: str) -> ValueError:
    """What to raise for a file that is not as `write` makes them."""
    return ValueError(
        f"{os.fspath(path)}: {place} is not readable: {found}. Expected a whole file as "
        "quantal.save writes it. Take an unchanged copy, or save the model again."
    )


def _header(
    path: str | os.PathLike[str], file: BinaryIO, size: int
) -> tuple[dict[str, Any], dict[str, Any], int]:
    """The arrays' entries, what the writer says, and where the data begins."""
    length = int.from_bytes(file.read(8), "little")
    if size < 10 or length > min(LONGEST_HEADER, size - 8):
        raise refused(path, "the header", f"it claims {length} of {size} bytes")
    text = file.read(length)
    try:
        header = json.loads(text.decode(), object_pairs_hook=_once)
        metadata = header.pop("__metadata__")
        about = json.loads(metadata["quantal"], object_pairs_hook=_once)
        checksum = str(metadata["checksum"])
        checked = isinstance(about["checksums"], dict)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise refused(path, "the header", f"{type(error).__name__}: {error}") from None
    own = f'"checksum":"{checksum}"'.encode()
    blank = text.replace(own, f'"checksum":"{_CHECKSUM}"'.encode(), 1)
    if not checked or len(checksum) != 8 or f"{zlib.crc32(blank):08x}" != checksum:
        raise refused(path, "the header", "a wrong checksum")
    return header, about, 8 + length


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        raise ValueError("a name stands there twice")
    return made


def _entry(
    path: str | os.PathLike[str], name: str, entry: Any
) -> tuple[np.dtype[Any], tuple[int, ...], int, int]:
    try:
        dtype = np.dtype(_DTYPES[entry["dtype"]])
        shape, (begin, stop) = tuple(entry["shape"]), entry["data_offsets"]
        numbers = (*shape, begin, stop)
    except (KeyError, TypeError, ValueError) as error:
        raise refused(path, f"the entry of {name!r}", f"{type(error).__name__}: {error}") from None
    if not all(type(n) is int and 0 <= n < 2**60 for n in numbers) or len(shape) > 32:
        raise refused(path, f"the entry of {name!r}", f"{numbers}")
    return dtype, shape, begin, stop
