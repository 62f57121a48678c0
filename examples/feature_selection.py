"""Search chooses the best k of 64 features for a linear model.

The data are scikit-learn's on diabetes: 10 features, their squares and products, standardized.
The list has 0 and 1, and k elements are 1 (`Constraints(counts={1: k})`). The loss is the
variance that remains after least squares on the chosen columns, fitted anew for each mask: a
function of masks, in NumPy. It is not a quadratic function of the mask. Known: for k = 5 the
least of all 7,624,512 subsets is .4913684, by evaluating each of them.

    python examples/feature_selection.py --picture features.svg
"""

import argparse

import numpy as np
from drawing import figure, write

import quantal

KNOWN = {5: 0.49136844}


def read():
    """Return standardized columns (442, 64) and the targets (442,)."""
    from sklearn.datasets import load_diabetes

    features, wanted = load_diabetes(return_X_y=True)
    features = features - features.mean(0)
    pairs = [(i, j) for i in range(10) for j in range(i, 10)]
    # The square of a feature of two values says nothing new.
    pairs = [(i, j) for i, j in pairs if i != j or len(np.unique(features[:, i])) > 2]
    products = [features[:, i] * features[:, j] for i, j in pairs]
    columns = np.column_stack([features, *products])
    columns = (columns - columns.mean(0)) / columns.std(0)
    return columns, (wanted - wanted.mean()) / wanted.std()


def loss_of(columns, wanted):
    gram, products = columns.T @ columns / len(wanted), columns.T @ wanted / len(wanted)

    def loss(masks):
        chosen = np.nonzero(masks)[1].reshape(len(masks), -1)
        inner, right = gram[chosen[:, :, None], chosen[:, None, :]], products[chosen]
        fitted = np.linalg.solve(inner, right[:, :, None])[:, :, 0]
        return 1 - (fitted * right).sum(axis=1)

    return loss


def design(columns, wanted, count=5, budget=1.0, seed=0):
    loss, n = loss_of(columns, wanted), columns.shape[1]
    constraints = quantal.Constraints(counts={1: count})
    return quantal.search(
        loss, [0, 1], n=n, budget=budget, seed=seed, constraints=constraints, verbose=0
    )


def greedy(loss, n, most):
    """Return the losses of 1, 2, ... features, each added to those before."""
    mask, losses = np.zeros(n), []
    for _ in range(most):
        unused = np.flatnonzero(mask == 0)
        losses_with_each = loss(mask + np.eye(n)[unused])
        mask[unused[losses_with_each.argmin()]] = 1
        losses.append(float(losses_with_each.min()))
    return losses


def lasso(loss, columns, wanted, most):
    """Return the losses of the first features on the lasso's path, fitted without shrinking."""
    from sklearn.linear_model import lars_path

    *_, path = lars_path(columns, wanted, method="lasso")
    used = (path != 0).T
    sets = [used[used.sum(axis=1) == count][:1] for count in range(1, most + 1)]
    return [float(loss(mask)[0]) if len(mask) else np.nan for mask in sets]


def draw(lines, path):
    drawn = figure()
    axes = drawn.subplots()
    counts = range(1, len(lines["searched"]) + 1)
    styles = {"lasso": ("0.6", "s-"), "greedy": ("tab:orange", "^--"), "searched": ("black", "o-")}
    for name, (color, style) in styles.items():
        axes.plot(counts, lines[name], style, color=color, label=name, markersize=5)
    axes.set(xlabel="features", ylabel="variance that remains, training")
    axes.set_title("the best k of 64 features", fontsize="medium")
    axes.legend()
    write(drawn, path)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--budget", type=float, default=0.8, help="seconds for each count")
    parser.add_argument("--most", type=int, default=8, help="features")
    parser.add_argument("--picture", help="a .svg or .png to draw")
    options = parser.parse_args()
    columns, wanted = read()
    loss, n = loss_of(columns, wanted), columns.shape[1]
    results = [design(columns, wanted, k, options.budget) for k in range(1, options.most + 1)]
    lines = {
        "searched": [result.loss for result in results],
        "greedy": greedy(loss, n, options.most),
        "lasso": lasso(loss, columns, wanted, options.most),
    }
    print("features  searched  greedy   lasso    proved")
    for k, numbers in enumerate(zip(*lines.values(), strict=True), 1):
        proved = f"{KNOWN[k]:.5f}" if k in KNOWN else "-"
        print(f"{k:8}  " + "  ".join(f"{number:.5f}" for number in numbers) + f"  {proved}")
    if options.picture:
        draw(lines, options.picture)


if __name__ == "__main__":
    main()
