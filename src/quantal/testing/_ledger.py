"""The rule that says what each operation of a forward pass uses, on every framework."""

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray

from quantal._core.parameter import Parameter
from quantal._core.types import Tensor

Origin = frozenset[int]
"""An origin says what a tensor depends on: positions of latents, or `DATA`."""

NOTHING: Origin = frozenset()
DATA: Origin = frozenset({-1})

_PRODUCTS = ("mul", "dot", "mm", "mv", "conv", "einsum")
"""The result of an operation with such a part in its name is zero if an operand is."""


class Marked(NamedTuple):
    """A marked tensor carries its origin."""

    tensor: Tensor
    origin: Origin


@dataclasses.dataclass(frozen=True)
class Use:
    """A use is an operand that depends on latents alone and met the data in an operation.

    Attributes:
        parameters: The parameters whose latents it depends on; more than one is a mixture.
        operation: The backend's name of the operation.
        dtype: The operand's dtype.
        value: Its numbers as float64, which holds those of every other dtype.
    """

    parameters: tuple[Parameter, ...]
    operation: str
    dtype: str
    value: NDArray[np.float64]


class Ledger:
    """A ledger records uses, and knows the rule by which an operation passes origins on.

    Args:
        parameters: The parameters, in the order of the positions in an `Origin`.
    """

    def __init__(self, parameters: Sequence[Parameter]) -> None:
        self.uses: list[Use] = []
        self._parameters = parameters
        self._known: set[Any] = set()

    def enter(
        self, operation: str, operands: Sequence[Marked], results: Sequence[Tensor]
    ) -> Origin:
        """Record what an operation uses, and return the origin of its results.

        Args:
            operation: The backend's name of the operation.
            operands: Its operands.
            results: The tensors that it computed from them.
        """
        origin = NOTHING.union(*(operand.origin for operand in operands))
        if origin >= DATA:
            for operand in operands:
                if operand.origin and operand.origin != DATA:
                    self._record(operation, operand)
            return DATA
        # The first state of a recurrent layer is zeros, and does not depend on the data.
        if origin and any(part in operation.lower() for part in _PRODUCTS):
            constants = [operand.tensor for operand in operands if not operand.origin]
            if any(map(_is_zero, constants)) and all(map(_is_zero, results)):
                return NOTHING
        return origin

    def _record(self, operation: str, operand: Marked) -> None:
        value = _numbers(operand.tensor)
        dtype = keras.backend.standardize_dtype(operand.tensor.dtype)
        # A loop over time uses the same kernel at every step.
        key = (operation, operand.origin, dtype, value.shape, hash(value.tobytes()))
        if key not in self._known:
            self._known.add(key)
            parameters = tuple(self._parameters[latent] for latent in sorted(operand.origin))
            self.uses.append(Use(parameters, operation, dtype, value))


def _numbers(tensor: Tensor) -> NDArray[np.float64]:
    return np.asarray(ops.convert_to_numpy(tensor)).astype(np.float64)


def _is_zero(tensor: Tensor) -> bool:
    return not _numbers(tensor).any()
