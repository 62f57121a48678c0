"""A good design of experiments is a square matrix of ±1 with a large determinant.

A row is a trial, a column a factor that is low or high; the larger the determinant of X, the
more exactly the effects of all factors are measured (a D-optimal design). The list has 1 and -1.
The loss is minus the logarithm of abs(det X), a function in NumPy. Known: 2985984 for
12 x 12 and 4294967296 for 16 x 16, Hadamard's bound n^(n/2); 14929920 for 13 x 13, proved.
10240000000000 for 20 x 20, which takes some seconds.

    python examples/two_level_design.py --picture design.svg
"""

import argparse

import numpy as np
from drawing import figure, write

import quantal

KNOWN = {8: 4096, 12: 2985984, 13: 14929920, 16: 4294967296, 20: 10240000000000}


def design(n=12, budget=4.0, seed=0):
    def loss(rows):
        _, logarithms = np.linalg.slogdet(rows.reshape(-1, n, n).astype(np.float64))
        # Singular matrices have to have a number, too.
        return -np.maximum(logarithms, -1.0)

    return quantal.search(loss, [1, -1], n=n * n, budget=budget, seed=seed, verbose=0)


def matrix_of(result):
    n = round(len(result.vector) ** 0.5)
    return result.vector.reshape(n, n)


def determinant(result):
    return round(abs(np.linalg.det(matrix_of(result))))


def draw(result, path):
    matrix = matrix_of(result)
    n = len(matrix)
    drawn = figure(6.4, 3.4)
    left, right = drawn.subplots(1, 2)
    left.imshow(matrix, cmap="gray", vmin=-1, vmax=1)
    left.set_title("the design X: black is −1", fontsize="medium")
    left.set(xlabel="factor", ylabel="trial", xticks=[0, n - 1], yticks=[0, n - 1])
    information = (matrix.T @ matrix).astype(int)
    right.imshow(np.abs(information), cmap="gray_r", vmin=0, vmax=n)
    for (row, column), number in np.ndenumerate(information):
        if number:
            color = "white" if abs(number) > n / 2 else "black"
            right.text(column, row, number, ha="center", va="center", color=color, size="x-small")
    right.set_title("its information Xᵀ X", fontsize="medium")
    right.set(xlabel="factor", ylabel="factor", xticks=[0, n - 1], yticks=[0, n - 1])
    write(drawn, path)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[12, 13, 16])
    parser.add_argument("--budget", type=float, default=1.5, help="seconds for each size")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--picture", help="a .svg or .png to draw")
    options = parser.parse_args()
    results = {n: design(n, options.budget, options.seed) for n in options.sizes}
    for n, result in results.items():
        print(
            f"{n} x {n}: ours {determinant(result)} after {result.history[-1][0]:.2f} s, "
            f"known {KNOWN.get(n, 'nothing')}"
        )
    if options.picture:
        draw(results[options.sizes[0]], options.picture)


if __name__ == "__main__":
    main()
