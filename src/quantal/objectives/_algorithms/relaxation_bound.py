"""How low a quadratic loss can be at all, on the lists' range."""

import numpy as np

from quantal.objectives.losses import Quadratic
from quantal.objectives.problem import Problem

LARGEST = 2000
"""The most elements: the eigenvalues of a matrix take the cube of its length."""


def lower_bound(loss: Quadratic, problem: Problem) -> float | None:
    """No vector of the lists has a lower loss than this; None beyond `LARGEST` elements.

    Formula: with the smallest eigenvalue `e` of the matrix, or 0 if it is positive,
    `v @ (M - e I) @ v` is convex, and the linear function that touches it anywhere lies
    below it everywhere; it is least at a corner of the box of the lists' ends. What is
    left is `e` times the sum of squares, each at most the largest of its list. It touches
    at the least point of the box, where the bound is best.
    """
    if len(problem) > LARGEST:
        return None
    from scipy.optimize import minimize

    matrix = loss.matrix.toarray() if loss.sparse else loss.matrix
    least = min(0.0, float(np.linalg.eigvalsh(matrix)[0]))
    squares = np.square(problem.lists)
    fixed = problem.values(problem.start)
    low = np.where(problem.fixed, fixed, problem.lists.min(axis=1))
    high = np.where(problem.fixed, fixed, problem.lists.max(axis=1))
    largest = np.where(problem.fixed, fixed**2, squares.max(axis=1))
    convex = matrix - least * np.eye(len(problem))

    def both(v: np.ndarray) -> tuple[float, np.ndarray]:
        product = convex @ v
        return float(v @ product + loss.vector @ v), 2 * product + loss.vector

    found = minimize(
        both, (low + high) / 2, jac=True, bounds=list(zip(low, high, strict=True)),
        method="L-BFGS-B", options={"maxiter": 500},
    ).x  # fmt: skip
    value, slope = both(found)
    corner = np.where(slope > 0, low, high)
    return float(value + slope @ (corner - found) + least * largest.sum() + loss.constant)
