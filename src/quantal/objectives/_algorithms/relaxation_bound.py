"""A convex relaxation on the lists' range bounds a quadratic loss from below."""

import numpy as np

from quantal.objectives._algorithms.quadratic_form import QuadraticForm
from quantal.objectives.problem import Problem

_LARGEST_WITH_EIGENVALUES = 2000
"""The most elements: the eigenvalues of a matrix take the cube of its length."""
_STEPS = 500
"""The most steps of the solver; the bound holds wherever it ends."""


def relaxation_bound(form: QuadraticForm, problem: Problem) -> float | None:
    """Return a number below which no loss of the lists' vectors lies; None beyond 2,000 elements.

    Formula: with the smallest eigenvalue `e` of the matrix `M`, or 0 if it is positive,
    `v @ (M - e I) @ v` is convex, and the linear function that touches it anywhere lies
    below it everywhere; it is least at a corner of the box of the lists' ends. What remains
    is `e` times the sum of squares, each at most the largest of its list. The function touches
    at the least point of the box, where the bound is best.
    """
    if len(problem) > _LARGEST_WITH_EIGENVALUES:
        return None
    # scipy is an extra.
    from scipy.optimize import minimize

    matrix = form.dense_matrix
    eigenvalue = min(0.0, float(np.linalg.eigvalsh(matrix)[0]))
    fixed_squares = problem.values(problem.start) ** 2
    largest_squares = np.square(problem.lists).max(axis=1)
    largest_squares = np.where(problem.fixed, fixed_squares, largest_squares)
    convex = matrix - eigenvalue * np.eye(len(problem))

    def value_and_slope(v: np.ndarray) -> tuple[float, np.ndarray]:
        product = convex @ v
        return float(v @ product + form.vector @ v), 2 * product + form.vector

    low, high = problem.box()
    point = minimize(
        value_and_slope, (low + high) / 2, jac=True, bounds=list(zip(low, high, strict=True)),
        method="L-BFGS-B", options={"maxiter": _STEPS},
    ).x  # fmt: skip
    value, slope = value_and_slope(point)
    corner = np.where(slope > 0, low, high)
    tangent = value + slope @ (corner - point)
    return float(tangent + eigenvalue * largest_squares.sum() + form.constant)
