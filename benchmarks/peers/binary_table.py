"""The rows of `run_binary` as a Markdown table: `python binary_table.py results.jsonl`.

Accuracies are means, lowest and highest over the seeds. The time of an epoch is the processor's,
the median of a run without its first epoch, as multiples of larq's. A row is ahead of larq's where
its lowest seed is above larq's highest, behind where its highest is below larq's lowest, else tied.
"""

import json
import statistics
import sys
from collections import defaultdict

NAMES = {"larq": "larq's schedule", "finish": "Adam by default, `Finish()`"}


def verdict(accuracies: list[float], rival: list[float]) -> str:
    """Say whether some accuracies are ahead of others by more than their seeds differ."""
    difference = statistics.mean(accuracies) - statistics.mean(rival)
    if min(accuracies) > max(rival):
        word = "ahead"
    else:
        word = "behind" if max(accuracies) < min(rival) else "tied"
    return f"{word} ({difference:+.2f})"


def table(rows: list[dict]) -> str:
    """Draw one row for each network, library and training."""
    groups = defaultdict(list)
    for row in rows:
        groups[row["network"], row["library"], row["end"], row.get("momentum") or 1].append(row)
    lines = [
        "| network | library | training | accuracy, mean (lowest to highest) | seeds "
        "| against larq | time an epoch, larq = 1 | bytes |",
        "|---" * 8 + "|",
    ]
    for (network, library, end, momentum), group in sorted(groups.items()):
        rival = groups[network, "larq", "larq", 1]
        accuracies = [row["accuracy"] for row in group]
        span = f"{statistics.mean(accuracies):.2f} ({min(accuracies):.2f} to {max(accuracies):.2f})"
        seconds, unit = (
            statistics.median(s for r in part for s in r["processor_seconds_per_epoch"][1:])
            for part in (group, rival)
        )
        against = verdict(accuracies, [row["accuracy"] for row in rival])
        training = NAMES[end] + (f", momentum {momentum}" if momentum < 1 else "")
        sizes = ", ".join(f"{size:,} {ending}" for ending, size in group[0]["bytes"].items())
        lines.append(
            f"| {network} | {library} | {training} | {span} | {len(group)} "
            f"| {'' if group is rival else against} | {seconds / unit:.2f} | {sizes} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    with open(sys.argv[1]) as file:
        print(table([json.loads(line) for line in file if line.strip()]))
