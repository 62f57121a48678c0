"""Named arrays and metadata in one safetensors file, with a digest of each.

Any safetensors tool reads these files, and may write them again: the order of the
arrays and the padding do not matter, as long as it keeps the metadata.

Source of the format: https://github.com/huggingface/safetensors#format
"""

import hashlib
import json
import os
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
_UNREADABLE = (
    SafetensorError, ValueError, TypeError, KeyError, AttributeError, RecursionError,
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
        metadata: Anything that JSON can hold; `digest` and `digests` are replaced.

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
    digests = {name: _digest_of_array(name, array) for name, array in contiguous.items()}
    content = {**metadata, "digests": digests}
    content.pop("digest", None)
    data = save(contiguous, {KEY: _json({**content, "digest": _digest_of_json(content)})})
    with replace_file(path) as file:
        file.write(data)
    return len(data)


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
    try:
        with safe_open(path, framework="np") as file:
            # Of a name that is there twice, another reader may take the other entry.
            with open(path, "rb") as header:
                length = int.from_bytes(header.read(LENGTH_BYTES), "little")
                _parsed(header.read(length))
            part = "the metadata"
            metadata = _parsed((file.metadata() or {})[KEY])
            if metadata.pop("digest") != _digest_of_json(metadata):
                raise ValueError("its digest differs")
            digests = dict(metadata.pop("digests"))
            for name in sorted(digests.keys() ^ set(file.keys())):
                part = f"the array {name!r}"
                raise ValueError("it is missing" if name in digests else "it was added")
            arrays = {}
            for name, digest in digests.items():
                part = f"the array {name!r}"
                arrays[name] = file.get_tensor(name)
                if _digest_of_array(name, arrays[name]) != digest:
                    raise ValueError("its digest differs")
    except _UNREADABLE as error:
        raise refusal(path, part, error) from error
    return Contents(arrays, metadata)


def refusal(path: str | os.PathLike[str], part: str, problem: Exception | str) -> ValueError:
    """Return the error for a file with a part that `write` cannot have written."""
    if isinstance(problem, Exception):
        problem = f"{type(problem).__name__}: {problem}"
    return ValueError(
        f"{os.fspath(path)}: {part} is not readable: {problem}. Expected a whole file as "
        "quantal.save writes it. Take an unchanged copy, or save the model again."
    )


def _digest_of_array(name: str, array: NDArray[Any]) -> str:
    """Return the digest of an array's name, dtype, shape and bytes."""
    digest = hashlib.blake2b(digest_size=DIGEST_BYTES)
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
