"""The list of weights in a saved file: what it says is checked before memory is taken for it."""

import math
import os
from collections.abc import Mapping
from typing import Any

from numpy.typing import NDArray

from quantal._storage import container
from quantal._storage.packing import most_codes

VERSION = 1
"""The version of the format, which docs/format.md describes."""
MOST_OF_ONE = 2**20
"""The most elements of a weight on a list of one value, which takes no bytes."""


def checked_entries(
    path: str | os.PathLike[str], metadata: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """Return the entries of the weights, each of which has a name.

    Their shapes are compared with the model's later.

    Raises:
        ValueError: The file is of another version, or its list of weights is none.
    """
    entries = metadata.get("weights")
    if metadata.get("format") != VERSION or not isinstance(entries, list):
        raise container.refusal(path, "the format", f"version {metadata.get('format')!r}")
    for entry in entries:
        if not isinstance(entry, dict) or not isinstance(entry.get("name"), str):
            raise container.refusal(path, "the list of weights", f"{entry!r}")
    return entries


def claimed(entry: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> int:
    """Return how many numbers a weight has, if its arrays are large enough for so many.

    Raises:
        KeyError: They are missing.
        TypeError: The entry is no weight's.
        ValueError: They are too small.
    """
    name = entry["name"]
    if "base" not in entry:
        return arrays[name].size
    shape, base = entry["shape"], entry["base"]
    if not all(type(number) is int and number >= 0 for number in [*shape, base]):
        raise ValueError(f"the shape {shape} and a list of {base}")
    count, stored = math.prod(shape), arrays[f"{name}.codes"].nbytes
    most = MOST_OF_ONE if base == 1 else most_codes(base, stored, entry["packing"] == "coded")
    if count > most:
        raise ValueError(f"{count} codes in {stored} bytes, which hold {most}")
    return count


def checked_sum(
    path: str | os.PathLike[str],
    entries: list[dict[str, Any]],
    arrays: Mapping[str, NDArray[Any]],
) -> int:
    """Return how many numbers all weights have together.

    Raises:
        ValueError: The arrays of a weight are missing or too small; the message names it.
    """
    numbers = 0
    for entry in entries:
        try:
            numbers += claimed(entry, arrays)
        except (KeyError, TypeError, ValueError) as error:
            raise container.refusal(path, repr(entry["name"]), error) from error
    return numbers
