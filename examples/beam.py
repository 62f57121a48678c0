"""Search computes the phases of 1, 2 or 3 bits with which an antenna has its strongest beam.

The antenna is a line of 64 elements, half a wavelength from each other. Each adds its phase from
a list of K phases, evenly spaced, and has a phase error that was measured. The loss is minus the
magnitude of the sum towards 20 degrees; `quantal.objectives.Magnitude` has an exact method for it.
The same serves a reflecting surface in front of one receiver: there the channel of each element
is a complex Gaussian number. K phases of many elements lose
20 log10(K/pi sin(pi/K)) dB against free phases: 3.922, .912, .224 dB for K = 2, 4, 8.
Of 64 elements the best vector loses a little less.

    python examples/beam.py --picture beam.svg
"""

import argparse

import numpy as np
from drawing import write

import quantal
from quantal.plots import plot_beam

ELEMENTS, ANGLE = 64, 20.0


def limit(count):
    """Return the loss in dB of many elements with so many phases."""
    return 20 * np.log10(count / np.pi * np.sin(np.pi / count))


def array_of(seed=0, angles=ANGLE, n=ELEMENTS):
    """Return the contribution of each element, with its phase error, towards angles in degrees."""
    errors = np.random.default_rng(seed).uniform(0, 2 * np.pi, n)
    sines = np.sin(np.deg2rad(np.atleast_1d(angles)))
    return np.exp(1j * (np.pi * np.outer(sines, np.arange(n)) + errors))


def surface_of(seed=0, n=ELEMENTS):
    """Return the channels of a reflecting surface: random magnitudes and phases."""
    random = np.random.default_rng(seed)
    return random.normal(size=n) + 1j * random.normal(size=n)


def design(channel, count):
    phases = np.exp(2j * np.pi * np.arange(count) / count)
    return quantal.search(quantal.objectives.Magnitude(channel), phases, budget=5, verbose=0)


def lost(channel, result):
    """Return the loss against free phases, in dB."""
    return 20 * np.log10(-result.loss / np.abs(channel).sum())


def draw(seed, path):
    (channel,), (errors,) = array_of(seed), array_of(seed, 0.0)
    vectors = {
        "free phases": np.conj(channel),
        **{f"{b} bit{'s' * (b > 1)}": design(channel, 2**b).vector for b in (3, 2, 1)},
    }
    write(plot_beam({name: vector * errors for name, vector in vectors.items()}), path)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=0, help="of the phase errors")
    parser.add_argument("--picture", help="a .svg or .png to draw")
    options = parser.parse_args()
    channels = {"line": array_of(options.seed)[0], "surface": surface_of(options.seed)}
    for name, channel in channels.items():
        for count in (2, 4, 8):
            result = design(channel, count)
            print(
                f"{name}, {count} phases: ours {lost(channel, result):.3f} dB "
                f"(proved: {result.proved}), limit of many elements {limit(count):.3f} dB"
            )
    if options.picture:
        draw(options.seed, options.picture)


if __name__ == "__main__":
    main()
