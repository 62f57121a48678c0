"""The weights of a file in their order, each unpacked when a layer takes it."""

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from quantal._core.numbers.scale_blocks import fits, spread
from quantal._storage import container
from quantal._storage.codes import Packed
from quantal._storage.entries import checked_entries, checked_sum
from quantal._storage.packing import unpack

Floats = NDArray[np.float32]


class Listed(NamedTuple):
    """A listed weight is `lists[output, codes[..., output]] * scale[output]`.

    Attributes:
        codes: Of the weight's shape; the outputs are its last axis.
        lists: Float32 of shape (1, K), or (outputs, K).
        scale: Float32 of shape (outputs,).
    """

    codes: NDArray[np.unsignedinteger]
    lists: Floats
    scale: Floats


class Stored(NamedTuple):
    """A stored weight is what the file has of one weight.

    Attributes:
        name: Its path in the model.
        shape: Its shape.
        numbers: Its numbers, where it is on no list.
        codes: The positions of its values in the list, where it is on one.
        values: The list, float32 of shape (K,) or (channels, K).
        scale: A factor on the values, of a shape that broadcasts; or None.
        axis: The axis along which each channel has a list, if each has one.
    """

    name: str
    shape: tuple[int, ...]
    numbers: NDArray[Any] | None = None
    codes: NDArray[np.unsignedinteger] | None = None
    values: Floats | None = None
    scale: Floats | None = None
    axis: int | None = None

    def floats(self) -> Floats:
        """Return the numbers that the model computes with."""
        if self.codes is None or self.values is None:
            return np.asarray(self.numbers, np.float32)
        if self.axis is None:
            listed = self.values[self.codes]
        else:
            codes = np.moveaxis(self.codes, self.axis, 0).reshape(len(self.values), -1)
            rows = np.take_along_axis(self.values, codes.astype(np.intp), axis=1)
            shape = np.moveaxis(self.codes, self.axis, 0).shape
            listed = np.moveaxis(rows.reshape(shape), 0, self.axis)
        return listed if self.scale is None else listed * self.scale

    def listed(self) -> Listed | None:
        """Return the weight on lists, if each output has one list and one scale; else None."""
        if self.codes is None or self.values is None:
            return None
        rank, scale = len(self.shape), np.float32(1) if self.scale is None else self.scale
        if np.ndim(scale) and math.prod(np.shape(scale)) != np.shape(scale)[-1]:
            return None
        if self.axis is not None and self.axis % rank != rank - 1:
            return None
        scales = np.broadcast_to(np.reshape(scale, -1), (self.shape[-1],)).astype(np.float32)
        return Listed(self.codes, np.atleast_2d(self.values), scales)

    def split(self, count: int) -> list["Stored"]:
        """Return so many equal parts of the last axis."""
        listed = self.listed()
        if listed is None:
            parts = np.split(self.floats(), count, axis=-1)
            return [Stored(self.name, part.shape, part) for part in parts]
        per_output = len(listed.lists) > 1
        lists = np.split(listed.lists, count) if per_output else [listed.lists[0]] * count
        axis = len(self.shape) - 1 if per_output else None
        return [
            Stored(self.name, codes.shape, None, codes, values, scale, axis)
            for codes, values, scale in zip(
                np.split(listed.codes, count, axis=-1),
                lists,
                np.split(listed.scale, count),
                strict=True,
            )
        ]


class StoredWeights:
    """The weights of a file are taken in their order, which is that of the model's layers.

    Args:
        path: The file, for messages.
        arrays: Its arrays.
        metadata: What it says of them.

    Attributes:
        count: How many weights the file has.

    Raises:
        ValueError: The list of weights, or the size of one, cannot be.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        arrays: Mapping[str, NDArray[Any]],
        metadata: Mapping[str, Any],
    ) -> None:
        self._path, self._arrays = path, arrays
        entries = checked_entries(path, metadata)
        checked_sum(path, entries, arrays)
        self.count = len(entries)
        self._entries: Iterator[dict[str, Any]] = iter(entries)

    def take(self, layer: str, names: Sequence[str]) -> list[Stored]:
        """Return the next weights, which are those of a layer.

        Args:
            layer: The layer's name, for messages.
            names: The names of its weights, in their order.

        Raises:
            ValueError: The file has others, or damaged ones.
        """
        stored = []
        for name in names:
            entry = next(self._entries, None)
            if entry is None or _last_part(entry["name"]) != name:
                path = None if entry is None else entry["name"]
                problem = f"{path!r} where the layer {layer!r} has {name!r}"
                raise container.refusal(self._path, "the list of weights", problem)
            stored.append(self._weight(entry))
        return stored

    def take_named(self, layer: str, names: Sequence[str]) -> dict[str, Stored]:
        """Return the next weights by their names, in whichever order the file has them.

        Args:
            layer: The layer's name, for messages.
            names: The names of its weights.

        Raises:
            ValueError: The file has others, or damaged ones.
        """
        expected = set(names)
        stored: dict[str, Stored] = {}
        for _ in names:
            entry = next(self._entries, None)
            path = None if entry is None else entry["name"]
            if entry is None or _last_part(entry["name"]) not in expected - set(stored):
                problem = f"{path!r} where the layer {layer!r} has {', '.join(sorted(expected))}"
                raise container.refusal(self._path, "the list of weights", problem)
            stored[_last_part(entry["name"])] = self._weight(entry)
        return stored

    def check_end(self) -> None:
        """Refuse a file with weights that no layer took."""
        entry = next(self._entries, None)
        if entry is not None:
            problem = f"{entry['name']!r} is of no layer"
            raise container.refusal(self._path, "the list of weights", problem)

    def _weight(self, entry: Mapping[str, Any]) -> Stored:
        name = entry["name"]
        try:
            if "base" in entry:
                return self._listed(entry)
            numbers = self._arrays[name]
            return Stored(name, numbers.shape, numbers)
        except (KeyError, TypeError, ValueError) as error:
            raise container.refusal(self._path, repr(name), error) from error

    def _listed(self, entry: Mapping[str, Any]) -> Stored:
        """Return a weight on a list; errors say what of it cannot be."""
        name, shape, base, axis = entry["name"], entry["shape"], entry["base"], entry.get("axis")
        data = np.ascontiguousarray(self._arrays[f"{name}.codes"], np.uint8).tobytes()
        packed = Packed(data, base, math.prod(shape), entry["packing"] == "coded")
        codes = unpack(packed).reshape(shape)
        values = self._arrays[f"{name}.values"]
        scale = self._arrays.get(f"{name}.scale")
        expected = (base,) if axis is None else (shape[axis], base)
        if values.shape != expected or not np.isfinite(values).all():
            raise ValueError(f"a list of the shape {values.shape}, not {expected} finite numbers")
        if scale is not None and not fits(scale.shape, shape):
            raise ValueError(f"a scale of the shape {scale.shape} for {shape}")
        if scale is not None and not (np.isfinite(scale) & (scale > 0)).all():
            raise ValueError("a scale that is not positive")
        scale = None if scale is None else spread(scale, shape)
        return Stored(name, tuple(shape), None, codes, values, scale, axis)


def _last_part(path: str) -> str:
    """Return the name at the end of a weight's path, without the number of a second one."""
    return path.rsplit("/", 1)[-1].split("#")[0]
