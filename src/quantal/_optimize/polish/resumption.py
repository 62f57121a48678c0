"""A resumption is the file from which polishing goes on."""

import os
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from quantal._core.parameter import Parameter
from quantal._core.tensors.distributed import whole_array
from quantal._optimize.checkpoint import Checkpoint, distinct, fingerprint
from quantal._optimize.polish.ascending_lists import AscendingLists
from quantal._optimize.polish.state import PolishState
from quantal._optimize.polish.validation import Numbers
from quantal.objectives.problem import Integers


class Resumption:
    """A resumption reads what an earlier polishing reached, and writes what this one reaches.

    The file has ranks; with continuous variables also the numbers of these, byte by byte, so that
    they return exactly.

    Args:
        file: The path; None reads and writes nothing.
        parameters: The parameters that are polished.
        trained: The continuous variables.
        lists: The lists of the parameters.

    Raises:
        ValueError: The file is damaged, of another model, has ranks beyond the lists, or is in a
            place that cannot be written.
    """

    def __init__(
        self,
        file: str | os.PathLike[str] | None,
        parameters: Sequence[Parameter],
        trained: Sequence[keras.Variable],
        lists: AscendingLists,
    ) -> None:
        self._file = file
        self._like = [np.array(whole_array(variable)) for variable in trained]
        shapes: dict[str, tuple[int | None, ...]] = {"members": (None, len(lists))}
        if trained:
            shapes["continuous"] = (sum(array.nbytes for array in self._like),)
        self.checkpoint = Checkpoint(file, _fingerprint(parameters, trained), shapes)
        self._members, self._numbers = np.empty((0, len(lists)), np.int64), tuple(self._like)
        if self.checkpoint.exists():
            arrays = self.checkpoint.read()
            self._members = self._checked(arrays["members"], lists)
            if trained:
                self._numbers = self._from_bytes(arrays["continuous"])

    def offer_to(self, state: PolishState) -> None:
        """Offer what the file has, and leave the continuous variables as they are kept.

        Raises:
            ValueError: A list of the file has its values in another order.
        """
        steps, kept = state.continuous, state.selection.kept
        if not len(self._members):
            return
        try:
            if steps is not None and not steps.assign(self._numbers):
                raise ValueError(
                    f"{os.fspath(self._file or '')!r} has a learned list whose values are in "
                    "another order. Expected that of the model. Delete the file to begin anew."
                )
            for ranks in self._members:
                state.resume_from(ranks)
        finally:
            if steps is not None:
                steps.assign(state.selection.kept.variables)
        if steps is not None and state.selection.kept is not kept:
            state.incumbent.restate(state.selection.kept.ranks, state.selection.kept.loss)

    def arrays(self, state: PolishState, reached: Integers) -> dict[str, Any]:
        """Return what the file gets: the kept assignment first, and the variables with it."""
        kept = state.selection.kept  # Once: a thread asks while polishing goes on.
        arrays: dict[str, Any] = {"members": distinct([kept.ranks, state.incumbent.codes, reached])}
        if self._like:
            content = b"".join(array.tobytes() for array in kept.variables)
            arrays["continuous"] = np.frombuffer(content, np.uint8)
        return arrays

    def _checked(self, members: NDArray[np.int64], lists: AscendingLists) -> NDArray[np.int64]:
        if ((members < 0) | (members >= lists.lengths)).any():
            raise ValueError(
                f"{os.fspath(self._file or '')!r} has codes that are not in the lists. Expected "
                "what polish wrote. Delete it to begin anew."
            )
        return members

    def _from_bytes(self, content: NDArray[np.int64]) -> Numbers:
        ends = np.cumsum([array.nbytes for array in self._like])
        parts = np.split(content.astype(np.uint8), ends[:-1])
        return tuple(
            np.frombuffer(part.tobytes(), like.dtype).reshape(like.shape)
            for part, like in zip(parts, self._like, strict=True)
        )


def _fingerprint(parameters: Sequence[Parameter], trained: Sequence[keras.Variable]) -> str:
    shapes = repr([parameter.shape for parameter in parameters])
    if not trained:
        return fingerprint(*(parameter.values.ascending for parameter in parameters), shapes)
    # A learned list moves: the file itself has its numbers.
    lists = [
        repr(p.values.ascending.shape) if p.values.learnable else p.values.ascending
        for p in parameters
    ]
    variables = [(tuple(v.shape), keras.backend.standardize_dtype(v.dtype)) for v in trained]
    return fingerprint(*lists, shapes, repr(variables))
