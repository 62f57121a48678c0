"""Constraints say what a vector has to satisfy besides its lists, as the user states it."""

import dataclasses
from collections.abc import Mapping

from numpy.typing import ArrayLike


@dataclasses.dataclass(frozen=True)
class Constraints:
    """Constraints say what a vector has to satisfy besides its lists.

    Args:
        total: The sum of all elements; None for any.
        counts: How many elements have a value, for example `{1: 20}`; other values are free.
        groups: A label for each element, (n,): elements of one label have one code, the
            position in their own list. For symmetry, `np.minimum(i, n - 1 - i)`; for
            antisymmetry, in addition, lists with the negative values in the same order.
        fixed: Booleans (n,), True for elements that keep their code of `start`.

    >>> import numpy as np, quantal
    >>> loss = lambda vectors: vectors @ np.array([3.0, 1.0, 2.0])
    >>> result = quantal.search(
    ...     loss, [0, 1], n=3, constraints=quantal.Constraints(counts={1: 2}), verbose=0
    ... )
    >>> result.vector
    array([0., 1., 1.])
    """

    total: complex | None = None
    counts: Mapping[float, int] | None = None
    groups: ArrayLike | None = None
    fixed: ArrayLike | None = None
