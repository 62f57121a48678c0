"""Remembered losses call a slow function once for each assignment."""

from collections.abc import Callable

import numpy as np

from quantal._optimize.budget import Spendable
from quantal.objectives.problem import Floats, Integers

MOST_BYTES = 2**26
"""What is remembered takes about so much memory at most."""
_BYTES_OF_AN_ENTRY = 200
"""The memory of an entry of a dictionary, without its codes, which take two bytes each."""


class RememberedLosses:
    """Remembered losses evaluate each assignment once, and look it up afterwards.

    Methods charge each loss before they ask for it; what is looked up is given back to them.

    Args:
        losses: Takes codes (batch, n) to losses (batch,).
        spending: The budget that pays.
    """

    def __init__(self, losses: Callable[[Integers], Floats], spending: Spendable) -> None:
        self._losses, self._spending = losses, spending
        self._loss_of: dict[bytes, float] = {}

    def __call__(self, codes: Integers) -> Floats:
        """Return the losses (batch,) of codes (batch, n)."""
        rows = np.ascontiguousarray(codes, np.uint16)
        keys = [row.tobytes() for row in rows]
        row_of = {key: row for row, key in enumerate(keys) if key not in self._loss_of}
        if len(row_of) == len(keys):
            losses = self._losses(codes)
            self._remember(keys, losses, rows.shape[1])
            return losses
        self._spending.count(len(row_of) - len(keys))
        new = {}
        if row_of:
            new_losses = self._losses(codes[list(row_of.values())])
            new = dict(zip(row_of, new_losses.tolist(), strict=True))
            self._remember(list(row_of), new_losses, rows.shape[1])
        return np.array([new[key] if key in new else self._loss_of[key] for key in keys])

    def _remember(self, keys: list[bytes], losses: Floats, n: int) -> None:
        room = MOST_BYTES // (_BYTES_OF_AN_ENTRY + 2 * n) - len(self._loss_of)
        self._loss_of.update(zip(keys[: max(room, 0)], losses.tolist(), strict=False))
