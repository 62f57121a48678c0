"""A problem is a list of values for each element, the first assignment, and what is fixed."""

import copy
import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from quantal._core.numbers.values import Values

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


class Problem:
    """A problem holds the lists of all elements as arrays of one shape.

    Args:
        values: One list for all elements: numbers, a preset's name or `Values`; or a sequence
            of lists, one for each element, or an array (n, K).
        n: The number of elements; None where each has its list.
        start: The first assignment, codes (n,); None draws it.
        fixed: Booleans (n,), True for elements that keep their code of `start`.
        seed: The seed of the assignment that is drawn.

    Attributes:
        lists: The values, (n, K), float64 or complex128; shorter lists repeat their last value.
        lengths: The number of values of each element, (n,).
        fixed: Whether each element keeps its code, (n,).
        start: The first assignment, codes (n,).

    Raises:
        ValueError: A shape does not fit, or a number is not finite.

    >>> problem = Problem([[1, 2], [5, 6, 7]], start=[0, 2])
    >>> problem.values(problem.start)
    array([1., 7.])
    """

    def __init__(
        self,
        values: Any,
        n: int | None = None,
        start: ArrayLike | None = None,
        fixed: ArrayLike | None = None,
        seed: int = 0,
    ) -> None:
        self.lists, self.lengths = _lists(values, n)
        count = len(self.lists)
        drawn = np.random.default_rng(seed).integers(0, self.lengths)
        self.start = drawn if start is None else _checked_codes(start, self.lists, self.lengths)
        given = np.zeros(count, bool) if fixed is None else np.array(fixed)
        if given.shape != (count,) or not np.isin(given, [0, 1]).all():
            raise ValueError(
                f"fixed has the shape {given.shape} and the dtype {given.dtype}. Expected "
                f"({count},), a boolean for each element. For the positions 0 and 5 give "
                f"np.isin(np.arange({count}), [0, 5])."
            )
        self.fixed = given.astype(bool)
        if self.fixed.any() and start is None:
            raise ValueError(
                "fixed is given without start. Expected start, the codes that fixed elements keep."
            )

    def __len__(self) -> int:
        return len(self.lists)

    def starting_at(self, codes: Integers) -> "Problem":
        """Return the same problem with another first assignment, (n,)."""
        other = copy.copy(self)
        other.start = codes
        return other

    def lists_as_given(self) -> list[Any]:
        """Return the list that all elements have, or a list of lists where they differ."""
        rows = [row[:length] for row, length in zip(self.lists, self.lengths, strict=True)]
        first = rows[0].tolist() if rows else []
        if all(np.array_equal(row, rows[0]) for row in rows):
            return first
        return [row.tolist() for row in rows]

    @property
    def assignments(self) -> int:
        """Return the number of different assignments."""
        return math.prod(self.lengths[~self.fixed].tolist())

    @property
    def free(self) -> Integers:
        """Return the positions of the elements that are not fixed."""
        return np.flatnonzero(~self.fixed)

    def values(self, codes: Integers) -> Floats:
        """Return the vectors (..., n) of codes (..., n)."""
        return self.lists[np.arange(len(self)), codes]

    def draw(self, random: np.random.Generator) -> Integers:
        """Draw a random assignment (n,); fixed elements keep their code."""
        return np.where(self.fixed, self.start, random.integers(0, self.lengths))

    def box(self) -> tuple[Floats, Floats]:
        """Return the least and the largest value that each element can have, (n,) each."""
        fixed_values = self.values(self.start)
        low, high = self.lists.min(axis=1), self.lists.max(axis=1)
        return np.where(self.fixed, fixed_values, low), np.where(self.fixed, fixed_values, high)


def _checked_codes(start: ArrayLike, lists: Floats, lengths: Integers) -> Integers:
    """Return the codes (n,) that a user gives."""
    given = np.asarray(start)
    if given.shape != (len(lists),):
        raise ValueError(
            f"start has the shape {given.shape}. Expected ({len(lists)},), a position in the list "
            "for each element. Give codes, as `codes` of a result."
        )
    if given.dtype.kind in "iub" and ((given >= 0) & (given < lengths)).all():
        return given.astype(np.int64)
    advice = "Give codes, as `codes` of a result."
    if given.dtype.kind in "iufc":
        equals = lists == given[:, None]
        if equals.any(axis=1).all():
            codes = equals.argmax(axis=1)
            advice = f"These are values of the lists; give their codes, {_beginning(codes)}."
    raise ValueError(
        f"start is {_beginning(given)}, {given.dtype}. Expected codes: whole numbers, for each "
        f"element a position in its list, 0 to {lengths.max() - 1}. {advice}"
    )


def _beginning(array: NDArray[Any]) -> str:
    """Return the first entries of an array as text."""
    first = ", ".join(repr(entry) for entry in array[:8].tolist())
    return f"[{first}]" if len(array) <= 8 else f"[{first}, ...]"


def _lists(values: Any, n: int | None) -> tuple[Floats, Integers]:
    """Return a row of values for each element, and the number of them that count."""
    one_for_each = isinstance(values, (list, tuple)) and any(
        isinstance(entry, (str, Values)) or np.ndim(entry) for entry in values
    )
    if one_for_each or (isinstance(values, np.ndarray) and values.ndim == 2):
        rows = [_checked(row) for row in values]
        if n not in (None, len(rows)):
            raise ValueError(
                f"n is {n}, but there are {len(rows)} lists. Expected one for each element. Leave "
                "n out."
            )
        return _padded(rows)
    if not isinstance(n, (int, np.integer)) or n < 1:
        raise ValueError(f"n is {n} with one list. Expected the length of the vector, 1 or more.")
    row = _checked(values)
    return np.tile(row, (n, 1)), np.full(n, len(row), np.int64)


def _padded(rows: list[NDArray[Any]]) -> tuple[Floats, Integers]:
    """Return rows of one length, each filled up with its last value; and their first lengths."""
    lengths = np.array([len(row) for row in rows], np.int64)
    lists = np.empty((len(rows), lengths.max()), np.result_type(*rows))
    for values, row in zip(lists, rows, strict=True):
        values[: len(row)], values[len(row) :] = row, row[-1]
    return lists, lengths


def _checked(values: Any) -> NDArray[Any]:
    """Return a list in float64 or complex128: float32 would round a resistor's value."""
    if isinstance(values, (str, Values)):
        # 0.1 is 0.1 here, and not its float32 number.
        row = np.asarray(Values.get(values).tolist(), np.float64)
    else:
        row = np.asarray(values)
        row = row.astype(np.complex128 if row.dtype.kind == "c" else np.float64)
    if row.ndim != 1 or not row.size or not np.isfinite(row).all():
        raise ValueError(
            f"A list is {values!r}. Expected one or more finite numbers, for example [1, -1]."
        )
    return row
