"""A low-pass filter needs no multipliers if each tap is 0 or a power of two with a sign.

A tap of 2^-k is a shift in hardware. The filter has 15 taps, symmetric, so that 8 are free:

    H(w) = h[0] + 2 (h[1] cos w + ... + h[7] cos 7w)

H should be 1 up to .4 pi and 0 from .5 pi on. The list has 0 and ±1, ±1/2, ..., ±1/256. The loss
is the largest error at 56 frequencies of each band. Known: .21345 is the optimum, proved by
mixed-integer programming; .72842 with the stop band weighted 10; 21 taps reach .17969.

    python examples/fir_filter.py --picture filter.svg
"""

import argparse

import numpy as np
from drawing import figure, write

import quantal

POWERS = [0.0, *(sign * 2.0**-k for k in range(9) for sign in (1, -1))]
PASS, STOP = 0.4, 0.5
KNOWN = {(8, 1): 0.21345, (8, 10): 0.72842, (11, 1): 0.17969}
"""The optima are listed by the number of free taps and the weight of the stop band."""


def responses(free, frequencies):
    """Return a row for each frequency: the contribution of each free tap."""
    rows = 2 * np.cos(np.outer(frequencies, np.arange(free)))
    rows[:, 0] = 1
    return rows


def loss_of(free=8, weight=1.0, points=56):
    passed = np.linspace(0, PASS * np.pi, points)
    stopped = np.linspace(STOP * np.pi, np.pi, points)
    wanted = np.repeat([1.0, 0.0], points)
    rows = responses(free, np.concatenate([passed, stopped]))
    return quantal.objectives.Minimax(rows, wanted, np.where(wanted == 1, 1.0, weight))


def design(free=8, weight=1.0, budget=10.0, seed=0):
    return quantal.search(loss_of(free, weight), POWERS, budget=budget, seed=seed, verbose=0)


def continuous(free=8, weight=1.0):
    """Return the best taps without a list, by linear programming."""
    from scipy.optimize import linprog

    loss = loss_of(free, weight)
    ones = -np.ones((len(loss.matrix), 1))
    rows = np.block([[loss.matrix, ones], [-loss.matrix, ones]])
    limits = np.concatenate([-loss.constant, loss.constant])
    costs = np.append(np.zeros(free), 1.0)
    return linprog(costs, rows, limits, bounds=[(None, None)] * free + [(0, None)]).x[:free]


def rounded(taps):
    return np.array(POWERS)[np.abs(taps[:, None] - POWERS).argmin(axis=1)]


def draw(result, path):
    free = continuous(len(result.vector))
    frequencies = np.linspace(0, np.pi, 241)
    rows = responses(len(free), frequencies)
    shown = {
        "free taps": (free, "0.6", "-", 3.0),
        "free taps, rounded": (rounded(free), "tab:orange", "--", 1.3),
        "searched": (result.vector, "black", "-", 1.3),
    }
    drawn = figure()
    axes = drawn.subplots()
    for name, (taps, color, style, width) in shown.items():
        decibels = 20 * np.log10(np.maximum(np.abs(rows @ taps), 1e-4))
        axes.plot(frequencies / np.pi, decibels, style, color=color, linewidth=width, label=name)
    axes.axvspan(PASS, STOP, color="0.93", zorder=0)
    axes.set(xlabel="frequency / π", ylabel="response in dB", xlim=(0, 1), ylim=(-40, 5))
    axes.set_title("15 taps, each 0 or ±2⁻ᵏ", fontsize="medium")
    axes.legend(loc="lower left")
    write(drawn, path)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--budget", type=float, default=3.0, help="seconds for each filter")
    parser.add_argument("--picture", help="a .svg or .png to draw")
    options = parser.parse_args()
    results = {}
    for (free, weight), known in KNOWN.items():
        result = results[free, weight] = design(free, weight, options.budget)
        (plain,) = loss_of(free, weight)(rounded(continuous(free, weight))[None])
        print(
            f"{2 * free - 1} taps, stop band weighted {weight:2}: ours {result.loss:.5f}, "
            f"proved {known:.5f}, rounded {plain:.5f}; we proved it: {result.proved}"
        )
    if options.picture:
        draw(results[8, 1], options.picture)


if __name__ == "__main__":
    main()
