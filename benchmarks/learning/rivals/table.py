"""The rows of `run` as Markdown tables: `python benchmarks/learning/rivals/table.py rivals.jsonl`.

Of the planted vectors, how many instances are solved, and the median of the final loss as a
multiple of the planted vector's; of the perceptron, the errors of each instance. Both at both
rates.
"""

import json
import statistics
import sys


def table(rows: list[dict], family: str, cell) -> str:
    """One line a rule, one column a case; a cell has the rates in rising order."""
    rows = [row for row in rows if row["case"].startswith(family)]
    cases = list(dict.fromkeys(row["case"] for row in rows))
    ways = dict.fromkeys((row["library"], row["rule"]) for row in rows if "cannot" not in row)
    short = [case.removeprefix(f"{family}-").removesuffix("-squared") for case in cases]
    lines = [f"| library | rule | {' | '.join(short)} |", "|---|---|" + "---|" * len(cases)]
    for library, rule in ways:
        cells = []
        for case in cases:
            own = [
                r for r in rows if (r["library"], r.get("rule"), r["case"]) == (library, rule, case)
            ]
            own.sort(key=lambda row: row["rate"])
            cells.append("; ".join(cell(row) for row in own) or "–")
        lines.append(f"| {library} | {rule} | {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    with open(sys.argv[1]) as file:
        found = [json.loads(line) for line in file if line.strip()]
    print(
        table(found, "planted", lambda r: f"{r['solved']} ({statistics.median(r['scores']):.1f})")
    )
    print()
    print(table(found, "perceptron", lambda r: ", ".join(map(str, r["scores"]))))
