"""Groups of elements share one code, and leave a smaller problem."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from quantal.objectives.problem import Floats, Integers, Problem


class Groups:
    """Groups tie elements together: those of one label have one code.

    Args:
        whole: The problem of all elements.
        labels: A label for each element, (n,); None puts each into another group.

    Attributes:
        members: The group of each element, (n,), numbered in the order of the labels.
        problem: The problem of one code for each group.
        factors: Each element's list as a multiple of its group's list, (n,); None where one
            list is no multiple.

    Raises:
        ValueError: A shape does not fit, or elements of a group cannot share a code.

    >>> groups = Groups(Problem([1, -1], 4), [0, 1, 1, 0])
    >>> groups.values(np.array([0, 1]))
    array([ 1., -1., -1.,  1.])
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
        _check_same_codes(whole, first[members])
        self.problem = whole if labels is None else Problem(
            [whole.lists[i, : whole.lengths[i]] for i in first],
            None, whole.start[first], whole.fixed[first],
        )  # fmt: skip
        self.factors: Any = self._factors()

    def _factors(self) -> NDArray[Any] | None:
        lists, lists_of_groups = self._whole.lists, self.problem.lists[self.members]
        largest = np.abs(lists_of_groups).argmax(axis=1)[:, None]
        divisors = np.take_along_axis(lists_of_groups, largest, 1)
        factors = np.take_along_axis(lists, largest, 1) / np.where(divisors == 0, 1, divisors)
        return factors[:, 0] if np.array_equal(factors * lists_of_groups, lists) else None

    def expansion(self, sparse: bool = False) -> Any:
        """Return a matrix (n, groups) that takes the groups' values to a vector.

        It needs `factors`.

        Args:
            sparse: Whether it is a scipy.sparse `csr_array`, else a NumPy array.
        """
        shape = len(self.members), len(self.problem)
        elements = np.arange(len(self.members))
        if sparse:
            # scipy is an extra.
            from scipy.sparse import csr_array

            return csr_array((self.factors, (elements, self.members)), shape)
        dense = np.zeros(shape, self.factors.dtype)
        dense[elements, self.members] = self.factors
        return dense

    def spread(self, values: Floats) -> Floats:
        """Return vectors (batch, n) of the groups' values (batch, groups); needs `factors`."""
        return np.asarray(values[:, self.members] * self.factors)

    def gathered(self, gradients: Floats) -> Floats:
        """Return gradients (batch, groups) of those of all elements (batch, n).

        It needs `factors`.
        """
        sums = np.zeros((len(gradients), len(self.problem)))
        np.add.at(sums.T, self.members, (gradients * self.factors).T)
        return sums

    def codes(self, codes: Integers) -> Integers:
        """Return the codes (..., n) of all elements from those of the groups (..., groups)."""
        return codes[..., self.members]

    def values(self, codes: Integers) -> Floats:
        """Return the vectors (..., n) of the groups' codes (..., groups)."""
        return self._whole.values(self.codes(codes))


def _check_same_codes(whole: Problem, first_of_group: Integers) -> None:
    """Raise a ValueError if elements cannot have the code of the first of their group."""
    other_length = whole.lengths != whole.lengths[first_of_group]
    one_is_fixed = whole.fixed[first_of_group] | whole.fixed
    other_start = (whole.start != whole.start[first_of_group]) & one_is_fixed
    other_fixed = whole.fixed != whole.fixed[first_of_group]
    wrong = np.flatnonzero(other_length | other_start | other_fixed)
    if len(wrong):
        i = int(wrong[0])
        raise ValueError(
            f"Element {i} moves together with element {int(first_of_group[i])}, but their lists "
            "have other lengths, or one is fixed. Expected elements of a group to share their "
            "codes. Give them lists of one length, and fix all or none."
        )
