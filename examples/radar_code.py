"""A ±1 code for radar, sonar or spread spectrum needs a low autocorrelation.

A receiver correlates what it hears with the code. An echo should give one sharp peak, so that
the autocorrelations C[k] at all other lags have to be small. The list has 1 and -1. The loss is
the sum of C[k]^2; the merit factor is n^2 / (2 loss). Known: 108 is the optimum of 40
elements, proved by Packebusch and Mertens (2016); 6 that of 13 elements, Barker's code.

    python examples/radar_code.py --picture code.svg
"""

import argparse

import numpy as np
from drawing import figure, write

import quantal

KNOWN = {13: 6, 40: 108}


def design(n=40, evaluations=40_000_000, seed=0):
    # Evaluations, not seconds: the same code on each machine.
    loss, budget = quantal.objectives.Autocorrelation(n), quantal.Budget(evaluations=evaluations)
    return quantal.search(loss, [1, -1], budget=budget, seed=seed, verbose=0)


def merit(n, loss):
    return n**2 / (2 * loss)


def draw(result, seed, path):
    n = len(result.vector)
    random = np.random.default_rng(seed).choice([-1.0, 1.0], n)
    energy = float(quantal.objectives.Autocorrelation(n)(random[None])[0])
    lags = np.arange(1 - n, n)
    drawn = figure(6.4, 4.6)
    rows = drawn.subplots(2, 1, sharex=True, sharey=True)
    for axes, code, name, loss in (
        (rows[0], result.vector, "searched", result.loss),
        (rows[1], random, "random", energy),
    ):
        axes.vlines(lags, 0, np.correlate(code, code, "full"), color="black", linewidth=2)
        axes.axhline(0, color="black", linewidth=0.6)
        title = f"{name}: loss {loss:.0f}, merit factor {merit(n, loss):.2f}"
        axes.set_title(title, loc="left", fontsize="medium")
    rows[1].set_xlabel("lag")
    drawn.supylabel("autocorrelation", fontsize="medium")
    write(drawn, path)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--evaluations", type=int, default=40_000_000, help="for each code")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--picture", help="a .svg or .png to draw")
    options = parser.parse_args()
    for n, known in KNOWN.items():
        result = design(n, options.evaluations, options.seed)
        print(
            f"{n} elements: ours {result.loss:.0f} after {result.history[-1][0]:.2f} s, proved "
            f"{known}, merit factor {merit(n, result.loss):.2f}"
        )
        print("  " + "".join("+" if value > 0 else "-" for value in result.vector))
    if options.picture:
        draw(result, options.seed, options.picture)


if __name__ == "__main__":
    main()
