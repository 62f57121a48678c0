"""Named arrays and metadata in one safetensors file, as compact as their names allow.

All arrays of a dtype stand one after another in one tensor, which is named for the dtype; the
tensor `contents` holds the arrays' names and shapes and the metadata, as deflated JSON. So each
name is written once and compressed, where a header of safetensors takes a hundred bytes for each
array. Each tensor has a digest.

Any safetensors tool reads these files, and may write them again: the order of the tensors and the
padding do not matter, as long as it keeps the metadata.

Source of the format: https://github.com/huggingface/safetensors#format
"""

import hashlib
import json
import math
import os
import stat
import zlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from quantal._storage.atomic import replace_file

KEY = "quantal"
"""The one key of the file's metadata: safetensors writes several in any order."""
DIGEST_BYTES = 8
"""A digest guards against damage, which 64 bits miss once in 2^64 files."""
LENGTH_BYTES = 8
"""A safetensors file starts with the length of its header."""
_DTYPES = {
    "bool", "uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64",
    "float16", "float32", "float64",
}  # fmt: skip
CONTENTS = "contents"
"""The name of the tensor that says what the others hold."""
_LONGEST_HEADER = 2**20
"""The most bytes of a file's header: it names a tensor for each dtype, and what tools add."""
_BEGINNINGS_OF_KERAS = (b"PK\x03\x04", b"\x89HDF")
"""Zip archives, such as `.keras`, and HDF5 files begin so. As lengths of headers they are longer
than any."""
_DIMENSIONS = 32
"""The most dimensions of an array: so many has every NumPy."""
_UNREADABLE = (
    SafetensorError, ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError,
    OverflowError, zlib.error,
)  # fmt: skip
"""What damaged files raise; AttributeError stands for a dtype that NumPy lacks."""


class Contents(NamedTuple):
    """The contents of a file are its arrays by name, and its metadata."""

    arrays: dict[str, NDArray[Any]]
    metadata: dict[str, Any]


def write(
    path: str | os.PathLike[str], arrays: Mapping[str, NDArray[Any]], metadata: Mapping[str, Any]
) -> int:
    """Write arrays and metadata to a file and return its size in bytes.

    The same arrays and metadata give the same bytes.

    Args:
        path: The file; its folder exists.
        arrays: Booleans, integers and floating-point numbers, by name.
        metadata: Anything that JSON can hold.

    Raises:
        TypeError: An array has a dtype that the format lacks.
    """
    data = encoded(arrays, metadata)
    with replace_file(path) as file:
        file.write(data)
    return len(data)


def encoded(arrays: Mapping[str, NDArray[Any]], metadata: Mapping[str, Any]) -> bytes:
    """Return the bytes of the file that `write` writes.

    Raises:
        TypeError: An array has a dtype that the format lacks.
    """
    # NumPy makes zero-dimensional arrays one-dimensional here.
    contiguous = {
        name: np.ascontiguousarray(array, array.dtype.newbyteorder("<")).reshape(array.shape)
        for name, array in arrays.items()
    }
    for name, array in contiguous.items():
        if array.dtype.name not in _DTYPES:
            raise TypeError(
                f"The array {name!r} has the dtype {array.dtype}. Expected one of "
                f"{', '.join(sorted(_DTYPES))}. Convert it."
            )
    return with_digests(_packed(contiguous, metadata))


def sizes_of(arrays: Mapping[str, NDArray[Any]]) -> dict[str, int]:
    """Return the bytes that each array takes in a file, by its name.

    An array that is the same as an earlier one, such as a list that all weights are on, takes none.
    """
    seen: set[str] = set()
    sizes: dict[str, int] = {}
    for name, array in arrays.items():
        digest = _digest_of_array("", np.ascontiguousarray(array), 16)
        sizes[name] = 0 if digest in seen else array.nbytes
        seen.add(digest)
    return sizes


def with_digests(tensors: Mapping[str, NDArray[Any]]) -> bytes:
    """Return the bytes of a safetensors file of some tensors and their digests."""
    digests = {name: _digest_of_array(name, tensor) for name, tensor in tensors.items()}
    digest = _digest_of_json({"digests": digests})
    return bytes(save(dict(tensors), {KEY: _json({"digests": digests, "digest": digest})}))


def read(path: str | os.PathLike[str]) -> Contents:
    """Read a file that `write` wrote, or another safetensors writer wrote again.

    Every size is checked before memory is taken for it, and every array against its
    digest.

    Raises:
        ValueError: The file is another one or was changed. The message names the file
            and what in it differs.
        OSError: The file cannot be opened.
    """
    part = "the header"
    _check_file(path)
    try:
        with safe_open(path, framework="np") as file:
            # Of a name that is there twice, another reader may take the other entry.
            with open(path, "rb") as header:
                length = int.from_bytes(header.read(LENGTH_BYTES), "little")
                _parsed(header.read(length))
            part = "the metadata"
            about = _parsed((file.metadata() or {})[KEY])
            if about.pop("digest") != _digest_of_json(about):
                raise ValueError("its digest differs")
            digests = dict(about["digests"])
            for name in sorted(digests.keys() ^ set(file.keys())):
                part = f"the tensor {name!r}"
                raise ValueError("it is missing" if name in digests else "it was added")
            tensors = {}
            for name, digest in digests.items():
                part = f"the tensor {name!r}"
                tensors[name] = file.get_tensor(name)
                if _digest_of_array(name, tensors[name]) != digest:
                    raise ValueError("its digest differs")
        part = "the table of contents"
        return _unpacked(tensors)
    except _UNREADABLE as error:
        raise refusal(path, part, error) from error


def inflated(data: NDArray[np.uint8], most: int) -> bytes:
    """Return what a zlib stream holds.

    Args:
        data: The stream, uint8 of shape (bytes,).
        most: How many bytes it may hold.

    Raises:
        ValueError: It holds more, or is cut.
        zlib.error: It is damaged.
    """
    inflater = zlib.decompressobj()
    text = inflater.decompress(data.tobytes(), most)
    if not inflater.eof or inflater.unused_data:
        raise ValueError(f"it is cut, or holds more than {most} bytes")
    return text


def most_json(stored_bytes: int) -> int:
    """Return how many bytes of JSON a file of so many bytes may hold.

    Objects of Python take up to 25 times the memory of their JSON.
    """
    return 2**21 + 32 * stored_bytes


def loaded_json(text: bytes, stored_bytes: int) -> Any:
    """Return what JSON stands for, if it has not too many parts.

    Raises:
        ValueError: It has more than a file of so many bytes explains, or is no JSON.
    """
    parts = sum(text.count(sign) for sign in (b",", b"[", b"{"))
    most = 2**19 + 4 * stored_bytes
    if parts > most:
        raise ValueError(f"it has {parts} parts, more than {most}")
    return _parsed(text)


def _packed(
    arrays: Mapping[str, NDArray[Any]], metadata: Mapping[str, Any]
) -> dict[str, NDArray[Any]]:
    """Return one tensor for each dtype of some arrays, and the table of contents."""
    names_of_dtype: dict[str, list[str]] = {}
    for name, array in arrays.items():
        names_of_dtype.setdefault(array.dtype.name, []).append(name)
    tensors: dict[str, NDArray[Any]] = {}
    table: dict[str, list[Any]] = {}
    for dtype, names in sorted(names_of_dtype.items()):
        index_of_content: dict[str, int] = {}
        parts = [np.zeros(0, dtype)]
        entries: list[list[Any]] = []
        for index, name in enumerate(names):
            array = arrays[name]
            first = index_of_content.setdefault(_digest_of_array("", array, 16), index)
            if first == index:
                parts.append(array.reshape(-1))
                entries.append([name, list(array.shape)])
            else:
                # The same as an earlier one, such as a list that all weights are on.
                entries.append([name, first])
        tensors[dtype], table[dtype] = np.concatenate(parts), entries
    contents = _json({"arrays": table, "metadata": dict(metadata)})
    return {CONTENTS: np.frombuffer(zlib.compress(contents.encode(), 9), np.uint8), **tensors}


def _unpacked(tensors: Mapping[str, NDArray[Any]]) -> Contents:
    """Return the arrays and the metadata of tensors that `_packed` returned."""
    size = sum(tensor.nbytes for tensor in tensors.values())
    contents = loaded_json(inflated(tensors[CONTENTS], most_json(size)), size)
    arrays: dict[str, NDArray[Any]] = {}
    if contents["arrays"].keys() != tensors.keys() - {CONTENTS}:
        raise ValueError("it names other tensors")
    for dtype, entries in contents["arrays"].items():
        start = 0
        arrays_of_dtype: list[NDArray[Any]] = []
        for name, shape in entries:
            if isinstance(shape, list):
                count = math.prod(_checked_shape(shape))
                array = tensors[dtype][start : start + count].reshape(shape)
                start += count
            else:
                array = arrays_of_dtype[shape]
            arrays_of_dtype.append(array)
            if not isinstance(name, str) or name in arrays:
                raise ValueError(f"the name {name!r} twice, or none")
            arrays[name] = array
        if tensors[dtype].ndim != 1 or start != tensors[dtype].size:
            raise ValueError(f"{start} numbers for {tensors[dtype].size} of {dtype!r}")
    metadata = contents["metadata"]
    if not isinstance(metadata, dict):
        raise TypeError("the metadata is no object")
    return Contents(arrays, metadata)


def _checked_shape(shape: list[Any]) -> list[int]:
    """Return a shape if it is one of an array."""
    if len(shape) > _DIMENSIONS or not all(type(n) is int and n >= 0 for n in shape):
        raise ValueError(f"the shape {str(shape)[:99]}")
    return shape


def _check_file(path: str | os.PathLike[str]) -> None:
    """Refuse what is no file, or begins with the size of a header that none has.

    Opening a pipe would wait for a writer.
    """
    if not stat.S_ISREG(os.stat(path).st_mode):
        kind = "a folder" if os.path.isdir(path) else "a device, a pipe or a socket"
        raise refusal(path, "it", f"it is {kind}")
    with open(path, "rb") as file:
        begin = file.read(LENGTH_BYTES)
    if begin.startswith(_BEGINNINGS_OF_KERAS):
        raise ValueError(
            f"{os.fspath(path)}: it is not readable: it is a file of Keras, or another archive. "
            "Expected a file as quantal.save writes it. Load what model.save wrote with "
            "keras.saving.load_model, after import quantal."
        )
    length = int.from_bytes(begin, "little")
    if length > _LONGEST_HEADER:
        raise refusal(path, "the header", f"its size is {length} bytes")


def refusal(path: str | os.PathLike[str], part: str, problem: Exception | str) -> ValueError:
    """Return the error for a file with a part that `write` cannot have written."""
    if isinstance(problem, Exception):
        problem = f"{type(problem).__name__}: {problem}"
    return ValueError(
        f"{os.fspath(path)}: {part} is not readable: {problem}. Expected a whole file as "
        "quantal.save writes it. Take an unchanged copy, or save the model again."
    )


def _digest_of_array(name: str, array: NDArray[Any], size: int = DIGEST_BYTES) -> str:
    """Return the digest of an array's name, dtype, shape and bytes, of so many bytes."""
    digest = hashlib.blake2b(digest_size=size)
    digest.update(_json([name, array.dtype.name, list(array.shape)]).encode())
    digest.update(array.reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


def _digest_of_json(content: Any) -> str:
    return hashlib.blake2b(_json(content).encode(), digest_size=DIGEST_BYTES).hexdigest()


def _parsed(text: str | bytes) -> Any:
    """Return the content of a JSON text in which no object has a name twice."""

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        content: dict[str, Any] = {}
        for name, value in pairs:
            if name in content:
                raise ValueError(f"the name {name!r} is there twice")
            content[name] = value
        return content

    return json.loads(text, object_pairs_hook=unique)


def _json(content: Any) -> str:
    """Return the one JSON text of some content: without spaces, keys sorted, ASCII."""
    return json.dumps(content, separators=(",", ":"), sort_keys=True)
