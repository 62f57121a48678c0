"""The problems with a known answer, made from a seed.

NumPy alone, so that any library can take them:

from cases import PLANTED, perceptron

case = PLANTED["planted-nine_powers-64-0.9-squared"]
problem = case.instance(seed=0)
problem.score(weights)  # final loss / planted loss
"""

from typing import NamedTuple

import numpy as np

LISTS = {
    "signs": [-1, 1],
    "ternary": [-1, 0, 1],
    "four_values": [1, -1, 0.5, -0.5],
    "uneven": [1, 0.7, 0, -0.1, -0.2],
    "nine_powers": [-8, -4, -2, -1, 0, 1, 2, 4, 8],
    "sixteen_normal": np.sort(np.random.default_rng(3).normal(size=16)).tolist(),
}
NOISE = 0.05  # Standard deviation of what is added to Xw, in the units of the list.
ROWS = 1.5  # Rows an element.
SOLVED = 1 + 1e-5  # Solved: the final loss is at most this times the planted vector's.
PATTERN_SIZE = 1001  # Of a perceptron's patterns: odd, so that no sum of signs is zero.
LOADS = (0.3, 0.4, 0.5, 0.6, 0.65, 0.7)


class Planted(NamedTuple):
    """A vector of listed values hidden in a linear model's answers.

    The rows are normal numbers with the correlation `rho ** |i - j|` between the columns
    i and j, divided by the root of the size; there are 1.5 of them an element. The hidden
    vector is drawn uniformly from the list. `y = Xw + noise`; with the kind "logistic"
    only the sign of that is told.
    """

    values: str
    size: int
    rho: float
    kind: str

    @property
    def name(self) -> str:
        return f"planted-{self.values}-{self.size}-{self.rho:g}-{self.kind}"

    def instance(self, seed: int) -> "Problem":
        random = np.random.default_rng(seed)
        place = np.arange(self.size)
        correlation = float(self.rho) ** np.abs(place[:, None] - place)
        rows = random.standard_normal((int(ROWS * self.size), self.size))
        rows = rows @ np.linalg.cholesky(correlation).T / np.sqrt(self.size)
        values = np.asarray(LISTS[self.values], float)
        hidden = values[random.integers(len(values), size=self.size)]
        targets = rows @ hidden + NOISE * random.standard_normal(len(rows))
        if self.kind == "logistic":
            targets = np.where(targets > 0, 1.0, -1.0)
        return Problem(self.kind, rows.astype(np.float32), targets.astype(np.float32), hidden)


class Problem(NamedTuple):
    """An instance of `Planted`: rows, targets (±1 if logistic) and the hidden vector."""

    kind: str
    rows: np.ndarray
    targets: np.ndarray
    hidden: np.ndarray

    def loss(self, weights: np.ndarray) -> float:
        """The mean loss of these weights over the rows, in float64."""
        answers = self.rows.astype(float) @ np.asarray(weights, float).ravel()
        if self.kind == "squared":
            return float(np.mean((answers - self.targets) ** 2))
        return float(np.mean(np.logaddexp(0, -self.targets * answers)))

    def score(self, weights: np.ndarray) -> float:
        """The loss of these weights as a multiple of the planted vector's."""
        return self.loss(weights) / self.loss(self.hidden)


def perceptron(load: float, seed: int, size: int = PATTERN_SIZE) -> np.ndarray:
    """Random patterns of signs, each times its random label, `load` of them an element.

    A binary perceptron stores them if a vector of signs has a positive product with each.
    """
    random = np.random.default_rng(seed)
    count = round(load * size)
    patterns = random.choice([-1.0, 1.0], size=(count, size))
    return (patterns * random.choice([-1.0, 1.0], size=(count, 1))).astype(np.float32)


def unsatisfied(patterns: np.ndarray, weights: np.ndarray) -> int:
    """How many patterns have a product with the weights that is not positive."""
    return int(np.sum(patterns.astype(float) @ np.asarray(weights, float).ravel() <= 0))


def _planted() -> dict[str, Planted]:
    """Every list at 64, two lists at 256 and 1,024; 4,096 for two single cases."""
    kinds = ("squared", "logistic")
    cases = [Planted(v, 64, rho, kind) for v in LISTS for rho in (0, 0.9) for kind in kinds]
    cases += [
        Planted(v, size, rho, kind)
        for size in (256, 1024)
        for v in ("four_values", "nine_powers")
        for rho in (0, 0.9)
        for kind in kinds
    ]
    cases += [Planted("four_values", 4096, rho, "squared") for rho in (0, 0.9)]
    return {case.name: case for case in cases}


PLANTED = _planted()
