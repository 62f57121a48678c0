"""What computes the products of a network: machine code for this processor, or NumPy."""

import numpy as np
from numpy.typing import NDArray

from quantal.runtime import _machine_code
from quantal.runtime._matrices import DecodedMatrix, FloatMatrix, Matrix, PackedMatrix
from quantal.runtime._stored import Stored
from quantal.runtime._threads import Threads

_NAMES = {0: "NumPy", 8: "LLVM, AVX2", 16: "LLVM, AVX-512"}
_LONGEST_PACKED = 256
"""The most values of a list whose codes the kernels read: those of a byte."""


class Machine:
    """A machine makes the matrices of a network.

    Args:
        threads: The most threads that multiply at a time.
        lanes: The 32-bit numbers of a vector: 8, 16, or 0 for NumPy; None for the most that this
            processor has.
    """

    def __init__(self, threads: int, lanes: int | None = None) -> None:
        self._lanes = _machine_code.lanes() if lanes is None else lanes
        self._threads = Threads(threads)

    @property
    def name(self) -> str:
        """The name of what computes."""
        return _NAMES[self._lanes]

    def matrix(self, weight: Stored) -> tuple[Matrix, NDArray[np.float32]]:
        """Return a weight as a matrix, and a factor for each output, which is its last axis.

        Where outputs have more than a list and a scale each, the matrix has floats.
        """
        outputs, listed = weight.shape[-1], weight.listed()
        if listed is None:
            numbers = weight.floats().reshape(-1, outputs)
            return FloatMatrix(numbers), np.ones(outputs, np.float32)
        codes = listed.codes.reshape(-1, outputs)
        if self._lanes and len(listed.lists) == 1 and listed.lists.size <= _LONGEST_PACKED:
            return PackedMatrix(codes, listed.lists[0], self._lanes, self._threads), listed.scale
        return DecodedMatrix(codes, listed.lists), listed.scale
