"""The rule that says what each operation of a forward pass uses, on every framework."""

import dataclasses
import hashlib
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
from numpy.typing import NDArray

from quantal._core.parameter import Parameter
from quantal._core.tensors.distributed import whole_array
from quantal._core.types import Tensor

Origin = frozenset[int]
"""An origin says what a tensor depends on: positions of latents, `DATA`, or products of listed
weights with other weights, numbered -2, -3, ..."""

NOTHING: Origin = frozenset()
DATA: Origin = frozenset({-1})

_PRODUCTS = ("mul", "dot", "mm", "mv", "conv", "einsum")
"""The result of an operation with such a part in its name is zero if an operand is."""

_CONTRACTIONS = ("matmul", "dot", "mm", "mv", "conv", "einsum", "linear")
"""An operation with such a part in its name sums products: what a layer does with its data."""

_NO_CONTRACTIONS = ("convert",)
"""An operation with such a part in its name is no contraction, whatever else is in it."""


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
        value: Its numbers. `uses_of` returns them as float64, which holds those of every other
            dtype; while a call is traced they are the operand's own, without a copy.
    """

    parameters: tuple[Parameter, ...]
    operation: str
    dtype: str
    value: NDArray[Any]


class Ledger:
    """A ledger reports uses, and knows the rule by which an operation passes origins on.

    It keeps no numbers: of a large model there is room for those of one operation.

    Args:
        parameters: The parameters, in the order of the positions in an `Origin`.
        is_listed: Returns whether all numbers of a use are ones that may meet the data.
        report: Gets each use, an operation's equal ones once. Its numbers may be overwritten
            afterwards.
    """

    def __init__(
        self,
        parameters: Sequence[Parameter],
        is_listed: Callable[[Use], bool],
        report: Callable[[Use], None],
    ) -> None:
        self._parameters, self._is_listed, self._report = parameters, is_listed, report
        self._known: set[Any] = set()
        self._uses_of_products: dict[int, list[Use]] = {}

    def enter(
        self, operation: str, operands: Sequence[Marked], results: Sequence[Tensor]
    ) -> Origin:
        """Report what an operation uses, and return the origin of its results.

        Args:
            operation: The backend's name of the operation.
            operands: Its operands.
            results: The tensors that it computed from them.
        """
        origin = NOTHING.union(*(operand.origin for operand in operands))
        if origin >= DATA:
            for operand in operands:
                if operand.origin and operand.origin != DATA:
                    self._meet_data(operation, operand)
            return DATA
        # The first state of a recurrent layer is zeros, and does not depend on the data.
        if origin and any(part in operation.lower() for part in _PRODUCTS):
            constants = [operand.tensor for operand in operands if not operand.origin]
            if any(map(_is_zero, constants)) and all(map(_is_zero, results)):
                return NOTHING
        if _latents(origin) and len(operands) > 1 and _is_contraction(operation):
            return self._contracted(operation, operands, origin)
        return origin

    def _meet_data(self, operation: str, operand: Marked) -> None:
        """Report that an operand, which depends on latents alone, meets the data."""
        if _latents(operand.origin):
            self._record(self._use(operation, operand))
        for product in operand.origin:
            if product < min(DATA):
                for use in self._uses_of_products[product]:
                    self._record(use)

    def _contracted(self, operation: str, operands: Sequence[Marked], origin: Origin) -> Origin:
        """Return the origin of a product of weights alone.

        A listed weight treats another weight as it treats data, such as the embeddings of
        relative positions. What is not listed itself is no weight yet: the product is.
        """
        uses = []
        for operand in operands:
            latents = _latents(operand.origin)
            if not latents:
                continue
            if len(operand.origin) > 1:
                return origin
            use = self._use(operation, operand)
            # More numbers than the weight has are positions in a list, such as one-hot ones.
            if use.value.size > math.prod(use.parameters[0].shape) or not self._is_listed(use):
                return origin
            # It is reported later: until then nobody may write into it.
            uses.append(dataclasses.replace(use, value=use.value.copy()))
        product = min(DATA) - 1 - len(self._uses_of_products)
        self._uses_of_products[product] = uses
        return (origin - _latents(origin)) | {product}

    def _use(self, operation: str, operand: Marked) -> Use:
        latents = sorted(_latents(operand.origin))
        dtype = keras.backend.standardize_dtype(operand.tensor.dtype)
        parameters = tuple(self._parameters[latent] for latent in latents)
        return Use(parameters, operation, dtype, _numbers(operand.tensor))

    def _record(self, use: Use) -> None:
        # A loop over time uses the same kernel at every step.
        paths = tuple(parameter.path for parameter in use.parameters)
        digest = hashlib.blake2b(np.ascontiguousarray(use.value).view(np.uint8).data).digest()
        key = (use.operation, paths, use.dtype, use.value.shape, digest)
        if key not in self._known:
            self._known.add(key)
            self._report(use)


def _latents(origin: Origin) -> Origin:
    return frozenset(position for position in origin if position >= 0)


def _is_contraction(operation: str) -> bool:
    name = operation.lower()
    return any(part in name for part in _CONTRACTIONS) and not any(
        part in name for part in _NO_CONTRACTIONS
    )


def _numbers(tensor: Tensor) -> NDArray[Any]:
    return np.asarray(whole_array(tensor))


def _is_zero(tensor: Tensor) -> bool:
    return not _numbers(tensor).any()
