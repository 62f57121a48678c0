"""The entropy of codes: the bits that an ideal entropy coder needs."""

import numpy as np
from numpy.typing import ArrayLike


def entropy(codes: ArrayLike) -> float:
    """Return Shannon's entropy of codes, in bits per code.

    It is `-sum p log2 p` with the observed shares `p`. No code of single symbols needs
    fewer bits on average. Without any codes it is 0.

    Args:
        codes: Integers of any shape, from 0.

    Source: Shannon, "A Mathematical Theory of Communication", 1948.

    >>> entropy([0, 1, 2, 3])
    2.0
    """
    counts = np.unique(np.asarray(codes), return_counts=True)[1]
    shares = counts / max(counts.sum(), 1)
    return abs(float((shares * np.log2(shares)).sum()))
