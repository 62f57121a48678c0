"""One sentence says which list a sweep speaks for, and how sure that is."""

import math
from collections.abc import Sequence

from quantal._sweep.cell import SweepCell

ENOUGH_SEEDS = 3
"""The spread of fewer seeds is known too roughly: that of two is often off by a factor of two."""


def advice_on(cells: Sequence[SweepCell], metric: str, maximize: bool, missing: int = 0) -> str:
    """Return the sentence.

    The list with the best mean is compared with the others, each with its best estimator and
    learning rate. A list is tied with it if the means are no further apart than the seeds of one
    list are: by the standard deviation of both together. Of the tied ones the smallest is
    advised. Other estimators and rates that are tied with its own on this list are named, so that
    none of them is taken for better than chance.

    Args:
        cells: What each list with each estimator and learning rate has reached.
        metric: The metric's name.
        maximize: Whether more of it is better.
        missing: How many trials are not done.
    """
    sign = 1.0 if maximize else -1.0
    listed = [cell for cell in cells if cell.scores and not cell.failures and not cell.is_free]
    if not listed:
        return "No list has come to its end without a failure, so there is nothing to advise."
    picks = _best_of_each_list(listed, sign)
    best = max(picks, key=lambda cell: sign * cell.mean)
    tied = [cell for cell in picks if sign * (best.mean - cell.mean) <= _spread(best, cell)]
    chosen = min(tied, key=lambda cell: (cell.bytes or math.inf, -sign * cell.mean))
    parts = [f"Take {_name(chosen, listed)}: {_numbers(chosen, metric)}{_why(chosen, best, picks)}"]
    parts += _as_good(chosen, listed, sign)
    free = [cell for cell in cells if cell.is_free and cell.scores]
    if free:
        float_best = max(free, key=lambda cell: sign * cell.mean)
        parts.append(f"free floats reach {float_best.score_text} in {_bytes(float_best)}")
    parts += _caveats(picks, missing)
    return "; ".join(parts) + "."


def _best_of_each_list(cells: Sequence[SweepCell], sign: float) -> list[SweepCell]:
    """Return for each list the cell with the best mean."""
    best: dict[str, SweepCell] = {}
    for cell in cells:
        current = best.get(cell.values)
        if current is None or sign * cell.mean > sign * current.mean:
            best[cell.values] = cell
    return list(best.values())


def _spread(one: SweepCell, other: SweepCell) -> float:
    """Return the standard deviation from seed to seed of two cells together; 0 if unknown."""
    spreads = [cell.spread for cell in (one, other) if cell.spread is not None]
    if not spreads:
        return 0.0
    return math.sqrt(sum(spread**2 for spread in spreads) / len(spreads))


def _why(chosen: SweepCell, best: SweepCell, picks: Sequence[SweepCell]) -> str:
    """Return what speaks for a list among all."""
    if len(picks) == 1:
        return ""
    if chosen is not best:
        return f", tied within the seeds' spread with the best, {best.values} ({_brief(best)})"
    if all((chosen.bytes or 0) <= (cell.bytes or 0) for cell in picks):
        return ", the best and the smallest"
    if chosen.spread is None:
        return ", the best"
    return ", the best; no smaller list comes within the seeds' spread of it"


def _as_good(chosen: SweepCell, listed: Sequence[SweepCell], sign: float) -> list[str]:
    """Return which estimators and rates are tied with those of a cell on the same list."""
    others = [
        cell
        for cell in listed
        if cell.values == chosen.values
        and cell is not chosen
        and chosen.spread is not None
        and sign * (chosen.mean - cell.mean) <= _spread(chosen, cell)
    ]
    if not others:
        return []
    names = [f"{' '.join(_setting(cell, listed))} ({cell.score_text})" for cell in others]
    return [f"{' and '.join(names)} it is as good within the seeds' spread"]


def _caveats(picks: Sequence[SweepCell], missing: int) -> list[str]:
    """Return what makes the sentence less sure."""
    caveats = []
    seeds = min(len(cell.scores) for cell in picks)
    if len(picks) > 1 and seeds == 1:
        caveats.append("one seed cannot tell lists from chance: give the seeds 0, 1, 2")
    elif len(picks) > 1 and seeds < ENOUGH_SEEDS:
        caveats.append(f"{seeds} seeds show their spread roughly: give the seeds 0, 1, 2")
    if missing:
        caveats.append(f"{missing} trials are still to come")
    return caveats


def _name(cell: SweepCell, listed: Sequence[SweepCell]) -> str:
    """Return a list's name, with the estimator and the rate where there are several."""
    return " ".join([cell.values, *_setting(cell, listed)])


def _setting(cell: SweepCell, listed: Sequence[SweepCell]) -> list[str]:
    """Return the estimator and the rate where there are several."""
    parts = []
    if len({other.estimator for other in listed}) > 1:
        parts.append(f"with {cell.estimator}")
    if len({other.learning_rate for other in listed}) > 1:
        parts.append(f"at a learning rate of {cell.learning_rate:g}")
    return parts


def _numbers(cell: SweepCell, metric: str) -> str:
    return f"{metric} {cell.score_text} in {_bytes(cell)}"


def _brief(cell: SweepCell) -> str:
    return f"{cell.score_text}, {_bytes(cell)}"


def _bytes(cell: SweepCell) -> str:
    return "an unknown size" if cell.bytes is None else f"{cell.bytes:,.0f} bytes"
