"""What is searched: a list for each element, where it starts, what stays or moves together."""

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from quantal._core.numbers.values import Values

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

    def drawn(self, random: np.random.Generator) -> Integers:
        """Random codes (n,); fixed elements keep theirs."""
        return np.where(self.fixed, self.start, random.integers(0, self.lengths))


class Groups:
    """Elements that move together: those of one label have one code.

    Attributes:
        members: The group of each element, (n,), counted in the order of their labels.
        problem: The search for one code a group.
        factors: Each list as a multiple of that of its group, (n,); None where one is none.
    """

    def __init__(self, whole: Problem, labels: ArrayLike | None) -> None:
        names = np.arange(len(whole)) if labels is None else np.array(labels)
        if names.shape != (len(whole),):
            raise ValueError(
                f"groups has the shape {names.shape}. Expected ({len(whole)},), a label for each "
                "element. Give equal labels to elements that move together."
            )
        _, first, members = np.unique(names, return_index=True, return_inverse=True)
        self.members: Integers = members
        self._whole = whole
        leaders = first[members]
        wrong = whole.lengths != whole.lengths[leaders]
        apart = (whole.start != whole.start[leaders]) & (whole.fixed[leaders] | whole.fixed) | (
            whole.fixed != whole.fixed[leaders]
        )
        if (wrong | apart).any():
            at = int(np.flatnonzero(wrong | apart)[0])
            raise ValueError(
                f"Element {at} moves together with element {int(leaders[at])}, but their lists "
                "have other lengths, or one is fixed. Expected elements of a group to share "
                "their codes. Give them lists of one length, and fix all or none."
            )
        self.problem = whole if labels is None else Problem(
            [whole.lists[at, : whole.lengths[at]] for at in first],
            None, whole.start[first], whole.fixed[first], 0,
        )  # fmt: skip
        self.factors: Any = self._factors()

    def _factors(self) -> NDArray[Any] | None:
        whole, leading = self._whole.lists, self.problem.lists[self.members]
        largest = np.abs(leading).argmax(axis=1)[:, None]
        below = np.take_along_axis(leading, largest, 1)
        factors = np.take_along_axis(whole, largest, 1) / np.where(below == 0, 1, below)
        return factors[:, 0] if np.array_equal(factors * leading, whole) else None

    def expansion(self, sparse: bool) -> Any:
        """(n, groups): a vector is `expansion @ (the groups' values)`; needs `factors`."""
        shape, places = (len(self.members), len(self.problem)), np.arange(len(self.members))
        if sparse:
            from scipy.sparse import csr_array

            return csr_array((self.factors, (places, self.members)), shape)
        dense = np.zeros(shape, self.factors.dtype)
        dense[places, self.members] = self.factors
        return dense

    def spread(self, rows: Floats) -> Floats:
        """Vectors (batch, n) from numbers of the groups (batch, groups); needs `factors`."""
        return rows[:, self.members] * self.factors

    def gathered(self, slopes: Floats) -> Floats:
        """The slopes (batch, groups) from those of all elements (batch, n); needs `factors`."""
        found = np.zeros((len(slopes), len(self.problem)))
        np.add.at(found.T, self.members, (slopes * self.factors).T)
        return found

    def codes(self, codes: Integers) -> Integers:
        """The codes (..., n) of all elements, from those of the groups."""
        return codes[..., self.members]

    def values(self, codes: Integers) -> Floats:
        """The vectors (..., n), from the codes of the groups."""
        return self._whole.values(self.codes(codes))


def _lists(values: Any, n: int | None) -> tuple[Floats, Integers]:
    """One row of values for each element, and how many of them count."""
    one_each = isinstance(values, (list, tuple)) and any(
        isinstance(entry, (str, Values)) or np.ndim(entry) for entry in values
    )
    if one_each or (isinstance(values, np.ndarray) and values.ndim == 2):
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
        row = _checked(values)
        return np.tile(row, (n, 1)), np.full(n, len(row), np.int64)
    lengths = np.array([len(row) for row in rows], np.int64)
    lists = np.empty((len(rows), lengths.max()), np.result_type(*rows))
    for place, row in enumerate(rows):
        lists[place, : len(row)], lists[place, len(row) :] = row, row[-1]
    return lists, lengths


def _checked(values: Any) -> NDArray[Any]:
    """A list in float64 or complex128: float32 would round a resistor's value."""
    if isinstance(values, (str, Values)):
        row = Values.get(values).numbers.astype(np.float64)
    else:
        row = np.asarray(values)
        row = row.astype(np.complex128 if row.dtype.kind == "c" else np.float64)
    if row.ndim != 1 or not row.size or not np.isfinite(row).all():
        raise ValueError(
            f"A list is {values!r}. Expected one or more finite numbers. Give, for example, "
            "[1, -1]."
        )
    return row
