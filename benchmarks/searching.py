"""How far `quantal.search` comes in seconds, on problems with known best values.

    python benchmarks/searching.py --data DIR maxcut dense labs beamforming --seeds 5

`DIR` holds gset/, dense_maxcut/, labs/ and beamforming/. Every run is shown, not the best; one
thread. Prints a Markdown table.
"""

import argparse
import json
import pathlib

import numpy as np
from scipy.sparse import coo_array

import quantal

CUTS = {"G1": 11624, "G14": 3064, "G22": 13359, "G43": 6660}
"""Best known cuts (Benlic and Hao, 2013)."""


def cut_loss(path):
    """Minus the weight of the edges between +1 and -1."""
    lines = path.read_text().split("\n")
    n = int(lines[0].split()[0])
    edges = np.array([line.split() for line in lines[1:] if line.strip()], float)
    places = edges[:, 0].astype(int) - 1, edges[:, 1].astype(int) - 1
    weights = coo_array((edges[:, 2], places), shape=(n, n))
    return quantal.Quadratic(weights / 2, constant=-edges[:, 2].sum() / 2)


def maxcut(data, seeds):
    for name, best in CUTS.items():
        loss = cut_loss(data / "gset" / f"{name}.txt")
        yield from runs(f"MaxCut {name}", loss, [1, -1], None, 12, seeds, -best)


def dense(data, seeds):
    for path in sorted((data / "dense_maxcut").glob("*.mc")):
        name = path.name.removesuffix(".sparse.mc")
        best = float((path.parent / f"{name}_opt_value.txt").read_text().split()[0])
        budget = 20 if name.startswith("bqp500") else 5
        if name.startswith("bqp500") and name != "bqp500-1":
            continue
        yield from runs(name, cut_loss(path), [1, -1], None, budget, seeds, -abs(best))


def labs(data, seeds):
    known = {27: (37, 1), 40: (108, 10), 64: (208, 60)}
    for n, (best, budget) in known.items():

        def loss(v, n=n):
            spectrum = np.abs(np.fft.rfft(v, 2 * n, axis=1)) ** 2
            return (np.round(np.fft.irfft(spectrum, axis=1)[:, 1:n]) ** 2).sum(axis=1)

        yield from runs(f"LABS {n}", loss, [1, -1], n, budget, seeds, best)


def beamforming(data, seeds):
    optima = json.loads((data / "beamforming" / "optima.json").read_text())
    for count in (2, 4, 8):
        phases = np.exp(2j * np.pi * np.arange(count) / count)
        for i, best in enumerate(optima[f"N256_K{count}"]["opt"]):
            r = np.random.RandomState(1000 + i)
            h = (r.randn(256) + 1j * r.randn(256)) / np.sqrt(2)
            h0 = (r.randn() + 1j * r.randn()) / np.sqrt(2)

            def loss(v, h=h, h0=h0):
                return -np.abs(h0 + v @ h)

            name = f"beamforming 256, {count} phases, {i}"
            yield from runs(name, loss, phases, 256, 10, 1, -best)


def runs(name, loss, values, n, budget, seeds, best):
    for seed in range(seeds):
        found = quantal.search(loss, values, n, budget, seed, verbose=0)
        reached = found.history[-1][0]
        yield name, seed, found.loss, best, 100 * found.loss / best, f"{reached:.2f} of {budget}"


def main():
    cases = {"maxcut": maxcut, "dense": dense, "labs": labs, "beamforming": beamforming}
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("case", nargs="+", choices=cases)
    parser.add_argument("--data", type=pathlib.Path, required=True)
    parser.add_argument("--seeds", type=int, default=5)
    arguments = parser.parse_args()
    print("| problem | seed | loss | best known | % of it | found after, s |")
    print("|---|---|---|---|---|---|")
    for case in arguments.case:
        for name, seed, loss, best, share, seconds in cases[case](arguments.data, arguments.seeds):
            print(
                f"| {name} | {seed} | {loss:.9g} | {best:.9g} | {share:.3f} | {seconds} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
