"""A parameter as inference needs it: packed codes, list and scale."""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from quantal._core.parameter import Parameter
from quantal._core.scale_state import ScaleState
from quantal._core.tensors.distributed import whole_array
from quantal._storage.codes import Packed
from quantal._storage.packing import pack, unpack


class Record(NamedTuple):
    """A record holds the arrays of a parameter, and how its codes are packed.

    Attributes:
        codes: Packed codes, uint8 of shape (bytes,).
        values: The list in the order of the codes, float32 of shape (K,) or
            (channels, K).
        scale: A factor on the values, float32 of a shape that broadcasts, or with one number for
            each block of elements (`quantal._core.numbers.scale_blocks`); or None.
        coded: Whether the codes are entropy-coded; see `Packed`.
    """

    codes: NDArray[np.uint8]
    values: NDArray[np.float32]
    scale: NDArray[np.float32] | None
    coded: bool

    @property
    def arrays(self) -> dict[str, NDArray[Any]]:
        """The arrays are `codes`, `values` and, where there is one, `scale`."""
        arrays: dict[str, NDArray[Any]] = {"codes": self.codes, "values": self.values}
        return arrays if self.scale is None else {**arrays, "scale": self.scale}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]], coded: bool) -> "Record":
        """Return the record of arrays that were read from a file.

        Args:
            arrays: As `Record.arrays`; others are ignored.
            coded: Whether the codes are entropy-coded.

        Raises:
            KeyError: There are no codes or no values.
        """
        return cls(arrays["codes"], arrays["values"], arrays.get("scale"), coded)


def record_of(parameter: Parameter) -> Record:
    """Return the record of a parameter.

    Raises:
        ValueError: A number of the parameter is not finite; see `Parameter.check_finite`.
    """
    packed = pack(whole_array(parameter.codes), len(parameter.values))
    scale = None if parameter.scale_state is None else parameter.scale_state.compact()
    return Record(
        codes=np.frombuffer(packed.data, np.uint8),
        values=np.asarray(parameter.values.numbers, np.float32),
        scale=None if scale is None else np.asarray(whole_array(scale), np.float32),
        coded=packed.coded,
    )


def restore(parameter: Parameter, record: Record) -> None:
    """Set a parameter from a record; each latent moves onto its value.

    Raises:
        KeyError: The parameter has a scale, and the record has none.
        ValueError: The record is not that of such a parameter.
    """
    values = record.values
    if values.shape != parameter.values.numbers.shape:
        raise ValueError(f"the list's shape {values.shape}")
    if parameter.entries is not None:
        parameter.set_values(values)
    if not np.array_equal(parameter.values.numbers, values):
        raise ValueError(f"the list {values.tolist()[:9]}, another than the architecture's")
    if parameter.scale_state is not None:
        _restore_scale(parameter.scale_state, record.scale)
    length = math.prod(parameter.shape)
    packed = Packed(record.codes.tobytes(), len(parameter.values), length, record.coded)
    parameter.set_codes(unpack(packed).reshape(parameter.shape).astype(np.int32))


def _restore_scale(state: ScaleState, scale: NDArray[np.float32] | None) -> None:
    if scale is None:
        raise KeyError("scale")
    if scale.shape != tuple(state.start.shape):
        raise ValueError(f"the scale's shape {scale.shape}")
    if not (np.isfinite(scale) & (scale > 0)).all():
        raise ValueError("a scale that is not positive")
    state.begin(scale)
