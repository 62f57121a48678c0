"""A solution is what a method reports at its end."""

import dataclasses

from quantal.objectives.problem import Integers


@dataclasses.dataclass(frozen=True)
class Solution:
    """A solution is the best assignment that a method knows, and what it proves of it.

    Attributes:
        codes: The positions of the values in their lists, (n,); None if there is no assignment.
        loss: The loss of the assignment; None if the method does not know it.
        bound: No vector of the lists has a lower loss; None where nothing is known.
        proved: Whether no vector is better than this one.
        complete: Whether nothing is left to do, though there may be no proof: for example,
            where a loss that stands for the true one is solved exactly.

    >>> Solution(None, bound=-2.0)
    Solution(codes=None, loss=None, bound=-2.0, proved=False, complete=False)
    """

    codes: Integers | None
    loss: float | None = None
    bound: float | None = None
    proved: bool = False
    complete: bool = False

    def __post_init__(self) -> None:
        # A proof leaves nothing to do.
        object.__setattr__(self, "complete", self.complete or self.proved)
