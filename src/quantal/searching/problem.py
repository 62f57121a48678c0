"""What is searched: a list for each element, where it starts, what stays."""

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from quantal.values import Values

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


class Problem:
    """Lists of elements, as arrays of one shape.

    Attributes:
        lists: The values, (n, K); shorter lists are filled up with their last value.
        lengths: How many values each element has, (n,).
        fixed: Whether an element keeps its code, (n,).
        start: The codes to start from, (n,).
    """

    def __init__(
        self,
        values: Any,
        n: int | None,
        start: ArrayLike | None,
        fixed: ArrayLike | None,
        seed: int,
    ) -> None:
        self.lists, self.lengths = _lists(values, n)
        count = len(self.lists)
        drawn = np.random.default_rng(seed).integers(0, self.lengths)
        self.start = drawn if start is None else np.array(start, np.int64)
        if (
            self.start.shape != (count,)
            or not ((self.start >= 0) & (self.start < self.lengths)).all()
        ):
            raise ValueError(
                f"start has the shape {self.start.shape}. Expected ({count},), a position in the "
                "list for each element. Give codes, as `codes` of a result."
            )
        self.fixed = np.zeros(count, bool) if fixed is None else np.array(fixed, bool)
        if self.fixed.shape != (count,):
            raise ValueError(
                f"fixed has the shape {self.fixed.shape}. Expected ({count},), a boolean for each "
                "element. Give one for each."
            )
        if self.fixed.any() and start is None:
            raise ValueError(
                "fixed is given without start. Expected the codes that fixed elements keep. Give "
                "start, too."
            )

    def __len__(self) -> int:
        return len(self.lists)

    @property
    def choices(self) -> int:
        """How many vectors there are."""
        return math.prod(self.lengths[~self.fixed].tolist())

    def values(self, codes: Integers) -> Floats:
        """The vectors of codes (..., n)."""
        return self.lists[np.arange(len(self)), codes]


def _lists(values: Any, n: int | None) -> tuple[Floats, Integers]:
    """One row of values for each element, and how many of them count."""
    if isinstance(values, (list, tuple)) and any(np.ndim(entry) for entry in values):
        rows = [_checked(row) for row in values]
        if n not in (None, len(rows)):
            raise ValueError(
                f"n is {n}, but there are {len(rows)} lists. Expected one for each element. Leave "
                "n out."
            )
    else:
        if n is None or n < 1:
            raise ValueError(
                f"n is {n} with one list. Expected the length of the vector, 1 or more. Give n."
            )
        rows = [_checked(values)] * n
    lengths = np.array([len(row) for row in rows], np.int64)
    lists = np.stack([np.pad(row, (0, lengths.max() - len(row)), "edge") for row in rows])
    return lists, lengths


def _checked(values: Any) -> NDArray[Any]:
    """A list in float64 or complex128: float32 would round a resistor's value."""
    if isinstance(values, (str, Values)):
        return Values.from_config(values).numbers.astype(np.float64)
    row = np.asarray(values)
    kind = np.complex128 if row.dtype.kind == "c" else np.float64
    row = row.astype(kind)
    if row.ndim != 1 or not row.size or not np.isfinite(row).all():
        raise ValueError(
            f"A list is {values!r}. Expected one or more finite numbers. Give, for example, "
            "[1, -1]."
        )
    return row
