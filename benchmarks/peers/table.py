"""The rows of `run` as Markdown tables: `python benchmarks/peers/table.py results.jsonl`.

The first: for each list and library the better of the two rates, by mean test accuracy; the lowest
and highest over the seeds; the processor's time for an epoch, the median of a run without its
first, and its range over the runs, as multiples of quantal's on the same list.
The second: quantal with each end against every other library. It is ahead where its lowest seed
is above the other's highest, behind where its highest is below the other's lowest, else tied.
"""

import json
import statistics
import sys
from collections import defaultdict
from typing import NamedTuple


class Cell(NamedTuple):
    """What a library reaches on a list at the better of its rates."""

    rate: float
    accuracies: list[float]  # One a seed.
    seconds: list[float]  # The median epoch of each run.

    @property
    def mean(self) -> float:
        """The mean accuracy is what rates are chosen by."""
        return statistics.mean(self.accuracies)

    @property
    def span(self) -> str:
        """The accuracy is written as its mean, lowest and highest."""
        return f"{self.mean:.2f} ({min(self.accuracies):.2f} to {max(self.accuracies):.2f})"


def name_of(row: dict) -> str:
    """Return the library of a row, and what ends its run if that is no schedule."""
    return row["library"] + (", Finish()" if row.get("end") == "finish" else "")


def cells(rows: list[dict]) -> dict[tuple[str, str], Cell]:
    """Return the cell of each list and library."""
    by_rate = defaultdict(list)
    for row in rows:
        by_rate[row["list"], name_of(row), row["rate"]].append(row)
    best: dict[tuple[str, str], Cell] = {}
    for (kind, library, rate), group in by_rate.items():
        seconds = [statistics.median(row["processor_seconds_per_epoch"][1:]) for row in group]
        cell = Cell(rate, [row["test_accuracy"] for row in group], seconds)
        incumbent = best.get((kind, library))
        if incumbent is None or cell.mean > incumbent.mean:
            best[kind, library] = cell
    return best


def accuracies(best: dict[tuple[str, str], Cell]) -> str:
    """Draw the first table."""
    lines = [
        "| list | library | rate | accuracy, mean (lowest to highest) | seeds "
        "| time an epoch, quantal = 1 |",
        "|---|---|---|---|---|---|",
    ]
    for (kind, library), cell in sorted(best.items(), key=lambda item: -item[1].mean):
        unit = statistics.median(best[kind, "quantal"].seconds)
        times = [second / unit for second in cell.seconds]
        lines.append(
            f"| {kind} | {library} | {cell.rate:g} | {cell.span} | {len(cell.accuracies)} "
            f"| {statistics.median(times):.2f} ({min(times):.2f} to {max(times):.2f}) |"
        )
    order = list(dict.fromkeys(kind for kind, _ in best))
    return "\n".join(lines[:2] + sorted(lines[2:], key=lambda s: order.index(s.split()[1])))


def verdict(cell: Cell, other: Cell) -> str:
    """Say whether the first is ahead of the other by more than their seeds differ."""
    if min(cell.accuracies) > max(other.accuracies):
        word = "ahead"
    elif max(cell.accuracies) < min(other.accuracies):
        word = "behind"
    else:
        word = "tied"
    return f"{word} ({cell.mean - other.mean:+.2f})"


def verdicts(best: dict[tuple[str, str], Cell]) -> str:
    """Draw the second table."""
    names = list(dict.fromkeys(name for _, name in best))
    ends = [name for name in names if name.startswith("quantal")]
    others = [name for name in names if name not in ends]
    lines = [f"| list | quantal with | {' | '.join(others)} |", "|---" * (2 + len(others)) + "|"]
    for kind in dict.fromkeys(kind for kind, _ in best):
        for end in ends:
            row = [
                verdict(best[kind, end], best[kind, other]) if (kind, other) in best else ""
                for other in others
            ]
            label = f"Adam {best[kind, end].rate:g}, " + (
                "`Finish()`" if "Finish" in end else "cosine"
            )
            lines.append(f"| {kind} | {label} | {' | '.join(row)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    with open(sys.argv[1]) as file:
        best_cells = cells([json.loads(line) for line in file if line.strip()])
    print(accuracies(best_cells), verdicts(best_cells), sep="\n\n")
