"""The rows of `run` as a Markdown table: `python benchmarks/peers/table.py results.jsonl`.

For each list and library the better of the two rates, by mean test accuracy; the lowest and
highest over the seeds; the time of an epoch, the median of a run without its first, and its range
over the runs, as multiples of quantal's on the same list.
"""

import json
import statistics
import sys
from collections import defaultdict


def cells(rows: list[dict]) -> dict:
    """{(list, library): (rate, accuracies, median seconds of each run)}, the better rate's."""
    by_rate = defaultdict(list)
    for row in rows:
        by_rate[row["list"], row["library"], row["rate"]].append(row)
    best: dict = {}
    for (kind, library, rate), own in by_rate.items():
        accuracies = [row["test_accuracy"] for row in own]
        seconds = [statistics.median(row["seconds_per_epoch"][1:]) for row in own]
        found = best.get((kind, library))
        if found is None or statistics.mean(accuracies) > statistics.mean(found[1]):
            best[kind, library] = (rate, accuracies, seconds)
    return best


def table(rows: list[dict]) -> str:
    best = cells(rows)
    lines = [
        "| list | library | rate | accuracy, mean (lowest to highest) | seeds "
        "| time an epoch, quantal = 1 |",
        "|---|---|---|---|---|---|",
    ]
    for kind in dict.fromkeys(kind for kind, _ in best):
        own = [(library, *best[k, library]) for k, library in best if k == kind]
        unit = next(statistics.median(s) for name, _, _, s in own if name == "quantal")
        for library, rate, found, seconds in sorted(own, key=lambda r: -statistics.mean(r[2])):
            times = [second / unit for second in seconds]
            lines.append(
                f"| {kind} | {library} | {rate:g} | {statistics.mean(found):.2f} "
                f"({min(found):.2f} to {max(found):.2f}) | {len(found)} "
                f"| {statistics.median(times):.2f} ({min(times):.2f} to {max(times):.2f}) |"
            )
    return "\n".join(lines)


if __name__ == "__main__":
    with open(sys.argv[1]) as file:
        print(table([json.loads(line) for line in file if line.strip()]))
