"""Find the fewest bits of multipliers that round all sums of a range as a requantization does."""

from typing import NamedTuple

from quantal._export.integer.steps import Range, Requantization

_MOST_RESULTS = 2**10
"""Roundings to more integers keep their multipliers: each result is a condition to check."""


class Narrowed(NamedTuple):
    """Multipliers and addends with one shift: `(sum * multiplier + addend) >> shift`, limited.

    Attributes:
        multiplier: One for each channel.
        addend: As many.
        shift: The shift of all channels.
    """

    multiplier: list[int]
    addend: list[int]
    shift: int


def narrowed(step: Requantization, bounds: Range) -> Narrowed:
    """Return the multipliers of the fewest bits that give the same result for all sums.

    A requantization rises or falls by steps. A candidate gives the same where it reaches each
    step at the same sum; for a multiplier these conditions leave an interval of addends, and the
    smallest shift at which no channel's interval is empty is taken.

    Args:
        step: The requantization.
        bounds: The smallest and the largest sum.
    """
    channels = [
        _Channel(int(m), int(a), int(s), step, bounds)
        for m, a, s in zip(step.multiplier, step.addend, step.shift, strict=True)
    ]
    largest = max(int(shift) for shift in step.shift)
    few = step.high - step.low <= _MOST_RESULTS
    for shift in range(largest if few else 0):
        fits = [fit for channel in channels if (fit := channel.fit(shift)) is not None]
        if len(fits) == len(channels):
            return _with_one_shift(fits, shift)
    # As they are, brought to one shift.
    return _with_one_shift([channel.exact(largest) for channel in channels], largest)


def _with_one_shift(channels: list[tuple[int, int]], shift: int) -> Narrowed:
    """Return the multipliers and addends of channels."""
    return Narrowed([one for one, _ in channels], [addend for _, addend in channels], shift)


class _Channel:
    """The steps of one channel: the first sum that reaches each result, in rising order."""

    def __init__(
        self, multiplier: int, addend: int, shift: int, step: Requantization, bounds: Range
    ) -> None:
        self._given = multiplier, addend, shift
        self._sign = -1 if multiplier < 0 else 1
        ends = sorted(self._sign * int(end) for end in bounds)
        self._low, self._high = ends
        self._results = range(int(step.low) + 1, int(step.high) + 1)

    def exact(self, shift: int) -> tuple[int, int]:
        """Return the given multiplier and addend at a larger shift."""
        multiplier, addend, before = self._given
        return multiplier << (shift - before), addend << (shift - before)

    def fit(self, shift: int) -> tuple[int, int] | None:
        """Return a multiplier and addend at a shift, or None where none gives the same."""
        multiplier, _, given_shift = self._given
        scaled = abs(multiplier) << shift
        for candidate in {scaled >> given_shift, -(-scaled >> given_shift)}:
            addend = self._addend(candidate, shift)
            if addend is not None:
                return self._sign * candidate, addend
        return None

    def _first(self, result: int) -> int:
        """Return the smallest sum (its negative, of a falling channel) that gives a result."""
        multiplier, addend, shift = self._given
        if not multiplier:
            return self._low if addend >> shift >= result else self._high + 1
        # The smallest x of x * multiplier + addend >= result * 2^shift.
        return -((addend - (result << shift)) // abs(multiplier))

    def _addend(self, multiplier: int, shift: int) -> int | None:
        lows, highs = [], []
        for result in self._results:
            first = self._first(result)
            bound = result << shift
            if first <= self._high:
                lows.append(bound - max(first, self._low) * multiplier)
            if first > self._low:
                highs.append(bound - 1 - min(first - 1, self._high) * multiplier)
        low = max(lows, default=None)
        high = min(highs, default=None)
        if low is None:
            return high if high is not None else 0
        if high is not None and low > high:
            return None
        return low
