"""What an exact method says."""

import dataclasses

from quantal.objectives.problem import Integers


@dataclasses.dataclass(frozen=True)
class Solution:
    """The best vector of an exact method, and how low the loss can be.

    Attributes:
        codes: The positions of its values in their lists, (n,); None where none was found.
        bound: No vector of the lists has a lower loss; None where nothing is known.
        proved: Whether no vector is better than this one.

    >>> Solution(None, -2.0)
    Solution(codes=None, bound=-2.0, proved=False)
    """

    codes: Integers | None
    bound: float | None
    proved: bool = False
