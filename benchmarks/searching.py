"""How far `quantal.search` comes in seconds, on problems with known best values.

    python benchmarks/searching.py --data DIR labs fir maxcut dense beamforming designs parts

`DIR` holds gset/, dense_maxcut/ and beamforming/. Every run is shown, not the best; one
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
    return quantal.objectives.Quadratic(weights / 2, constant=-edges[:, 2].sum() / 2)


def maxcut(data, seeds):
    for name, best in CUTS.items():
        loss = cut_loss(data / "gset" / f"{name}.txt")
        yield from runs(f"MaxCut {name}", loss, [1, -1], None, 12, seeds, -best)


def dense(data, seeds):
    for path in sorted((data / "dense_maxcut").glob("*.mc")):
        name = path.name.removesuffix(".sparse.mc")
        best = float((path.parent / f"{name}_opt_value.txt").read_text().split()[0])
        budget = 5 if name.startswith("bqp500") else 1
        if name.startswith("bqp500") and name != "bqp500-1":
            continue
        yield from runs(name, cut_loss(path), [1, -1], None, budget, seeds, -abs(best))


def labs(_, seeds):
    for n, (best, budget) in {27: (37, 1), 40: (108, 10), 64: (208, 60)}.items():
        loss = quantal.objectives.Autocorrelation(n)
        yield from runs(f"LABS {n}", loss, [1, -1], n, budget, seeds, best)


def beamforming(data, _):
    optima = json.loads((data / "beamforming" / "optima.json").read_text())
    for count in (2, 4, 8):
        phases = np.exp(2j * np.pi * np.arange(count) / count)
        for i, best in enumerate(optima[f"N256_K{count}"]["opt"]):
            r = np.random.RandomState(1000 + i)
            h = (r.randn(256) + 1j * r.randn(256)) / np.sqrt(2)
            h0 = (r.randn() + 1j * r.randn()) / np.sqrt(2)
            name = f"beamforming 256, {count} phases, {i}"
            yield from runs(name, quantal.objectives.Magnitude(h, h0), phases, 256, 10, 1, -best)


def fir(_, seeds):
    """Type I filters; the error that is shown is that on the dense grid."""
    powers = [0.0, *(sign * 2.0**-k for k in range(9) for sign in (1, -1))]
    for name, half, weight, best in (
        ("A15", 7, 1, 0.21345), ("B15", 7, 10, 0.72842), ("A21", 10, 1, 0.17969)
    ):  # fmt: skip
        loss, dense_loss = (_filter(half, weight, each * half) for each in (16, 64))
        for seed in range(seeds):
            result = quantal.search(loss, powers, budget=20, seed=seed, verbose=0)
            (error,) = dense_loss(result.vector[None])
            yield row(f"FIR {name}", seed, result, error, best, 20)


def _filter(half, weight, points):
    edges = ((0, 0.4), (0.5, 1))
    at = np.pi * np.concatenate([np.linspace(*band, points) for band in edges])
    matrix = 2 * np.cos(np.outer(at, np.arange(half + 1)))
    matrix[:, 0] = 1
    passes = np.repeat([1.0, 0.0], points)
    return quantal.objectives.Minimax(matrix, passes, np.repeat([1.0, weight], points))


def designs(_, seeds):
    known = {
        6: 160, 8: 4096, 10: 73728, 12: 2985984, 13: 14929920, 14: 77635584, 16: 4294967296,
        20: 10240000000000,
    }  # fmt: skip
    for n, best in known.items():

        def loss(v, n=n):
            return -np.linalg.slogdet(v.reshape(-1, n, n))[1]

        budget = 10 if n == 20 else 5 if n == 16 else 2
        for seed in range(seeds):
            result = quantal.search(loss, [1, -1], n * n, budget, seed, verbose=0)
            yield row(f"determinant {n}", seed, result, np.exp(-result.loss), best, budget)


def parts(_, seeds):
    e24 = np.array([
        1.0, 1.1, 1.2, 1.3, 1.5, 1.6, 1.8, 2.0, 2.2, 2.4, 2.7, 3.0,
        3.3, 3.6, 3.9, 4.3, 4.7, 5.1, 5.6, 6.2, 6.8, 7.5, 8.2, 9.1,
    ])  # fmt: skip
    resistors = np.concatenate([1e3 * e24, 1e4 * e24])
    e12 = np.array([1.0, 1.2, 1.5, 1.8, 2.2, 2.7, 3.3, 3.9, 4.7, 5.6, 6.8, 8.2])
    capacitors = np.concatenate([1e-9 * e12, 1e-8 * e12])
    lists = [resistors, resistors, capacitors, capacitors]
    known = {
        (1000, 0.70711): 2.72e-6, (1000, 1.30656): 2.83e-6, (440, 0.5412): 8.98e-6,
        (2500, 2.0): 1.49e-5, (3333, 0.9): 1.62e-6,
    }  # fmt: skip
    for (frequency, quality), best in known.items():

        def loss(v, frequency=frequency, quality=quality):
            r1, r2, c1, c2 = np.asarray(v, float).T
            both = np.sqrt(r1 * r2 * c1 * c2)
            off = 1 / (2 * np.pi * both * frequency) - 1, both / (c2 * (r1 + r2) * quality) - 1
            return np.square(off).sum(axis=0)

        yield from runs(f"parts {frequency}, {quality}", loss, lists, None, 5, seeds, best)


def runs(name, loss, values, n, budget, seeds, best):
    for seed in range(seeds):
        result = quantal.search(loss, values, n, budget, seed, verbose=0)
        yield row(name, seed, result, result.loss, best, budget)


def row(name, seed, result, reached, best, budget):
    seconds = f"{result.history[-1][0]:.2f} of {budget}"
    return name, seed, reached, best, 100 * reached / best, seconds, result.proved


def main():
    cases = {
        "labs": labs, "fir": fir, "maxcut": maxcut, "dense": dense, "beamforming": beamforming,
        "designs": designs, "parts": parts,
    }  # fmt: skip
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("case", nargs="+", choices=cases)
    parser.add_argument("--data", type=pathlib.Path, required=True)
    parser.add_argument("--seeds", type=int, default=5)
    arguments = parser.parse_args()
    print("| problem | seed | loss | best known | % of it | found after, s | proved |")
    print("|---|---|---|---|---|---|---|")
    for case in arguments.case:
        for name, seed, loss, best, share, seconds, proved in cases[case](
            arguments.data, arguments.seeds
        ):
            told = "yes" if proved else ""
            print(
                f"| {name} | {seed} | {loss:.9g} | {best:.9g} | {share:.3f} | {seconds} | {told} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
