"""A record follows the codes and latents of one parameter over the ends of epochs."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from quantal._core.numbers.values import Values
from quantal._core.parameter import Parameter
from quantal._core.tensors.distributed import whole_array


class EpochNumbers(NamedTuple):
    """The numbers of an epoch say how codes and latents of some elements moved in it.

    Attributes:
        elements: The number of elements.
        flips: The share of elements whose code is another than at the epoch's start.
        distance: The root mean square of the distance of latents to their nearest value, in
            half gaps: 0 on the values, 1 halfway between two.
        latent_steps: The root mean square of how far latents moved in the epoch, in half of the
            gap in which they are.
        entropy: The bits per element that an entropy coder needs for the codes.
    """

    elements: int
    flips: float
    distance: float
    latent_steps: float
    entropy: float

    def named(self, end: str = "") -> dict[str, float]:
        """Return the numbers by the names that logs have for them, with an end to each name."""
        numbers = self._asdict()
        del numbers["elements"]
        return {f"{name}{end}": number for name, number in numbers.items()}


def total_of(numbers: list[EpochNumbers]) -> EpochNumbers:
    """Return the numbers of all elements of several parameters together."""
    counts = np.array([one.elements for one in numbers], float)
    shares = counts / max(counts.sum(), 1.0)

    def mean(name: str, power: int = 1) -> float:
        each = np.array([getattr(one, name) for one in numbers])
        return float(shares @ each**power) ** (1 / power)

    return EpochNumbers(
        int(counts.sum()), mean("flips"), mean("distance", 2), mean("latent_steps", 2),
        mean("entropy"),
    )  # fmt: skip


class Record:
    """A record keeps what one parameter was at the start of a run and at the end of each epoch.

    Args:
        parameter: The parameter, as it is at the start.
        most_elements: The largest number of elements whose codes are kept.

    Attributes:
        elements: The positions of the elements whose codes are kept, in the flattened shape, (n,).
        rows: Their codes at the start and after each epoch, each (n,).
        shares: The share of elements that have each value, at the same times, each (K,).
        epochs: The numbers of each epoch.
        largest_step: The largest distance that a latent moved in an epoch so far, in list units.
        is_finite: Whether all latents were finite at the last look.
    """

    def __init__(self, parameter: Parameter, most_elements: int) -> None:
        self.parameter, self.path = parameter, parameter.path
        size = int(np.prod(parameter.shape))
        count = min(size, most_elements)
        # Evenly spaced, so that a part of each row of a large kernel is seen.
        self.elements = np.arange(count) * size // max(count, 1)
        self.values = parameter.values
        longest = len(self.values) - 1
        self._dtype = np.min_scalar_type(max(longest, 0))
        self._latents = self._present_latents()
        self.is_finite = bool(np.isfinite(self._latents).all())
        self._codes = self.values.codes(self._latents)
        self.rows = [self._row()]
        self.shares = [self._shares()]
        self.epochs: list[EpochNumbers] = []
        self.largest_step = 0.0

    def update(self) -> EpochNumbers:
        """Take the present codes and latents in at an epoch's end, and return its numbers."""
        self.values = self.parameter.values  # Learnable lists move.
        before, latents_before = self._codes, self._latents
        self._latents = self._present_latents()
        self.is_finite = bool(np.isfinite(self._latents).all())
        self._codes = self.values.codes(self._latents)
        self.rows.append(self._row())
        self.shares.append(self._shares())
        steps = self._latents - latents_before
        offsets = self._latents - self.values.take(self._codes)
        half_gaps = _half_gaps_around(self.values, self._codes, offsets)
        numbers = EpochNumbers(
            elements=self._codes.size,
            flips=float(np.mean(self._codes != before)),
            distance=_root_mean_square(offsets / half_gaps),
            latent_steps=_root_mean_square(steps / half_gaps),
            entropy=_entropy(self.shares[-1]),
        )
        self.largest_step = max(self.largest_step, float(np.abs(steps).max(initial=0.0)))
        self.epochs.append(numbers)
        return numbers

    def half_gaps(self) -> NDArray[np.float64]:
        """Return half of each distance between neighbouring values, of all channels."""
        return np.diff(self.values.ascending.astype(float), axis=-1).ravel() / 2

    def epochs_without_flips(self) -> int:
        """Return how many of the last epochs changed no code."""
        count = 0
        for numbers in reversed(self.epochs):
            if numbers.flips:
                break
            count += 1
        return count

    def changed(self) -> float:
        """Return the share of the kept elements that have another code than at the start."""
        return float(np.mean(self.rows[-1] != self.rows[0]))

    def never_used(self) -> list[float]:
        """Return the values that no element had at any time; none for a list per channel."""
        if self.values.channels is not None:
            return []
        is_used = np.stack(self.shares).any(axis=0)
        return [self.values.tolist()[code] for code in np.flatnonzero(~is_used)]

    def _present_latents(self) -> NDArray[np.float32]:
        latents: Any = whole_array(self.parameter.latent_in_list_units)
        return np.array(latents)

    def _row(self) -> NDArray[Any]:
        return self._codes.reshape(-1)[self.elements].astype(self._dtype)

    def _shares(self) -> NDArray[np.float64]:
        return self.values.usage(self._codes) / max(self._codes.size, 1)


def _entropy(shares: NDArray[np.float64]) -> float:
    """Return Shannon's entropy of shares, in bits."""
    used = shares[shares > 0]
    return abs(float(used @ np.log2(used)))


def _root_mean_square(numbers: NDArray[np.float32]) -> float:
    return float(np.linalg.norm(numbers)) / max(numbers.size, 1) ** 0.5


def _half_gaps_around(
    values: Values, codes: NDArray[np.integer], offsets: NDArray[np.floating]
) -> NDArray[np.float32]:
    """Return half of the gap of the list in which each latent is; beyond its ends, the last one.

    Args:
        values: The list.
        codes: The codes of the elements.
        offsets: The latents minus the values of these codes, in the same shape.
    """
    if len(values) == 1:
        return np.ones(codes.shape, np.float32)
    gaps = np.diff(np.atleast_2d(values.ascending).astype(float), axis=1)
    if np.ptp(gaps) == 0:
        return np.full(codes.shape, gaps[0, 0] / 2, np.float32)
    # The gap below each value; the one above it follows.
    padded = np.concatenate([gaps[:, :1], gaps, gaps[:, -1:]], axis=1).astype(np.float32) / 2
    ranks_of_codes = np.argsort(np.atleast_2d(values.order), axis=1)
    if values.channels is None:
        return padded[0, ranks_of_codes[0][codes] + (offsets > 0)]
    shape = [1] * codes.ndim
    shape[values.axis] = values.channels
    channels = np.arange(values.channels).reshape(shape)
    return padded[channels, ranks_of_codes[channels, codes] + (offsets > 0)]
