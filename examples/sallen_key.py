"""A Sallen-Key low-pass filter gets its parts from the series that shops sell.

Unity gain: f = 1 / (2 pi sqrt(R1 R2 C1 C2)) and q = sqrt(R1 R2 C1 C2) / (C2 (R1 + R2)) should
be f0 and Q. The lists are: R1 and R2 from E24, 1 kOhm to 91 kOhm; C1 and C2 from E12, 1 nF to
82 nF; one list for each element. The loss is (f / f0 - 1)^2 + (q / Q - 1)^2. The 1,327,104
assignments are few enough to evaluate all of them, so that the best is proved. The losses in
`KNOWN` are known by enumeration.

    python examples/sallen_key.py --picture filter.svg
"""

import argparse

import numpy as np
from drawing import figure, write

import quantal

OHMS = quantal.Values.e_series(24, low=1e3, high=91e3)
FARADS = quantal.Values.e_series(12, low=1e-9, high=82e-9)
KNOWN = {
    (1000, 0.70711): 2.72e-6,
    (1000, 1.30656): 2.83e-6,
    (440, 0.5412): 8.98e-6,
    (2500, 2.0): 1.49e-5,
    (3333, 0.9): 1.62e-6,
}


def frequency_and_quality(parts):
    r1, r2, c1, c2 = np.asarray(parts, np.float64).T
    root = np.sqrt(r1 * r2 * c1 * c2)
    return 1 / (2 * np.pi * root), root / (c2 * (r1 + r2))


def design(frequency, quality, budget=10.0):
    def loss(parts):
        f, q = frequency_and_quality(parts)
        return (f / frequency - 1) ** 2 + (q / quality - 1) ** 2

    return quantal.search(loss, [OHMS, OHMS, FARADS, FARADS], budget=budget, verbose=0)


def response(frequency, quality, at):
    """Return the amplitude in dB."""
    ratio = 1j * at / frequency
    return -20 * np.log10(np.abs(1 + ratio / quality + ratio**2))


def draw(results, path):
    at = np.geomspace(100, 10000, 81)
    drawn = figure()
    axes = drawn.subplots()
    styles = ["-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1))]
    for ((frequency, quality), result), style in zip(results.items(), styles, strict=True):
        f, q = (number.item() for number in frequency_and_quality(result.vector[None]))
        axes.plot(at, response(frequency, quality, at), color="0.75", linewidth=4)
        name = f"{frequency} Hz, Q = {quality:.4g}"
        axes.plot(at, response(f, q, at), color="black", linestyle=style, label=name, linewidth=1.2)
    axes.plot([], [], color="0.75", linewidth=4, label="wanted")
    axes.set(xscale="log", xlabel="frequency in Hz", ylabel="response in dB", ylim=(-40, 10))
    axes.set_xlim(100, 10000)
    axes.set_title("with parts from E24 and E12", fontsize="medium")
    axes.legend(loc="lower left", fontsize="small")
    write(drawn, path)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--picture", help="a .svg or .png to draw")
    options = parser.parse_args()
    results = {wanted: design(*wanted) for wanted in KNOWN}
    for (frequency, quality), result in results.items():
        r1, r2, c1, c2 = result.vector
        print(
            f"{frequency:4} Hz, Q {quality:<7}: ours {result.loss:.2e}, known "
            f"{KNOWN[frequency, quality]:.2e}, proved: {result.proved}; R {r1 / 1e3:.3g} and "
            f"{r2 / 1e3:.3g} kOhm, C {c1 * 1e9:.3g} and {c2 * 1e9:.3g} nF"
        )
    if options.picture:
        draw(results, options.picture)


if __name__ == "__main__":
    main()
