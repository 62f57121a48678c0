"""A parameter as inference needs it: packed codes, list and scale, as arrays."""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from keras import ops
from numpy.typing import NDArray

from quantal._core.parameter import Parameter
from quantal._storage.packing import Packed, pack, unpack


class Stored(NamedTuple):
    """The arrays of a parameter, by what they are: `codes`, `values` and maybe `scale`.

    Attributes:
        arrays: `codes` uint8, `values` float32, `scale` float32 where there is one.
        coded: How the codes are packed; see `quantal._storage.packing.Packed`.
    """

    arrays: dict[str, NDArray[Any]]
    coded: bool


def stored(parameter: Parameter) -> Stored:
    """A parameter's arrays."""
    values = parameter.values
    packed = pack(ops.convert_to_numpy(parameter.codes), len(values))
    arrays: dict[str, NDArray[Any]] = {
        "codes": np.frombuffer(packed.data, np.uint8),
        "values": np.asarray(values.numbers, np.float32),
    }
    if parameter.scale is not None:
        arrays["scale"] = np.asarray(ops.convert_to_numpy(parameter.scale), np.float32)
    return Stored(arrays, packed.coded)


def restore(parameter: Parameter, arrays: Mapping[str, NDArray[Any]], coded: bool) -> None:
    """Set a parameter from its arrays; each latent moves onto its value.

    Raises:
        KeyError: An array is missing.
        ValueError: They are not of such a parameter.
    """
    values = arrays["values"]
    if values.shape != parameter.values.numbers.shape:
        raise ValueError(f"the list's shape {values.shape}")
    if not np.isfinite(values).all():
        raise ValueError("a list with numbers that are not finite")
    if parameter.entries is not None:
        parameter.set_values(values)
    if not np.array_equal(parameter.values.numbers, values):
        raise ValueError(f"the list {values.tolist()[:9]}, another than the architecture's")
    if parameter.scale_state is not None:
        scale = arrays["scale"]
        if scale.shape != tuple(parameter.scale_state.start.shape):
            raise ValueError(f"the scale's shape {scale.shape}")
        if not (np.isfinite(scale) & (scale > 0)).all():
            raise ValueError("a scale that is not positive")
        parameter.scale_state.begin(scale)
    length = math.prod(parameter.shape)
    codes = unpack(Packed(arrays["codes"].tobytes(), len(parameter.values), length, coded))
    parameter.set_codes(codes.reshape(parameter.shape).astype(np.int32))
